"""Creates and checks the folders for results."""

from __future__ import annotations

import itertools
import os
import tempfile
from datetime import datetime
from pathlib import Path

from lrkit.base.errors import ConfigError
from lrkit.base.run_files import CHECKPOINTS, METRICS, PLAN, SWEEP
from lrkit.base.symbolic_links import check_links

__all__ = ["check_holds_no_run", "create_folder", "find_unused_path", "make_writable"]


def find_unused_path(folder: Path, ending: str) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return next(p for n in itertools.count() if not (p := folder / f"{stamp}{f'-{n}' if n else ''}{ending}").exists())


def check_holds_no_run(folder: Path) -> None:
    """Refuse a folder with a run: a new run would overwrite its checkpoints."""
    check_links(folder, "hydra.run.dir")
    if any(os.path.lexists(folder / name) for name in (PLAN, METRICS, CHECKPOINTS, SWEEP)):
        must = f"must be a folder without a run: to resume its run set resume.path={folder}, or choose another folder"
        raise ConfigError("hydra.run.dir", must, str(folder))


def make_writable(folder: Path, key: str) -> None:
    """Create a folder before the run, or refuse it with the reason."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(key, f"must be a folder that can be written to ({error.strerror})", str(folder)) from None


def create_folder(parent: Path) -> str:
    """Create a new folder with the time as its name, and return it. Two processes cannot get the same folder."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    make_writable(parent, "the folder for results")
    for attempt in itertools.count():
        folder = parent / (stamp if attempt == 0 else f"{stamp}-{attempt}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return str(folder)
    raise AssertionError

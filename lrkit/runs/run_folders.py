"""Finds the folders of runs: runs of lrkit, and foreign runs that have only event files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.run_files import METRICS, PLAN, RUNGS, SWEEP
from lrkit.runs.event_reader import event_files
from lrkit.runs.untrusted_values import escape_text

__all__ = ["PARTS", "find_runs", "is_add_hparams_folder"]

#: The folders inside a run of Keras, and the prefixes of their tags.
PARTS = {"train": "train/", "validation": "val/", "val": "val/"}


def find_runs(paths: Sequence[Path]) -> dict[Path, str]:
    """The folders of all runs at or below ``paths``, and a name for each.

    Raises:
        ConfigError: a path does not exist, or contains no run.
    """
    for path in paths:
        if not os.path.exists(path):  # false also for an invalid path: too long, or with a null character
            raise ConfigError(str(path), "does not exist")
        if not path.is_dir():
            raise ConfigError(str(path), "must be the folder of a run or of a sweep")
    above = Path(os.path.commonpath([path.resolve() for path in paths]))
    runs: dict[Path, str] = {}
    for path in paths:
        folders = [folder.resolve() for folder in _find_run_folders(path)]
        if not folders:
            must = "must contain a run: it has no plan.json, metrics.json, .hydra or TensorBoard event files"
            raise ConfigError(str(path), must)
        for folder in folders:
            runs[folder] = escape_text(folder.name if folder == above else str(folder.relative_to(above)))
    return runs


def _find_run_folders(top: Path) -> Iterator[Path]:
    """The folders of runs, in the order of their names with numbers as numbers. A folder inside a run belongs to it."""
    for place, inner, files in os.walk(top):
        folder = Path(place)
        inner.sort(key=_natural_key)
        if {PLAN, METRICS} & set(files) or ".hydra" in inner:
            yield folder
            inner.clear()
        elif SWEEP in files:  # its event files, if any, are about all of its jobs
            inner[:] = [name for name in inner if name != RUNGS]
        elif any("tfevents" in name for name in files):
            yield folder
            inner[:] = [name for name in inner if not is_add_hparams_folder(name)]
        elif any(name in PARTS and event_files(folder / name) for name in inner):
            yield folder
            inner[:] = [name for name in inner if name not in PARTS]


def is_add_hparams_folder(name: str) -> bool:
    """Whether torch's ``SummaryWriter.add_hparams`` made a folder inside a run: its name is the time."""
    return re.fullmatch(r"\d{9,}\.\d+", name) is not None


def _natural_key(name: str) -> list[Any]:
    """A sort key that orders the numbers in names as numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]

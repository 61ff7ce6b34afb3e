"""The config and the folder of a command line with `resume.path`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["continued_folder", "load_resumed_config"]


def load_resumed_config(overrides: Sequence[str]) -> None:
    """Read the config of a run from its checkpoint if no file has it: composing needs no torch."""
    from lrkit.config import saved_config
    from lrkit.config.overrides import parse_overrides

    path = saved_config.find_resume_path(parse_overrides(overrides))
    if path is not None and saved_config.find_run_folder(path) is None and os.path.isfile(path):
        from lrkit.checkpoint.config_reader import read_config

        if (config := read_config(path)) is not None:
            saved_config.remember_config(path, config)


def continued_folder(resume: dict[str, Any]) -> Path | None:
    """The folder of the run that is resumed in place; None for a new run, and for one that branches off."""
    if resume["path"] is None or resume["policy"] is not None:
        return None
    from lrkit.config.saved_config import find_run_folder

    return find_run_folder(str(resume["path"]))

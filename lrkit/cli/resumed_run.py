"""The config and the folder of a command line with `resume.path` or `--config`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["find_continued_folder", "has_saved_config", "load_resumed_config"]


def has_saved_config(overrides: Sequence[str]) -> bool:
    """Return whether a command line begins with a saved config: by ``resume.path`` or ``--config``."""
    from lrkit.config import saved_config
    from lrkit.config.config_file import split_config_file
    from lrkit.config.overrides import parse_overrides

    file, words = split_config_file(overrides)
    return file is not None or saved_config.find_resume_path(parse_overrides(words)) is not None


def load_resumed_config(overrides: Sequence[str]) -> None:
    """Read the config of a run from its checkpoint if no file has it, because ``compose`` cannot import torch."""
    from lrkit.config import saved_config
    from lrkit.config.overrides import parse_overrides

    path = saved_config.find_resume_path(parse_overrides(overrides))
    if path is not None and saved_config.find_run_folder(path) is None and os.path.isfile(path):
        from lrkit.checkpoint.config_reader import read_config

        if (config := read_config(path)) is not None:
            saved_config.remember_config(path, config)


def find_continued_folder(resume: dict[str, Any]) -> Path | None:
    """Return the folder of a run that is resumed in its folder; None for a new run, or a resume into a new folder."""
    if resume["path"] is None or resume["policy"] is not None:
        return None
    from lrkit.config.saved_config import find_run_folder

    return find_run_folder(str(resume["path"]))

"""The config and the folder of a command line with `resume.path` or `--config`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["continued_folder", "has_saved_config", "load_resumed_config"]


def has_saved_config(overrides: Sequence[str]) -> bool:
    """Whether the config of a command line begins from a saved one: by ``resume.path`` or ``--config``."""
    from lrkit.config import saved_config
    from lrkit.config.config_file import split_config_file
    from lrkit.config.overrides import parse_overrides

    file, words = split_config_file(overrides)
    return file is not None or saved_config.resume_path_in(parse_overrides(words)) is not None


def load_resumed_config(overrides: Sequence[str]) -> None:
    """Read the config of a run from its checkpoint if no file has it: composing needs no torch."""
    from lrkit.config import saved_config
    from lrkit.config.overrides import parse_overrides

    path = saved_config.resume_path_in(parse_overrides(overrides))
    if path is not None and saved_config.run_folder(path) is None and os.path.isfile(path):
        from lrkit.checkpoint.config_reader import read_config

        if (config := read_config(path)) is not None:
            saved_config.remember_config(path, config)


def continued_folder(resume: dict[str, Any]) -> Path | None:
    """The folder of the run that is resumed in place; None for a new run, and for one that branches off."""
    if resume["path"] is None or resume["policy"] is not None:
        return None
    from lrkit.config.saved_config import run_folder

    return run_folder(str(resume["path"]))

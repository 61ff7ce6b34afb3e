"""Trains one run in this process: a new run by Hydra, or one with a saved config without it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrkit.base.errors import ConfigError
from lrkit.base.exit_codes import DIVERGED, OK
from lrkit.base.run_files import PLAN
from lrkit.cli.hydra_call import refuse_hydra_errors, run_composed
from lrkit.cli.output_folders import make_writable
from lrkit.cli.resumed_run import has_saved_config, load_resumed_config

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["run_saved_config", "train_once"]


def train_once(
    words: Sequence[str], config_dir: str | None, composed: DictConfig | None, made: Path | None = None
) -> int:
    """Train once, in this process.

    Args:
        words: overrides of the command line.
        config_dir: folder of the user's own configs.
        composed: the config as Hydra composed it; None for a run with a saved config, or to compose it here.
        made: the folder that lrkit created for this run; None: the user named it.
    """
    from lrkit.config.compose import compose_with_hydra

    if composed is None and not has_saved_config(words):
        composed = compose_with_hydra(words, config_dir)[1]
    if composed is None:
        return run_saved_config(words, config_dir, made)
    from lrkit.sweep.hydra_job import train_job

    statuses: list[str] = []
    failed: list[Exception] = []

    def job(config: Any) -> None:
        try:
            statuses.append(train_job(config).status)
        except Exception as error:  # Hydra would print the error and exit
            failed.append(error)

    with refuse_hydra_errors():
        run_composed(composed, config_dir, job)
    if failed:
        if isinstance(failed[0], ConfigError):
            _remove_unplanned(made)
        raise failed[0]
    return DIVERGED if "diverged" in statuses else OK


def run_saved_config(words: Sequence[str], config_dir: str | None, made: Path | None) -> int:
    """Resume a run, or train by the config in a file, without Hydra, which cannot compose a saved config."""
    from lrkit.config import compose as configs
    from lrkit.config.instantiate import use_lightning
    from lrkit.config.overrides import parse_overrides

    folder: Path | None = None
    for override in parse_overrides(words):
        key = override.key_or_group
        if key == "hydra.run.dir" and "${" not in str(override.value()):
            folder = Path(str(override.value()))
        elif override.is_hydra_override() and key != "hydra.output_subdir":
            must = "does not apply to a saved config; only hydra.run.dir does, without an interpolation"
            raise ConfigError(key, must, str(override.value()))
    load_resumed_config(words)
    config = configs.compose([word for word in words if not word.startswith("hydra.")], config_dir)
    use_lightning(config)
    from lrkit.training.run import run_training

    assert folder is not None
    make_writable(folder, "hydra.run.dir")
    try:
        return DIVERGED if run_training(config, folder).status == "diverged" else OK
    except ConfigError:
        _remove_unplanned(made)
        raise


def _remove_unplanned(made: Path | None) -> None:
    """Remove the folder that lrkit created for a refused run, if it has no plan."""
    if made is not None and not (made / PLAN).exists():
        shutil.rmtree(made)

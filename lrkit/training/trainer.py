"""The trainer of a run, with its loggers and its progress bar."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrkit.assembly import (
    trainer_of,
)
from lrkit.callbacks.line_progress import LineProgress
from lrkit.config import compose as configs
from lrkit.lightning.classes import (
    Callback,
    ProgressBar,
    RichProgressBar,
    Trainer,
)

__all__ = ["build_run_trainer"]


def build_run_trainer(
    config: Mapping[str, Any], folder: Path, callbacks: list[Callback], joins: int | None, quiet: bool
) -> Trainer:
    """The trainer; ``joins`` is the step at which a resumed run continues the curves of its folder."""
    options = dict(config["trainer"])
    options["accumulate_grad_batches"] = configs.accumulation(config, configs.replicas_of(options)[0])
    bar = options.pop("enable_progress_bar", None)
    theirs = any(isinstance(callback, ProgressBar) for callback in callbacks)
    if theirs and quiet:  # a progress bar would still write to the screen
        callbacks = [each for each in callbacks if not isinstance(each, ProgressBar)]
        theirs, bar = False, bar is True
    elif theirs and bar is None:
        bar = True
    if bar is None:
        bar = sys.stderr.isatty() and not quiet
        if not bar and not quiet:
            callbacks = [*callbacks, LineProgress()]
    if bar and not theirs:
        callbacks = [*callbacks, RichProgressBar(leave=False)]
    trust = config.get("trust", ())
    loggers = [_build_logger(node, f"logger.{name}", trust, folder, joins) for name, node in config["logger"].items()]
    own = {"callbacks": callbacks, "logger": loggers or False, "default_root_dir": folder}
    return trainer_of({**options, "enable_progress_bar": bool(bar)}, trust, **own)


def _build_logger(node: Mapping[str, Any], key: str, trust: Sequence[str], folder: Path, joins: int | None) -> Any:
    """A logger in the run's folder; curves after the step at which a resumed run joins are removed."""
    own: dict[str, Any] = {"save_dir": str(folder)} if node.get("save_dir") == "auto" else {}
    if joins is not None and str(node.get("_target_", "")).endswith("TensorBoardLogger"):
        own["purge_step"] = joins
    return configs.build({**node, **own}, key, trust)

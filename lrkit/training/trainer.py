"""The trainer of a run, with its loggers and its progress bar."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lrkit.base.terminal_width import find_width
from lrkit.callbacks.line_progress import LineProgress
from lrkit.callbacks.results_writer import ResultsWriter
from lrkit.callbacks.terminal_progress import TerminalProgress
from lrkit.config import compose as configs
from lrkit.lightning.imports import Callback, ProgressBar, Trainer
from lrkit.lightning.trainer_objects import trainer_of
from lrkit.training.loggers import build_loggers

__all__ = ["build_run_trainer"]


def build_run_trainer(
    config: Mapping[str, Any],
    folder: Path,
    callbacks: list[Callback],
    results: ResultsWriter,
    joins: int | None,
    quiet: bool,
) -> Trainer:
    """The trainer.

    Args:
        config, folder, callbacks, quiet: of the run.
        results: has the best validation so far, for the progress bar.
        joins: the step at which a resumed run continues the curves of its folder.
    """
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
        bar = not quiet and find_width() is not None
        if not quiet:
            callbacks = [*callbacks, LineProgress()]
    if bar and not theirs:
        callbacks = [*callbacks, TerminalProgress(results)]
    loggers = build_loggers(config, folder, joins)
    own = {"callbacks": callbacks, "logger": loggers or False, "default_root_dir": folder}
    return trainer_of({**options, "enable_progress_bar": bool(bar)}, config.get("trust", ()), **own)

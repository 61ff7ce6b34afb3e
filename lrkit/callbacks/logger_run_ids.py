"""The ids of the runs of loggers on a server, and the hyper-parameters and results that a logger gets beside curves.

Weights & Biases and MLflow create their own runs. ``loggers.json`` in the run's folder keeps their ids, by which a
resumed run continues them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lrkit.base.errors import RunError
from lrkit.base.files import read_json, write_json
from lrkit.config.server_loggers import find_server_logger
from lrkit.lightning.imports import Callback, LightningModule, Logger, Trainer

__all__ = ["LoggerRuns", "log_hyperparameters", "read_run_ids"]

FILE = "loggers.json"
_ID = re.compile(r"[\w-]{1,128}")


class LoggerRuns(Callback):
    """Keeps the ids of the runs that loggers have begun.

    Args:
        folder: the run's folder.
        names: names of the loggers in the config, in the order of the trainer.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, list(names)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        ids = {name: run_id_of(logger) for name, logger in zip(self.names, trainer.loggers, strict=True)}
        begun = {name: run_id for name, run_id in ids.items() if run_id}
        if begun and begun != read_run_ids(self.folder):
            with suppress(RunError):  # on a full disk a resumed run begins new runs
                write_json(self.folder / FILE, begun)


def run_id_of(logger: Logger) -> str:
    """The id of the run that a logger of a server has begun; an empty text for another logger."""
    server = find_server_logger(type(logger).__name__)
    value = None if server is None else getattr(logger, server.id_attribute)
    return value if isinstance(value, str) else ""


def read_run_ids(folder: Path) -> dict[str, str]:
    """The ids in a run's folder, by the names of the loggers; empty if there is no such file."""
    content = read_json(folder / FILE)
    kept = content.items() if isinstance(content, dict) else ()
    return {str(name): value for name, value in kept if isinstance(value, str) and _ID.fullmatch(value)}


def log_hyperparameters(logger: Logger, hparams: Mapping[str, Any]) -> None:
    """Log the hyper-parameters of a run. MLflow's never change: a resumed run's other values become tags."""
    left = dict(hparams)
    if type(logger).__name__ == "MLFlowLogger":
        server: Any = logger
        with suppress(Exception):  # the guard of the logger reports a server that does not answer
            known = dict(server.experiment.get_run(server.run_id).data.params)
            for name in known.keys() & left.keys():
                if known[name] != str(value := left.pop(name)):
                    server.experiment.set_tag(server.run_id, name, value)
    logger.log_hyperparams(left)

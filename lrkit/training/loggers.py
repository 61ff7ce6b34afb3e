"""The loggers of a run. A logger of a server continues its own run when lrkit's run is resumed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lrkit.callbacks.logger_run_ids import read_run_ids
from lrkit.config import compose as configs
from lrkit.config.server_loggers import find_server_logger
from lrkit.lightning.imports import Logger

__all__ = ["build_loggers", "finishing_runs"]

AUTO = "auto"


def build_loggers(config: Mapping[str, Any], folder: Path, joins: int | None) -> list[Logger]:
    """The loggers of a config, with values in place of auto.

    Args:
        config: the config of the run.
        folder: the run's folder.
        joins: step at which a resumed run continues the curves of its folder; None for new curves.
    """
    kept = {} if joins is None else read_run_ids(folder)
    loggers: list[Logger] = []
    for name, node in config["logger"].items():
        own = _complete_options(node, folder, kept.get(name), joins)
        loggers.append(configs.build({**node, **own}, f"logger.{name}", config.get("trust", ())))
    return loggers


def _complete_options(node: Mapping[str, Any], folder: Path, run_id: str | None, joins: int | None) -> dict[str, Any]:
    """The options of a logger that lrkit knows; curves after the step at which a resumed run joins are removed."""
    kind = str(node.get("_target_", "")).rpartition(".")[2]
    own: dict[str, Any] = {"save_dir": str(folder)} if node.get("save_dir") == AUTO else {}
    if joins is not None and kind == "TensorBoardLogger":
        own["purge_step"] = joins
    if joins is not None and kind == "CSVLogger" and node.get("version") == "":  # it deletes the file that is there
        own["version"] = f"from_step_{joins}"
    server = find_server_logger(kind)
    if server is not None and node.get(server.id_argument) == AUTO:
        own[server.id_argument] = run_id
    if kind == "MLFlowLogger" and node.get("tracking_uri") == AUTO:
        own["tracking_uri"] = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    return own


@contextmanager
def finishing_runs(config: Mapping[str, Any]) -> Iterator[None]:
    """Within the context a run of Weights & Biases begins and ends; another run in this process gets its own."""
    is_used = any(str(node.get("_target_")).endswith(".WandbLogger") for node in config["logger"].values())
    before = getattr(sys.modules.get("wandb"), "run", None)
    try:
        yield
    finally:
        wandb = sys.modules.get("wandb")
        if is_used and before is None and getattr(wandb, "run", None) is not None:
            with suppress(Exception):  # the training has ended, and its results are written
                wandb.finish()  # type: ignore[union-attr]

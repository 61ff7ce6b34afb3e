"""The messages of Lightning that lrkit does not show."""

from __future__ import annotations

import logging
import warnings

from lrkit.lightning.imports import PACKAGE

__all__ = ["silence_lightning"]


def silence_lightning() -> None:
    """Silence Lightning's info messages; its warnings stay."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(f"{PACKAGE}.profilers").setLevel(logging.INFO)  # the report of a profiler of the config
    for message in (
        "The number of training batches .* is smaller than the logging interval",  # lrkit sets the interval itself
        r".*isinstance\(treespec, LeafSpec\)",  # between Lightning and torch
        "Checkpoint directory .* exists and is not empty",  # in a resumed run it does
        "Experiment logs directory .* exists and is not empty",  # of CSVLogger: the run's folder, and its own file
        "The dirpath has changed",  # in a run that branches off it does
    ):
        warnings.filterwarnings("ignore", message)

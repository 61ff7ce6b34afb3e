"""The counts and limits of a config against the batches and samples that the trainer has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.data.in_memory import InMemoryData
from lrkit.lightning.imports import Trainer
from lrkit.lightning.replicas import count_replicas

__all__ = ["check_declared_counts", "check_evaluation_shares"]


def check_declared_counts(config: Mapping[str, Any], trainer: Trainer) -> None:
    """Refuse other optimizer steps in an epoch, or samples in a step, than those of the training.

    Lengths in epochs and samples, and the factor of ``batch_scaling``, would be those of another training. What a
    batch of the user's own data has, only the user knows.
    """
    declared, batches, accumulate = config["horizon"], trainer.num_training_batches, trainer.accumulate_grad_batches
    if config["trainer"].get("fast_dev_run"):
        return
    told = declared.get("steps_per_epoch")
    if told is not None and batches != float("inf") and told != (there := math.ceil(batches / accumulate)):
        raise ConfigError("horizon.steps_per_epoch", f"must be {there}, or null: the trainer counted it", told)
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    told = declared.get("batch_size")
    if told is not None and isinstance(data, InMemoryData):
        there = data.batch_size * count_replicas(trainer) * accumulate
        if told != there:
            raise ConfigError("horizon.batch_size", f"must be {there}, the samples in an optimizer step, or null", told)


def check_evaluation_shares(config: Mapping[str, Any], trainer: Trainer) -> None:
    """Refuse a share of the batches of a validation or a test that is none of them, before the training.

    Lightning finds it when the evaluation begins, which for the test is after the training. The loaders of the user's
    own data are not made earlier for it.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, InMemoryData):
        return
    options = config["trainer"]
    names = ["overfit_batches" if options.get("overfit_batches") else "limit_val_batches"]
    for name in [*names, *(["limit_test_batches"] if config["test"] else [])]:
        share, part = options.get(name), "test" if name == "limit_test_batches" else "validation"
        if isinstance(share, float) and share > 0:
            loader = data.test_dataloader() if part == "test" else data.val_dataloader()
            if int(len(loader) * share) == 0:
                raise ConfigError(f"trainer.{name}", f"leaves none of the {len(loader)} batches of the {part}", share)

"""Reports an error in the first batch as bad input, with the types and shapes of the batch."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lrkit.base import error_report
from lrkit.base.errors import ConfigError, Diverged, RunError, SearchError
from lrkit.lightning.imports import Callback, LightningModule, MisconfigurationException, Trainer
from lrkit.lightning.network_output import describe_value

__all__ = ["FirstBatchCheck"]

_STEPS = ("training_step", "validation_step")


class FirstBatchCheck(Callback):
    """Turns errors of the model into bad input until one batch is trained on: no training is lost until then."""

    def __init__(self) -> None:
        self.batch: Any = None
        self.done = False

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.batch = None if self.done else batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batch = None if self.done else batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if self.done:
            return
        if loss.numel() != 1:
            raise ConfigError("model", "must return one number as the loss of a batch", describe_value(loss))
        if not loss.requires_grad:
            raise ConfigError("model", "must return a loss that depends on its parameters: this one has no gradient")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batch, self.done = None, True

    @contextmanager
    def explaining(self, module: LightningModule) -> Iterator[None]:
        """Within the context, an error of the model in the first batch becomes a ConfigError.

        Raises:
            ConfigError: the error, the types and shapes of the batch, and the types of the parameters.
        """
        try:
            yield
        except (ConfigError, Diverged, RunError, SearchError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            inside = isinstance(error, MisconfigurationException) or any(frame.name in _STEPS for frame in frames)
            if self.batch is None or not inside:
                raise
            types = ", ".join(sorted({_dtype_name(p.dtype) for p in module.parameters()}))
            facts = f"the batch is {describe_value(self.batch)}, the parameters are {types}"
            raise ConfigError(
                "model", f"cannot use the first batch: {error_report.describe_cause(error)}; {facts}"
            ) from error


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

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
        self._wait_for_errors(loss.device)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: int
    ) -> None:
        if not self.done:
            self._wait_for_errors(pl_module.device)

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
        except Exception as error:
            self._explain(module, error)
            raise

    def _explain(self, module: LightningModule, error: Exception) -> None:
        """Raise a ConfigError if an error is one of the model in the first batch."""
        if isinstance(error, ConfigError | Diverged | RunError | SearchError | torch.OutOfMemoryError):
            return
        if self.batch is None:
            return
        errors = _list_causes(error)  # a device that failed in the batch fails again while Lightning ends the training
        late = next((each for each in errors if type(each).__name__ == "AcceleratorError"), None)
        if late is not None:
            raise self._describe_late(module, late) from error
        if any(isinstance(each, MisconfigurationException) or _is_in_step(each) for each in errors):
            why = error_report.describe_cause(error)
            raise ConfigError("model", f"cannot use the first batch: {why}; {self._describe(module)}") from error

    def _wait_for_errors(self, device: torch.device) -> None:
        """Wait once for a device: only then does it report an error in a kernel, such as a label that is too large."""
        if device.type != "cpu" and self.batch is not None:
            torch.accelerator.synchronize(device)

    def _describe_late(self, module: LightningModule, error: BaseException) -> ConfigError:
        first = str(error).splitlines()[0]
        return ConfigError(
            "model",
            f"cannot use the first batch: {first}: often a label or an index is outside of 0 to the number of"
            f" outputs or rows; trainer.accelerator=cpu says which; {self._describe(module)}",
        )

    def _describe(self, module: LightningModule) -> str:
        types = ", ".join(sorted({_dtype_name(p.dtype) for p in module.parameters()}))
        return f"the batch is {describe_value(self.batch)}, the parameters are {types}"


def _list_causes(error: BaseException | None) -> list[BaseException]:
    """The error, the one during which it was raised, and so on."""
    return [] if error is None else [error, *_list_causes(error.__context__)]


def _is_in_step(error: BaseException) -> bool:
    return any(frame.name in _STEPS for frame in traceback.extract_tb(error.__traceback__))


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

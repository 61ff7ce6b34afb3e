"""lrkit's own LightningModule: a network with a loss, for batches of inputs and targets."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrkit.base.errors import ConfigError
from lrkit.lightning.imports import LightningModule
from lrkit.lightning.network_output import IGNORED, NetworkOutput, OutputReading, describe_value

__all__ = ["Supervised"]


class Supervised(LightningModule):
    """A LightningModule of a network and a loss: logs ``val/loss``, and ``val/accuracy`` for classes.

    A run logs its ``train/loss`` (``lrkit.callbacks.train_loss``).

    Args:
        model: maps inputs ``x`` of shape ``(batch, ...)`` to logits ``(batch, classes)``, ``(batch, time, classes)``,
            ``(batch, classes, height, width)``, or to values of the shape of the targets. The other accepted
            outputs, and the search for the class axis, are in ``lrkit.lightning.network_output``.
        loss: ``cross_entropy`` (nats a target) or ``mse``; None: not set, and classes are expected.
        class_axis: the class axis of the output, 1 or -1; None: the network's attribute of that name, or, without
            it, decided by the shapes.
        usual_axis: the class axis if the shapes allow both; None: both are refused.
        classes: number of classes of the data; None: unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: str | None = None,
        class_axis: int | None = None,
        usual_axis: int | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        if loss not in ("cross_entropy", "mse", None):
            raise ConfigError("data.loss", "must be cross_entropy or mse", loss)
        self.model = model
        self.loss = loss or "cross_entropy"
        own = getattr(model, "class_axis", None)
        axis = class_axis if class_axis is not None or type(own) is not int else own
        self.output = NetworkOutput(
            self.loss,
            axis,
            classes,
            declared=loss is not None,
            usual_axis=usual_axis,
            takes=_find_targets_argument(model),
        )

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning writes the name of each hook into the module, some forty times a step. Text that replaces text or
        # None is no parameter and no submodule, so torch's search for these is skipped.
        if (value is None or type(value) is str) and name in self.__dict__:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Any:
        return self.model(x)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        loss, _ = self._compute_loss_and_accuracy(batch)
        return loss

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._log_evaluation("val", batch)

    def test_step(self, batch: Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._log_evaluation("test", batch)

    def _log_evaluation(self, stage: str, batch: Sequence[Tensor]) -> None:
        loss, accuracy = self._compute_loss_and_accuracy(batch)
        options: dict[str, Any] = {"on_epoch": True, "sync_dist": True, "batch_size": len(batch[1])}
        self.log(f"{stage}/loss", loss, **options)
        if accuracy is not None:
            self.log(f"{stage}/accuracy", accuracy, **options)

    def _compute_loss_and_accuracy(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """The loss and, for classes and outside of training, the accuracy."""
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            must = "must give batches of two, inputs and targets, if the model is no LightningModule"
            raise ConfigError("data", must, describe_value(batch))
        x, y = batch
        read = self.output.read(self(x), y, self.training)
        loss = self._compute_loss(read)
        return loss, None if self.training or self.loss == "mse" else _compute_accuracy(*read)

    def loss_of(self, out: Any, y: Tensor) -> Tensor:
        """The loss of a network's returned value, a scalar: the mean over all targets."""
        return self._compute_loss(self.output.read(out, y, self.training))

    def _compute_loss(self, read: OutputReading) -> Tensor:
        out, y, axis = read
        if self.loss == "mse":
            return F.mse_loss(out, y)
        if axis == 1:
            return F.cross_entropy(out, y)
        return F.cross_entropy(out.flatten(0, -2), y.flatten(0, -2) if y.is_floating_point() else y.flatten())


def _compute_accuracy(out: Tensor, y: Tensor, axis: int) -> Tensor:
    """The share of targets that equal the most probable class, among the targets that are not ignored."""
    if y.is_floating_point():
        return (out.argmax(axis) == y.argmax(axis)).to(torch.get_default_dtype()).mean()
    predicted = out.argmax(1) if axis == 1 else out.flatten(0, -2).argmax(-1)
    correct = predicted.flatten() == y.flatten()
    counted = (y != IGNORED).sum()
    # The factor is exactly 1 if no target is ignored; it needs no synchronisation with the device.
    return correct.to(torch.get_default_dtype()).mean() * (y.numel() / counted)


def _find_targets_argument(model: nn.Module) -> str | None:
    """The argument by which a network computes its own loss, as those of transformers and nanoGPT do; None for none."""
    try:
        accepted = inspect.signature(model.forward).parameters
    except (TypeError, ValueError):
        return None
    return next((name for name in ("labels", "targets", "target") if name in accepted), None)

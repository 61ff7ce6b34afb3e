"""lrkit's own module: a network with a loss, for inputs and targets."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrkit.base.errors import ConfigError
from lrkit.lightning.classes import LightningModule
from lrkit.lightning.network_output import IGNORED, NetworkOutput, OutputReading, describe_value

__all__ = ["Supervised"]


class Supervised(LightningModule):
    """A network with a loss: logs ``train/loss``, ``val/loss`` and, for classes, ``val/accuracy``.

    Args:
        model: maps inputs ``x`` of shape ``(batch, ...)`` to logits ``(batch, classes)``, ``(batch, time, classes)``,
            ``(batch, classes, height, width)``, or to values of the shape of the targets. What else it may return, and
            how the axis of the classes is found: ``lrkit.lightning.network_output``.
        loss: ``cross_entropy`` (nats a target) or ``mse``; None: nobody has said, and classes are expected.
        class_axis: which axis of the output is the classes, 1 or -1; None: what the network's own attribute of that
            name says, or else the shapes.
        usual_axis: the one to take where the shapes fit both; None: that is refused.
        classes: how many there are, where the data knows.
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
            self.loss, axis, classes, declared=loss is not None, usual_axis=usual_axis, takes=_takes_targets(model)
        )

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the name of each hook in the module, some forty times a step; text in place of text, or of
        # nothing, is no parameter and no submodule, which is what torch would look for.
        if (value is None or type(value) is str) and name in self.__dict__:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Any:
        return self.model(x)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        loss, _ = self._measure(batch)
        trainer = self.trainer
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        # Where nobody would write it down, it need not be handed over either: that takes as long as a small network.
        if trainer.is_last_batch or (trainer.fit_loop.epoch_loop._batches_that_stepped + 1) % every == 0:
            self.log("train/loss", loss.detach(), batch_size=len(batch[1]))
        return loss

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate("test", batch)

    def _evaluate(self, stage: str, batch: Sequence[Tensor]) -> None:
        loss, accuracy = self._measure(batch)
        options: dict[str, Any] = {"on_epoch": True, "sync_dist": True, "batch_size": len(batch[1])}
        self.log(f"{stage}/loss", loss, **options)
        if accuracy is not None:
            self.log(f"{stage}/accuracy", accuracy, **options)

    def _measure(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Loss and, for classes outside of training, accuracy."""
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            must = "must give batches of two, inputs and targets, to a plain network; or the model a LightningModule"
            raise ConfigError("data", must, describe_value(batch))
        x, y = batch
        read = self.output.read(self(x), y, self.training)
        loss = self._loss(read)
        return loss, None if self.training or self.loss == "mse" else _accuracy(*read)

    def loss_of(self, out: Any, y: Tensor) -> Tensor:
        """The loss of what the network returned, the mean over all targets: a scalar."""
        return self._loss(self.output.read(out, y, self.training))

    def _loss(self, read: OutputReading) -> Tensor:
        out, y, axis = read
        if self.loss == "mse":
            return F.mse_loss(out, y)
        if axis == 1:
            return F.cross_entropy(out, y)
        return F.cross_entropy(out.flatten(0, -2), y.flatten(0, -2) if y.is_floating_point() else y.flatten())


def _accuracy(out: Tensor, y: Tensor, axis: int) -> Tensor:
    """The share of targets that are the likeliest class; of those that are not left out."""
    if y.is_floating_point():
        return (out.argmax(axis) == y.argmax(axis)).to(torch.get_default_dtype()).mean()
    said = out.argmax(1) if axis == 1 else out.flatten(0, -2).argmax(-1)
    right = said.flatten() == y.flatten()
    counted = (y != IGNORED).sum()
    # A factor of exactly 1 where all count, and nobody waits for it.
    return right.to(torch.get_default_dtype()).mean() * (y.numel() / counted)


def _takes_targets(model: nn.Module) -> str | None:
    """The argument by which a network, as those of transformers and nanoGPT do, would compute a loss of its own."""
    try:
        accepted = inspect.signature(model.forward).parameters
    except (TypeError, ValueError):
        return None
    return next((name for name in ("labels", "targets", "target") if name in accepted), None)

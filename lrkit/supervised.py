"""lrkit's own LightningModule around any network: a loss, its accuracy, and their names in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrkit.errors import ConfigError
from lrkit.lightning import LightningModule
from lrkit.network_output import check_classes, cross_entropy, described, squared_error, tensor_of

__all__ = ["Supervised"]


class Supervised(LightningModule):
    """A network with a loss: logs ``train/loss``, ``val/loss`` and, for classes, ``val/accuracy``.

    Args:
        model: maps inputs ``x`` of shape ``(batch, ...)`` to logits or values, see ``lrkit.network_output``.
        loss: ``cross_entropy`` (nats a target) or ``mse``.
        class_axis: 1 or -1, where the shapes of logits and targets do not tell which axis is that of the classes.
    """

    def __init__(self, model: nn.Module, loss: str = "cross_entropy", class_axis: int | None = None) -> None:
        super().__init__()
        if loss not in ("cross_entropy", "mse"):
            raise ConfigError("data.loss", "must be cross_entropy or mse", loss)
        self.model = model
        self.loss = loss
        self.class_axis = getattr(model, "class_axis", None) if class_axis is None else class_axis
        self.checked = False

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the name of each hook in the module, some forty times a step; text in place of text, or of
        # nothing, is no parameter and no submodule, which is what torch would look for.
        if (value is None or type(value) is str) and name in self.__dict__:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return tensor_of(self.model(x))

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        loss, _ = self._measure(batch)
        trainer = self.trainer
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        # Where nobody would write it down, it need not be handed over either: that takes as long as a small network.
        if trainer.is_last_batch or (trainer.global_step + 1) % every == 0:
            self.log("train/loss", loss.detach(), batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self._evaluate("test", batch)

    def loss_of(self, out: Tensor, y: Tensor) -> Tensor:
        """The loss of what the network said, the mean over all targets: a scalar."""
        return squared_error(out, y) if self.loss == "mse" else cross_entropy(out, y, self.class_axis)[0]

    def _evaluate(self, stage: str, batch: Sequence[Tensor]) -> None:
        loss, accuracy = self._measure(batch)
        options: dict[str, Any] = {"on_epoch": True, "sync_dist": True, "batch_size": len(batch[0])}
        self.log(f"{stage}/loss", loss, **options)
        if accuracy is not None:
            self.log(f"{stage}/accuracy", accuracy, **options)

    def _measure(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Loss and, for classes outside of training, accuracy."""
        if not (isinstance(batch, list | tuple) and len(batch) == 2):
            must = "must give a mere network pairs of inputs and targets; use a LightningModule for anything else"
            raise ConfigError("data", must, described(batch))
        x, y = batch
        out = self(x)
        if self.loss == "mse":
            return squared_error(out, y), None
        if not self.checked:  # before a GPU meets a class that it does not have
            check_classes(y, out, self.class_axis)
            self.checked = True
        loss, axis = cross_entropy(out, y, self.class_axis)
        if self.training:
            return loss, None
        guesses = out.argmax(axis)
        right = guesses == (y.argmax(1) if y.is_floating_point() else y.view_as(guesses))
        return loss, right.to(torch.get_default_dtype()).mean()

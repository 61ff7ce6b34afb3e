"""Train and eval modes that a module sets at the start of an epoch still hold in a run resumed within that epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plain_lightning
import pytest
import torch
from interrupted_runs import EVERY, interrupted, notes, same_weights, saves
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lrkit.checkpoint.module_modes import KEY
from lrkit.config.compose import compose
from lrkit.lightning.imports import PACKAGE, Callback
from lrkit.training.run import run_training


class Net(plain_lightning.Net):
    """A backbone with layers that depend on train and eval mode and on being frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head, self.scale = nn.Linear(8, 2), 1.0

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        logits = self.scale * self.head(self.backbone(batch["features"]))
        return nn.functional.cross_entropy(logits, batch["label"])


class Sets(Net):
    """A linear evaluation of its backbone, as lightly has it, with a temperature that follows the epoch."""

    def on_train_epoch_start(self) -> None:
        self.backbone.eval()
        self.backbone.requires_grad_(False)
        self.scale = 1.0 / (1 + self.current_epoch)
        self.later = 2 * self.current_epoch


class Phases(Callback):
    """Trains the backbone in every other epoch."""

    factor = 1

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        odd = bool(trainer.current_epoch % 2)
        self.factor = 2 + trainer.current_epoch
        pl_module.backbone.train(odd)
        pl_module.backbone[0].weight.requires_grad_(odd)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        pl_module.head.weight.grad *= self.factor


class Masked(Net):
    """Sets what is no number; and its metric forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = MeanMetric()
        self.words, self.kept = "a", "b"

    def on_train_epoch_start(self) -> None:
        self.mask, self.words, self.kept = torch.rand(2), f"epoch {self.current_epoch}", "b"
        self.mean.reset()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.mean(1.0)
        return super().training_step(batch, batch_idx)


BASE = (
    "logger=none",
    "trainer.max_epochs=3",
    "model=custom",
    "data=custom",
    "data._target_=plain_lightning.Data",
    EVERY[1],
)
WHERE = pytest.mark.parametrize(
    "at", [pytest.param((11, "end"), id="end", marks=pytest.mark.slow), pytest.param((12, "within"), id="within")]
)
TUNES = (
    f"+callbacks.tunes={{_target_: {PACKAGE}.callbacks.BackboneFinetuning, unfreeze_backbone_at_epoch: 1,"
    " train_bn: false}"
)
MODELS = {
    "module": ["model._target_=test_module_modes.Sets"],
    "callback": ["model._target_=test_module_modes.Net", "+callbacks.phases._target_=test_module_modes.Phases"],
    "finetuning": ["model._target_=test_module_modes.Net", TUNES],
}


@WHERE
@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_goes_on_has_the_weights_of_one_that_was_not_stopped(
    model: str, at: tuple[int, str], tmp_path: Path
) -> None:
    save = [saves(11)] if at[1] == "within" else []
    whole, part = interrupted(tmp_path, at[0], *MODELS[model], *save, base=BASE)
    assert same_weights(whole, part) and notes(part) == []


def test_a_checkpoint_of_a_validation_has_the_modes_of_the_training(tmp_path: Path) -> None:
    run_training(compose([*BASE, *MODELS["module"], "trainer.val_check_interval=3"]), tmp_path, quiet=True)
    content = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert content["epoch"] == 1 and content[KEY] == {
        "eval": ["backbone", "backbone.0", "backbone.1", "backbone.2"],
        "frozen": ["backbone.0.weight", "backbone.0.bias", "backbone.1.weight", "backbone.1.bias"],
        "attributes": {"": {"scale": 1 / 2, "later": 2}},
        "unknown": [],
    }


def test_what_cannot_be_kept_is_said(tmp_path: Path) -> None:
    _, part = interrupted(tmp_path, 12, "model._target_=test_module_modes.Masked", saves(11), base=BASE)
    (said,) = notes(part)
    assert said.startswith("on_train_epoch_start has set words, mask, which a checkpoint does not")

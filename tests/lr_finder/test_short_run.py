"""Short runs: they measure the same as a training, with any module, and have no effect afterwards."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import plain_lightning
import pytest
import torch
from plain_lightning import Losses
from recorded_rates import Recorded
from torch import Tensor, nn

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose
from lrkit.lr_finder import short_run
from lrkit.lr_finder.short_run import ShortRun
from lrkit.lr_finder.training_task import ConfigTask
from lrkit.planning.plan import Plan
from lrkit.training_objects.data import data_of

FOREIGN = ("data=custom", "data._target_=plain_lightning.Data", "data.batch_size=10")


def unchanged(plan: Plan) -> tuple[Plan, int]:
    """Six steps of the run's own plan."""
    return plan, 6


def tried(*overrides: str, follow: Callable[[Plan], tuple[Plan, int]] = unchanged, **how: Any) -> ShortRun:
    config = compose(list(overrides))
    return short_run.run_short(ConfigTask(config, data_of(config)), follow, **how)


class Burst(plain_lightning.Net):
    """Checks its numbers itself, as distributions do."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        logits = self.head(self.body(batch["features"]))
        # A ValueError where they are not finite; torch's compiler turns this check off for the whole process.
        torch.distributions.Categorical(logits=logits, validate_args=True)
        return nn.functional.cross_entropy(logits, batch["label"])


class Twice(plain_lightning.Manual):
    """Two optimizer steps with each batch."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        super().training_step(batch, batch_idx)
        super().training_step(batch, batch_idx)
        return self.loss(batch)


class Wrong(plain_lightning.Net):
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        raise ValueError("a mistake in the module")


class NoLoss(plain_lightning.Manual):
    def log(self, *args: Any, **kwargs: Any) -> None:
        """Logs nothing."""


class Spoiled(plain_lightning.Net):
    """A loss that is not finite from the fourth batch on."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        return loss * math.nan if self.trainer.global_step >= 3 else loss


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_losses_are_those_of_a_training(train: Callable[..., Any], recorded: Recorded, accumulate: int) -> None:
    overrides = ["optimizer.lr=0.05", "warmup=linear", f"trainer.accumulate_grad_batches={accumulate}", "seed=3"]
    run = train(*overrides, "+callbacks.losses._target_=plain_lightning.Losses", "trainer.limit_train_batches=18")
    real = [sum(Losses.seen[i : i + accumulate]) / accumulate for i in range(0, 18, accumulate)]
    rates = [step["default"][0] for step in recorded]
    recorded.clear()
    short = [*overrides, "trainer.max_epochs=1", "trainer.limit_train_batches=18"]
    again = tried(*short, follow=lambda plan: (plan, run.plan.horizon.steps))
    assert again.losses == pytest.approx(real, rel=1e-6)
    assert [step["default"][0] for step in recorded] == rates == pytest.approx(again.rates)


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`")
@pytest.mark.parametrize(
    "target", ["plain_lightning.Net", "plain_lightning.DictLoss", "plain_lightning.Manual", "plain_lightning.Silent"]
)
def test_any_module_and_any_batch(target: str) -> None:
    found = tried(*FOREIGN, "model=custom", f"model._target_={target}", score=True)
    assert len(found.losses) == 6 and all(0 < loss < 3 for loss in found.losses)
    assert found.ended == "it came to its end"
    assert math.isfinite(found.score)


def test_epochs_follow_each_other() -> None:
    """60 samples in batches of 10 make 6 steps an epoch."""
    found = tried(*FOREIGN, "model=custom", "model._target_=plain_lightning.Net", follow=lambda plan: (plan, 20))
    assert len(found.losses) == 20


def test_the_plan_of_the_run_is_told() -> None:
    found = tried(*FOREIGN, "model=custom", "model._target_=plain_lightning.Net", "trainer.max_epochs=7")
    assert found.full.horizon.steps == 42


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_precision(precision: str) -> None:
    assert len(tried(f"trainer.precision={precision}").losses) == 6


def test_the_score_is_the_validation_loss_or_the_monitor(train: Callable[..., Any]) -> None:
    overrides = ["trainer.max_epochs=1", "trainer.limit_train_batches=6", "seed=5"]
    run = train(*overrides, short=False)
    assert tried(*overrides, score=True).score == pytest.approx(run.final["val/loss"], rel=1e-6)
    by_accuracy = tried(*overrides, "monitor=val/accuracy", score=True)
    assert by_accuracy.score == pytest.approx(-run.final["val/accuracy"])
    assert by_accuracy.scored == "negative val/accuracy"


def test_without_validation_the_score_is_the_training_loss() -> None:
    found = tried("trainer.limit_val_batches=0", follow=lambda plan: (plan, 20), score=True)
    assert found.score == pytest.approx(sum(found.losses[-2:]) / 2)
    assert found.scored == "mean training loss of the last tenth"
    found = tried("data=custom", "data._target_=plain_lightning.OnlyTraining", "data.batch_size=10", "model=custom",
                  "model._target_=plain_lightning.Silent", score=True)  # fmt: skip
    assert found.score == found.losses[-1]


def test_a_monitor_that_nobody_logs_is_named() -> None:
    with pytest.raises(ConfigError, match="monitor names a metric that is not logged"):
        tried("monitor=val/accurcy", score=True)


def test_validation_after_each_step() -> None:
    found = tried("trainer.accumulate_grad_batches=2", probe=True)
    assert len(found.validated) == len(found.losses) == 6
    assert found.validated == sorted(found.validated, reverse=True)  # a validation loss has no noise of batches
    with pytest.raises(ConfigError, match=r"find\.loss=val needs a validation"):
        tried("trainer.limit_val_batches=0", probe=True)


def test_it_stops_when_told() -> None:
    def third(losses: Sequence[float]) -> str:
        return "enough" if len(losses) == 3 else ""

    found = tried(stop=third)
    assert (len(found.losses), found.ended) == (3, "enough")


def test_a_loss_that_is_not_finite_ends_it() -> None:
    found = tried(*FOREIGN, "model=custom", "model._target_=test_short_run.Spoiled", score=True)
    assert (len(found.losses), found.ended, found.score) == (4, "the loss was not finite", math.inf)


def test_a_module_that_raises_once_its_weights_burst() -> None:
    def hot(plan: Plan) -> tuple[Plan, int]:
        return dataclasses.replace(plan, base_lr=1e30), 30

    overrides = [*FOREIGN, "model=custom", "model._target_=test_short_run.Burst"]
    found = tried(*overrides, follow=hot, score=True)
    assert found.ended == "the weights overflowed" and found.score == math.inf
    assert tried(*overrides).ended == "it came to its end"


def test_a_mistake_in_the_module_is_not_taken_for_divergence() -> None:
    with pytest.raises(ValueError, match="a mistake in the module"):
        tried(*FOREIGN, "model=custom", "model._target_=test_short_run.Wrong")


def test_a_module_that_shows_no_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model must return a training loss: NoLoss.training_step returns none"):
        tried(*FOREIGN, "model=custom", "model._target_=test_short_run.NoLoss")


def test_callbacks_that_end_or_write_are_left_out_and_others_take_part() -> None:
    found = tried(
        "+callbacks.losses._target_=plain_lightning.Losses",
        "+callbacks.early={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: nothing}",
        "+callbacks.rate._target_=pytorch_lightning.callbacks.LearningRateMonitor",
    )
    assert Losses.seen == pytest.approx(found.losses)


def test_weights_to_begin_with() -> None:
    config = compose(["model=linear"])
    data = data_of(config)
    weights = {"model.layer.weight": torch.zeros(10, 64), "model.layer.bias": torch.zeros(10)}
    found = short_run.run_short(ConfigTask(config, data, weights), unchanged)
    assert found.losses[0] == pytest.approx(math.log(10))


def test_the_rate_of_a_loss_is_that_of_its_step_where_a_batch_has_two() -> None:
    """The curve is run through once, in half as many batches."""
    found = tried(*FOREIGN, "model=custom", "model._target_=test_short_run.Twice", "schedule=linear", "horizon.steps=6")
    assert found.steps == [0, 2, 4] and found.rates == [0.1 * (1 - t / 6) for t in (0, 2, 4)]

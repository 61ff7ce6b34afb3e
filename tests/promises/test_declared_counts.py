"""The counts that a user declares in ``horizon`` are those of the training, or refused by their keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from recorded_rates import Recorded
from short_runs import SHORT

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose, plan

Train = Callable[..., Any]

EPOCH = ["trainer.max_epochs=-1", "trainer.max_steps=7", "schedule=step", "schedule.every=1ep"]
OWN_STEPS = ["model=custom", "model._target_=several_optimizers.GAN", "data=custom",
             "data._target_=several_optimizers.Data", "data.batch_size=8", "optimizer=adam",
             "optimizers={generator: {}, discriminator: {}}"]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*EPOCH, "horizon.steps_per_epoch=3"], "horizon.steps_per_epoch must be 6, or null: the trainer counted it"),
        ([*EPOCH, "trainer.accumulate_grad_batches=4", "horizon.steps_per_epoch=6"],
         "horizon.steps_per_epoch must be 2, or null"),
        ([*OWN_STEPS, "horizon.steps_per_epoch=3"], "horizon.steps_per_epoch must be 6, or null"),
        (["horizon.batch_size=1024", "batch_scaling=linear", "batch_scaling.base_batch_size=256"],
         "horizon.batch_size must be 32, the samples in an optimizer step, or null"),
        (["horizon.batch_size=32", "trainer.accumulate_grad_batches=2"], "horizon.batch_size must be 64, the samples"),
    ],
)  # fmt: skip
def test_another_count_than_that_of_the_training_is_refused(
    words: list[str], said: str, train: Train, recorded: Recorded
) -> None:
    """Else ``1ep`` and the factor of the batch would be those of another training."""
    with pytest.raises(ConfigError) as refused:
        train(*words)
    assert str(refused.value).startswith(said) and not recorded


def test_the_count_of_the_training_is_accepted(train: Train, recorded: Recorded) -> None:
    words = [*EPOCH, "horizon.steps_per_epoch=6", "horizon.batch_size=32"]
    run = train(*words)
    assert [step["default"][0] for step in recorded] == [run.plan.lr(run.plan.groups[0], t) for t in range(7)]


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["trainer.overfit_batches=1", "trainer.accumulate_grad_batches=2"], 2),
        (["trainer.fast_dev_run=true", "trainer.accumulate_grad_batches=2"], 1),
        (["trainer.fast_dev_run=true", "batch.effective=64"], 1),
        (["trainer.fast_dev_run=true", "trainer.val_check_interval=3"], 1),
    ],
)
@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_a_rehearsal_of_fewer_batches_than_are_accumulated(
    words: list[str], steps: int, train: Train, recorded: Recorded
) -> None:
    """The trainer counts one batch then, as it does under ``limit_train_batches=1``; the data has more."""
    more = ["data.batch_size=32", "trainer.max_epochs=2", "logger=none", "model.hidden=[4]"]
    assert plan(compose([*more, *words])).horizon.steps == steps
    train(*more, *words, short=False)
    assert len(recorded) == steps


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["batch.effective=3200"], "batch.effective must be at most 1216, the samples in the batches of an epoch. Rec"),
        (["trainer.overfit_batches=2", "trainer.val_check_interval=3"],
         "trainer.val_check_interval must be at most 2, the batches of an epoch under trainer.overfit_batches, or"),
        (["trainer.overfit_batches=0.001"], "trainer.overfit_batches leaves none of the 38 batches to train on. Rec"),
        (["trainer.limit_train_batches=1", "batch.schedule=[[0,32],[50%,64]]"],
         "batch.schedule[1] must be at most 32, the 1 batch of an epoch under trainer.limit_train_batches. Received"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_key_that_the_user_set(words: list[str], said: str) -> None:
    kept = [word for word in SHORT if "limit_train" not in word]
    with pytest.raises(ConfigError) as refused:
        plan(compose([*kept, *words]))
    assert str(refused.value).startswith(said)

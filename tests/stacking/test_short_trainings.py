"""A stack gives the numbers of separate trainings, and a member does not change another one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lrkit.base.errors import ConfigError
from lrkit.config import compose as configs
from lrkit.data.in_memory import InMemoryData
from lrkit.lightning.imports import seed_everything
from lrkit.lightning.module import groups_of, rates_of
from lrkit.optim.factory import build_optimizer
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.plan import Plan
from lrkit.stacking.short_trainings import ShortTraining, load_data, train_members, with_own_order
from lrkit.training_objects.module import module_of
from lrkit.training_objects.optimizers import optimizer_of

STEPS = 15  # more than one epoch
OPTIMIZERS = (
    "momentum",
    "adamw",
    "sgd trainer.gradient_clip_val=0.5",
    "momentum optimizer.nesterov=true trainer.gradient_clip_val=0.01 trainer.gradient_clip_algorithm=value",
    "momentum optimizer.dampening=0.1 schedule@coschedule.momentum=linear coschedule.momentum.start=0.9",
    "adam optimizer.amsgrad=true",
    "rmsprop",
    "rmsprop optimizer.centered=true optimizer.momentum=0.9",
    "adagrad optimizer.lr_decay=0.01 optimizer.initial_accumulator_value=0.1",
)
TEXT = (
    "data=text data.context=8 data.train_samples=1280 data.val_samples=64 model=char_transformer model.layers=1"
    " model.width=8"
)
MODELS = (
    "model=linear param_groups=no_decay",
    "model=cnn1d model.channels=8",
    "model=cnn2d model.widths=[4,8]",
    f"{TEXT} model.norm=pre param_groups.layer_decay=0.8",
    f"{TEXT} model.norm=post",
)


def composed(*words: str) -> dict[str, Any]:
    return configs.compose(["data.batch_size=128", "trainer.accelerator=cpu", *" ".join(words).split()])


def with_other_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with another value of each kind of key in which members may differ."""
    parts = {"optimizer": {"weight_decay": 0.05, "lr": 0.007}, "data": {"seed": 1}, "schedule": {"end": 0.5}}
    return {**config, "seed": 1, "warmup": {}, **{name: {**config[name], **part} for name, part in parts.items()}}


def plan_of(config: Mapping[str, Any]) -> Plan:
    return configs.plan(config).within(STEPS, config["optimizer"]["lr"])


@cache
def loaded(text: bool) -> InMemoryData:
    return load_data(composed(TEXT if text else ""))


def train_alone(config: Mapping[str, Any], plan: Plan) -> ShortTraining:
    """One training by torch's optimizer and lrkit's scheduler, without Lightning."""
    data = with_own_order(loaded("Text" in config["data"]["_target_"]), config)
    seed_everything(int(config["seed"]), verbose=False)
    module: Any = module_of(config, data)
    groups, steps = groups_of(module, config["param_groups"]), plan.horizon.require("steps", "")
    plan = plan.with_groups(rates_of(groups))
    optimizer = build_optimizer(*optimizer_of(config), [group.options(plan.base(group.lr_scale)) for group in groups])
    scheduler = PlanScheduler(optimizer, plan)
    losses: list[float] = []
    clip, by = config["trainer"].get("gradient_clip_val"), config["trainer"].get("gradient_clip_algorithm")
    loader = data.train_dataloader()
    for epoch in range(99):
        loader.set_epoch(epoch)
        for batch in loader:
            optimizer.zero_grad()
            loss = module.training_step(batch, 0)
            loss.backward()
            if clip and by == "value":
                torch.nn.utils.clip_grad_value_(module.parameters(), clip)
            elif clip:
                torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
            scheduler.write()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == steps:
                return ShortTraining(losses, score=_validate(module, data))
    raise AssertionError


@torch.no_grad()
def _validate(module: Any, data: Any) -> float:
    module.eval()
    sums = [
        (float(F.cross_entropy(module(x).flatten(0, -2), y.flatten())) * len(y), len(y))
        for x, y in data.val_dataloader()
    ]
    return sum(loss for loss, _ in sums) / sum(count for _, count in sums)


@pytest.mark.parametrize(
    "words", [*(f"optimizer={name}" for name in OPTIMIZERS), *(f"{model} optimizer.lr=0.01" for model in MODELS)]
)
def test_members_train_as_separate_trainings(words: str) -> None:
    first = composed(words, "warmup=linear warmup.length=5")
    every = [first, with_other_values(first)]
    plans = [plan_of(config) for config in every]
    stacked = train_members(every, plans, data=loaded("data=text" in words))
    for config, plan, got in zip(every, plans, stacked, strict=True):
        alone = train_alone(config, plan)
        assert got.losses == pytest.approx(alone.losses, rel=1e-5), config["seed"]
        assert got.score == pytest.approx(alone.score, rel=1e-4)
        assert len(got.losses) == STEPS
    assert len({tuple(each.losses) for each in stacked}) == len(every)


def test_a_diverging_member_ends_and_changes_no_other() -> None:
    config = composed("model=mlp optimizer=momentum")
    plans = [plan_of(config).within(30, lr) for lr in (0.05, 1e9, 0.01)]
    stacked = train_members([config] * 3, plans, data=loaded(False))
    assert not math.isfinite(stacked[1].losses[-1]) and len(stacked[1].losses) < 30
    assert stacked[1].score == math.inf and "not finite" in stacked[1].ended
    without = train_members([config] * 2, plans[::2], data=loaded(False))
    for got, expected in zip(stacked[::2], without, strict=True):
        assert got.losses == pytest.approx(expected.losses, rel=1e-6) and len(got.losses) == 30
        assert got.score == pytest.approx(expected.score, rel=1e-6) and not got.ended


def test_members_end_at_their_own_steps_or_by_a_reason() -> None:
    config = composed()
    plan = plan_of(config)
    watch = lambda i, losses: "enough" if i == 2 and len(losses) == 4 else ""  # noqa: E731
    every = {"steps": [12, 5, 12], "watch": watch, "validate": "step", "data": loaded(False)}
    long, short, watched = train_members([config] * 3, [plan] * 3, **every)
    assert [len(each.losses) for each in (long, short, watched)] == [12, 5, 4]
    assert [each.ended for each in (long, short, watched)] == ["", "", "enough"]
    assert [v.step for v in long.validations] == [*range(1, 13)]
    assert short.losses == pytest.approx(long.losses[:5], rel=1e-6)
    assert short.score == short.validations[-1].metrics["val/loss"]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("model.dropout=0.1", "model.dropout"),
        ("optimizer=nadam", "optimizer"),
        ("+optimizer.maximize=true", "optimizer.maximize"),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches"),
        ("trainer.precision=bf16-mixed", "trainer.precision"),
        ("trainer.devices=2", "trainer.devices"),
        ("guard=reduce", "guard"),
        ("callbacks=ema", "callbacks"),
        ("batch.effective=64", "batch.effective"),
        ("plateau=reduce", "plateau"),
    ],
)
def test_what_does_not_fit_a_stack_is_refused_by_its_key(words: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key} ") as refused:
        train_members([composed(words)], [plan_of(composed("optimizer.lr=0.1"))])
    assert "stack" in str(refused.value)


def test_members_that_differ_in_another_key_are_refused() -> None:
    both = composed("model.hidden=[8]"), composed("model.hidden=[9]")
    with pytest.raises(ConfigError, match=r"^model must be the same for all members"):
        train_members(both, [plan_of(each) for each in both])

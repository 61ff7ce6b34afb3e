"""The plan: a product of named factors, printed in sentences and in JSON before the run."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose
from lrkit.config.compose import plan as planned
from lrkit.planning.batch_scaling import BatchScale, batch_scale
from lrkit.planning.plan import GroupRate, Plan
from lrkit.planning.plateau import Plateau
from lrkit.planning.resolve import resolve_plan
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import (
    Constant,
    Cosine,
    Cyclic,
    Linear,
    Multistep,
    OneCycle,
    Piecewise,
    Schedule,
    Sqrt,
    Step,
)
from lrkit.schedules.shapes import Plateau as HeldUntilPlateau

SGD, ADAMW, FREE = "torch.optim.SGD", "torch.optim.AdamW", "schedulefree.AdamWScheduleFree"
GROUPS = (GroupRate("body"), GroupRate("head", 10.0), GroupRate("frozen", 0.0, weight_decay=0.0))
UP, DOWN = Linear(start=0.1, length=10), Sqrt(length=20)


def plan_of(schedule: Schedule | None = None, run: int | None = 100, **parts: Any) -> Plan:
    return resolve_plan(**{"lr": 0.1, "schedule": schedule or Cosine(), "horizon": Horizon(run), **parts})


# One product.


@settings(deadline=None)
@given(
    st.floats(1e-8, 10.0), st.integers(1, 4096), st.floats(0.0, 100.0), st.integers(0, 200), st.floats(0.0, 2.0),
)  # fmt: skip
def test_the_rate_is_the_product_of_its_factors(lr: float, batch: int, scale: float, t: int, gain: float) -> None:
    group, rule = GroupRate("a", scale), batch_scale("sqrt", 256, batch)
    plan = plan_of(lr=lr, scale=rule, groups=[group], warmup=UP)
    assert plan.lr(group, t, gain) == lr * rule.factor * scale * plan.curve(t) * gain
    assert plan.lr(group, t) == plan.base(scale) * plan.curve(t)


def test_a_factor_of_one_changes_no_bit() -> None:
    plain = plan_of(lr=0.3)
    same = plan_of(lr=0.3, scale=BatchScale("linear", 1.0, 64, 64), groups=[GroupRate("a", 1.0)])
    assert [same.lr(same.groups[0], t, 1.0) for t in range(110)] == [0.3 * plain.curve(t) for t in range(110)]


def test_groups_keep_their_ratio() -> None:
    plan = plan_of(groups=GROUPS, warmup=UP)
    body, head, frozen = GROUPS
    for t in range(110):
        assert plan.lr(head, t) == pytest.approx(10 * plan.lr(body, t), rel=1e-15)
        assert plan.lr(frozen, t) == 0.0


def test_the_rate_is_proportional_to_the_base() -> None:
    one, four = plan_of(lr=0.25), plan_of(lr=1)
    assert [4 * one.lr(one.groups[0], t) for t in range(100)] == [four.lr(four.groups[0], t) for t in range(100)]
    assert isinstance(four.base_lr, float)


def test_groups_of_the_model_replace_those_of_the_config() -> None:
    plan = plan_of()
    assert plan.with_groups(list(GROUPS)).groups == GROUPS
    assert dataclasses.replace(plan.with_groups(GROUPS), groups=plan.groups) == plan


@pytest.mark.parametrize(("warmup", "steps"), [(None, 0), (UP, 10), (Linear(length=0), 0), (Linear(length="5%"), 5)])
def test_warmup_steps(warmup: Schedule | None, steps: int) -> None:
    assert plan_of(warmup=warmup).warmup_steps == steps


# Sentences.

RATE_LINES = [
    # lr      scale                                  the sentence
    (0.1,     BatchScale(),                          "lr 0.1"),
    (3e-4,    BatchScale(),                          "lr 0.0003"),
    (1,       BatchScale(),                          "lr 1"),
    (0.1,     batch_scale("linear", 256, 1024),      "lr 0.4 = 0.1 x 4 (linear: batch 1024 / base 256)"),
    (1e-3,    batch_scale("sqrt", 256, 512),         "lr 0.00141421 = 0.001 x 1.41421 (sqrt: batch 512 / base 256)"),
    (0.1,     batch_scale("linear", 256, 256),       "lr 0.1 = 0.1 x 1 (linear: batch 256 / base 256)"),
]  # fmt: skip


@pytest.mark.parametrize(("lr", "scale", "sentence"), RATE_LINES)
def test_the_rate_line(lr: float, scale: BatchScale, sentence: str) -> None:
    assert plan_of(lr=lr, scale=scale).rate_line() == sentence


LINEAR = batch_scale("linear", 256, 1024)
ONE_CYCLE = OneCycle(up=9, momentum_start=0.9, momentum_peak=0.8)
WARNED = [
    # what is planned                                                     the sentences
    ({},                                                                  []),
    ({"optimizer": SGD, "schedule": Constant(), "warmup": UP, "cooldown": DOWN}, []),
    ({"warmup": Linear(start=0.0, length=5)},                             ["step 0 is a no-op: its learning rate"]),
    ({"schedule": Linear(start=0.0, end=1.0)},                            ["step 0 is a no-op: its learning rate"]),
    ({"optimizer": FREE, "schedule": Constant(), "warmup": UP},           []),
    ({"optimizer": FREE, "schedule": Cosine()},                           ["AdamWScheduleFree replaces a decaying"]),
    ({"optimizer": FREE, "schedule": Constant(), "cooldown": DOWN},       ["AdamWScheduleFree replaces a decaying"]),
    ({"optimizer": SGD, "scale": LINEAR},                                 []),
    ({"optimizer": ADAMW, "scale": LINEAR},                               ["linear batch-size scaling is a rule for"]),
    ({"optimizer": ADAMW, "scale": batch_scale("sqrt", 1, 4)},            []),
    ({"schedule": Step(every=99)},                                        []),
    ({"schedule": Step(every="99%"), "warmup": UP},                       ["the rate never drops: schedule.every (99"]),
    ({"schedule": Multistep(milestones=["50%", "95%"])},                  []),
    ({"schedule": Multistep(milestones=["50%", "95%"]), "warmup": UP},    ["milestone 95% is never reached"]),
    ({"schedule": Cosine(end=0.1), "cooldown": DOWN},                     []),
    ({"cooldown": DOWN},                                                  ["the cooldown does nothing: the rate is 0"]),
    ({"schedule": ONE_CYCLE, "momentum": 0.9},                            []),
    ({"schedule": ONE_CYCLE, "optimizer": SGD},                           ["momentum is not cycled: SGD runs without"]),
    ({"optimizer": "pytorch_optimizer.Prodigy", "lr": 1},                 []),
    ({"optimizer": "pytorch_optimizer.Prodigy", "lr": 0.5},               ["Prodigy finds the learning rate itself"]),
    ({"warnings": ["a note"], "schedule": Linear(start=0.0, end=1.0)},    ["a note", "step 0 is a no-op"]),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "sentences"), WARNED)
def test_what_is_legal_but_hardly_meant(parts: dict[str, Any], sentences: list[str]) -> None:
    warnings = plan_of(**parts).warnings
    assert len(warnings) == len(sentences), warnings
    for warning, sentence in zip(warnings, sentences, strict=True):
        assert warning.startswith(sentence)
        assert "\n" not in warning


LRS = [
    # lr              allow_extreme   the sentence; None where it is accepted
    (0.1,             False,          None),
    (1,               False,          None),
    (1e-8,            False,          None),
    (10.0,            False,          None),
    (30.0,            True,           None),
    (1e-12,           True,           None),
    (30.0,            False,          "optimizer.lr must be in [1e-08, 10]; to allow it: allow_extreme_lr=true."
                                      " Received: 30.0"),
    (1e-12,           False,          "optimizer.lr must be in [1e-08, 10]; to allow it: allow_extreme_lr=true."
                                      " Received: 1e-12"),
    (0,               True,           "optimizer.lr must be > 0: with 0 nothing would train. Received: 0"),
    (-0.1,            True,           "optimizer.lr must be a finite number > 0. Received: -0.1"),
    (float("nan"),    True,           "optimizer.lr must be a finite number > 0. Received: nan"),
    (float("inf"),    True,           "optimizer.lr must be a finite number > 0. Received: inf"),
    (None,            False,          "optimizer.lr must be set to a positive number. Received: None"),
    (True,            False,          "optimizer.lr must be a number. Received: True"),
    ("fast",          False,          "optimizer.lr must be a number. Received: 'fast'"),
    ("0.1",           False,          "optimizer.lr must be a number; drop the quotes. Received: '0.1'"),
    ([0.1, 0.2],      False,          "optimizer.lr takes one number, not a list; to sweep: -m optimizer.lr=0.1,0.2."
                                      " Received: [0.1, 0.2]"),
    ({"a": 1},        False,          "optimizer.lr must be a number. Received: {'a': 1}"),
]  # fmt: skip


@pytest.mark.parametrize(("lr", "allow_extreme", "sentence"), LRS)
def test_the_base_rate(lr: Any, allow_extreme: bool, sentence: str | None) -> None:
    if sentence is None:
        assert plan_of(lr=lr, allow_extreme_lr=allow_extreme).base_lr == lr
        return
    with pytest.raises(ConfigError) as caught:
        plan_of(lr=lr, allow_extreme_lr=allow_extreme)
    assert str(caught.value) == sentence


REFUSED = [
    # what is planned                                                the sentence
    ({"schedule": HeldUntilPlateau()},                               "plateau must be set with schedule=plateau: use"),
    ({"coschedule": {"lr": Linear()}},                               "coschedule.lr is not a key. Accepted: momentum"),
    ({"coschedule": {"momentum": Linear()}},                         "coschedule.momentum needs an optimizer with mom"),
    ({"coschedule": {"weight_decay": Linear()}},                     "coschedule.weight_decay needs weight decay: opt"),
    ({"coschedule": {"momentum": Linear(end=1.2)}, "momentum": 0.9}, "coschedule.momentum must keep momentum below 1;"),
    ({"coschedule": {"momentum": Linear(length=200)}, "momentum": 0.9}, "coschedule.momentum.length must be at most t"),
    ({"coschedule": {"momentum": ONE_CYCLE}, "momentum": 0.9},       "coschedule.momentum.momentum_start has no effec"),
    ({"coschedule": {"momentum": Linear()}, "momentum": 0.9, "schedule": ONE_CYCLE},
                                                                     "coschedule.momentum and schedule.momentum_star"),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "sentence"), REFUSED)
def test_what_cannot_be_meant(parts: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(**parts)
    assert str(caught.value).startswith(sentence)


def test_a_plateau_needs_its_rule_and_then_is_a_constant() -> None:
    plan = plan_of(HeldUntilPlateau(), plateau=Plateau())
    assert plan.curve.values() == [1.0] * 100
    assert plan.plateau == Plateau()


# Momentum.


@pytest.mark.parametrize("three_phase", [False, True])
def test_momentum_is_lowest_where_the_rate_is_highest(three_phase: bool) -> None:
    cycle = OneCycle(up=25, three_phase=three_phase, momentum_start=0.95, momentum_peak=0.85)
    plan = plan_of(cycle, momentum=0.9, warmup=UP, cooldown=Linear(length=20))
    assert plan.momentum is not None
    values = [plan.momentum(t) for t in range(120)]
    assert values[:11] == [0.95] * 11  # held while the rate warms up
    assert values[80:] == [0.95] * 40  # and while it cools down, and for ever
    assert min(values) == values[10 + 25] == 0.85
    assert [plan.curve(10 + 25), max(plan.curve.values())] == [1.0, 1.0]


def test_momentum_is_left_alone_unless_asked_for() -> None:
    assert plan_of(OneCycle(up=25), momentum=0.9).momentum is None
    assert plan_of(Cosine(), momentum=0.9).momentum is None
    assert plan_of(Cosine(), momentum=0.9).hyper(0) == {}


def test_what_is_driven_beside_the_rate() -> None:
    plan = plan_of(
        groups=GROUPS, momentum=0.8, weight_decay=0.1, warmup=UP,
        coschedule={"momentum": Linear(end=0.5), "weight_decay": Constant(start=2.0)},
    )  # fmt: skip
    assert plan.hyper(50) == pytest.approx({
        "momentum/body": 0.6, "momentum/head": 0.6, "momentum/frozen": 0.6,
        "weight_decay/body": 0.2, "weight_decay/head": 0.2, "weight_decay/frozen": 0.0,
    })  # fmt: skip
    assert [plan.weight_decay(group, 0) for group in GROUPS] == [0.2, 0.2, 0.0]
    assert [plan_of(weight_decay=0.1).weight_decay(group, 0) for group in GROUPS] == [0.1, 0.1, 0.0]


# JSON.


def walk(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in walk(inner)]
    return [leaf for inner in value for leaf in walk(inner)] if isinstance(value, list) else [value]


def test_the_json_says_everything() -> None:
    plan = plan_of(
        Linear(end=0.5), optimizer=ADAMW, warmup=UP, cooldown=DOWN, groups=GROUPS, plateau=Plateau(),
        scale=batch_scale("sqrt", 64, 256), horizon=Horizon(100, 10, 256, {"steps": "10 epochs x 10"}),
        warnings=["a note"], config={"seed": 0},
    )  # fmt: skip
    said = plan.to_json()
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert said["optimizer"] == ADAMW
    assert said["base_lr"] == 0.1
    assert said["batch_scale"] == {"rule": "sqrt", "factor": 2.0, "batch": 256, "base": 64}
    assert said["horizon"] == {
        "steps": 100, "steps_per_epoch": 10, "batch_size": 256, "sources": {"steps": "10 epochs x 10"},
        "tokens_per_sample": None, "stop_after": None,
    }  # fmt: skip
    assert said["groups"][1:] == [
        {"name": "head", "lr_scale": 10.0, "weight_decay": None},
        {"name": "frozen", "lr_scale": 0.0, "weight_decay": 0.0},
    ]
    laid = [(phase["name"], phase["first_step"], phase["steps"]) for phase in said["phases"]]
    assert laid == [("warmup", 0, 10), ("schedule", 10, 70), ("cooldown", 80, 20)]
    warmup, schedule, _ = said["phases"]
    assert schedule["schedule"] == {"name": "Linear", "start": 1.0, "end": 0.5, "length": None}
    assert warmup["lr"]["head"] == pytest.approx({"first": 0.2, "peak": 0.2 + 9 * 0.18, "last": 0.2 + 9 * 0.18})
    assert schedule["lr"]["body"] == pytest.approx({"first": 0.2, "peak": 0.2, "last": 0.2 - 0.1 * 69 / 70})
    assert (said["plateau"]["monitor"], said["plateau"]["patience"]) == ("val/loss", 5)
    assert said["warnings"] == ["a note"]
    assert said["config"] == {"seed": 0}


@pytest.mark.parametrize(
    "plan",
    [
        plan_of(Step(every="30%"), groups=GROUPS, warmup=Linear(length="5%")),
        plan_of(Multistep(milestones=["50%"])),
        plan_of(Cyclic(), scale=LINEAR),
        plan_of(Piecewise(phases=[Constant(length="50%"), Piecewise(phases=[Linear()])])),
        plan_of(OneCycle(momentum_start=0.95, momentum_peak=0.85), momentum=0.9),
        plan_of(Constant(), run=None, plateau=Plateau(), warmup=UP),
        plan_of(momentum=0.9, weight_decay=0.1, coschedule={"momentum": Linear(end=0.5), "weight_decay": Cosine()}),
    ],
    ids=lambda plan: type(plan.curve.phases[-1].schedule).__name__,
)
def test_any_plan_is_json_of_plain_resolved_values(plan: Plan) -> None:
    said = plan.to_json()
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    words = [leaf for phase in said["phases"] for leaf in walk(phase["schedule"]) if isinstance(leaf, str)]
    assert not [word for word in words if word[0].isdigit()]  # the resolved values, not the written ones
    again = Plan.from_json(json.loads(json.dumps(said)))
    assert again == plan
    assert again.to_json() == said
    for t in range(120):
        assert [again.lr(group, t) for group in again.groups] == [plan.lr(group, t) for group in plan.groups]
        assert again.hyper(t) == plan.hyper(t)
    for phase, said_phase, first in zip(plan.curve.phases, said["phases"], plan.curve.starts, strict=True):
        for group in plan.groups:
            last = None if phase.length is None else plan.lr(group, first + phase.length - 1)
            rates = said_phase["lr"][group.name]
            assert rates["last"] == last
            assert rates["first"] == plan.lr(group, first) <= rates["peak"]


def test_the_plan_of_the_shipped_config_is_json() -> None:
    said = planned(compose(["schedule=one_cycle", "plateau=reduce"])).to_json()
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert said["config"]["schedule"]["_target_"] == "lrkit.schedules.OneCycle"
    assert [phase["steps"] for phase in said["momentum"]] == [said["horizon"]["steps"]]


def test_a_plan_is_frozen_and_compares_by_what_it_does() -> None:
    plan = plan_of(config={"seed": 0})
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.base_lr = 1.0  # type: ignore[misc]
    assert plan == plan_of(config={"seed": 1})
    assert plan != plan_of(lr=0.2)
    assert plan != plan_of(warmup=UP)

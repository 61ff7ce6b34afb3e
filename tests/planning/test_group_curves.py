"""A rule of ``param_groups`` with a schedule, a warmup, a cooldown or a delay: its groups follow their own curve."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest

import lrkit
from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose
from lrkit.config.compose import plan as planned
from lrkit.planning import plan_schema, render
from lrkit.planning.plan import GroupRate, Plan
from lrkit.schedules.shapes import Cosine, Linear

TEN = {"lr": 1.0, "steps": 10, "optimizer": "sgd"}


def with_rule(rule: dict[str, Any], **parts: Any) -> Plan:
    """The plan of a run of ten steps, whose group ``head`` has a rule."""
    return lrkit.plan(
        **{**TEN, "schedule": "constant", "param_groups": [{"name": "head", "pattern": "h", **rule}], **parts}
    )


def rates(plan: Plan, name: str, steps: int = 10) -> list[float]:
    group = next(group for group in plan.groups if group.name == name)
    return [round(plan.lr(group, t), 9) for t in range(steps)]


UP = {"warmup": {"name": "linear", "start": 0.0, "length": 2}}
DOWN = {"cooldown": {"name": "linear", "length": 2}}
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any], list[float]]] = {
    # the rule                                        the run          the multipliers of its group
    "a schedule": ({"schedule": "linear"}, {}, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
    "with options": ({"schedule": {"name": "linear", "start": 0.9, "end": 0.4}}, {}, [0.9, 0.85, 0.8, 0.75, 0.7, 0.65]),
    "a node": ({"schedule": {"_target_": "lrkit.schedules.Step", "every": 5}}, {}, [1] * 5 + [0.1] * 5),
    "an object": ({"schedule": Linear(end=1.0, start=0.0)}, {}, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
    "a delay": ({"delay": 4}, {}, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]),
    "a share of the run": ({"delay": "40%"}, {}, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]),
    "the run's curve in what is left": ({"delay": 5}, {"schedule": "linear"}, [0] * 5 + [1, 0.8, 0.6, 0.4, 0.2]),
    "the run's warmup after the delay": ({"delay": 2}, UP, [0, 0, 0, 0.5, 1, 1, 1, 1, 1, 1]),
    "a warmup": (UP, {}, [0, 0.5, 1, 1, 1, 1, 1, 1, 1, 1]),
    "no warmup": ({"warmup": "none"}, UP, [1] * 10),
    "the run's cooldown": ({"delay": 2}, DOWN, [0, 0, 1, 1, 1, 1, 1, 1, 1, 0.5]),
    "a cooldown": (DOWN, {}, [1, 1, 1, 1, 1, 1, 1, 1, 1, 0.5]),
    "no cooldown": ({"cooldown": "none"}, DOWN, [1] * 10),
    "a factor": ({"lr_scale": 10, "schedule": "linear", "delay": 8}, {}, [0] * 8 + [10, 5]),
    "lengths count from its beginning": (
        {"schedule": {"name": "step", "every": 3}, "delay": 4}, {}, [0] * 4 + [1] * 3 + [0.1] * 3
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_the_groups_of_a_rule_follow_its_curve_and_the_others_the_runs(row: str) -> None:
    rule, run, multipliers = ROWS[row]
    plan, plain = with_rule(rule, **run), lrkit.plan(**{**TEN, "schedule": "constant", **run})
    assert rates(plan, "head", len(multipliers)) == pytest.approx(multipliers, abs=1e-9)
    assert rates(plan, "default") == rates(plain, "default")
    assert (
        plan.lr(plan.groups[0], 99)
        == plan.base(plan.groups[0].lr_scale) * plan.curve_of(plan.groups[0]).phases[-1].final
    )


def test_a_delay_of_nothing_is_no_curve() -> None:
    assert not with_rule({"delay": 0}).group_curves and not with_rule({"delay": None, "schedule": None}).group_curves


def test_one_curve_for_all_groups_of_a_rule() -> None:
    node = {"rules": [{"name": "head", "pattern": "h", "delay": 3}], "no_decay": True, "layer_decay": 0.5}
    plan = lrkit.plan(**TEN, param_groups=node)
    model = [
        GroupRate("head_layer_0", 0.5),
        GroupRate("head_layer_1_no_decay"),
        GroupRate("layer_1"),
        GroupRate("ahead"),
    ]
    for groups in (plan.groups, plan.with_groups(model).groups):
        own = [group.name for group in groups if plan.with_groups(groups).curve_of(group) is not plan.curve]
        assert own and own == [group.name for group in groups if group.name.startswith("head")]


def test_it_comes_back_from_json_and_copies_to_the_bit() -> None:
    plan = with_rule({**UP, "schedule": "one_cycle", "delay": "10%"}, schedule="cosine", **DOWN)
    plain = json.loads(json.dumps(plan.to_json()))
    for same in (Plan.from_json(plain), copy.deepcopy(plan)):
        assert same == plan and rates(same, "head") == rates(plan, "head")
        assert [same.hyper(t) for t in range(10)] == [plan.hyper(t) for t in range(10)]
    assert plain["phases"][0]["lr"].keys() == {"default"}
    assert plain["group_curves"]["head"]["phases"][0]["lr"] == {"head": {"first": 0.0, "peak": 0.0, "last": 0.0}}


def by_command(rules: str) -> Any:
    """A plan of the command in JSON, as a checkpoint has it."""
    return json.loads(json.dumps(planned(compose([f"param_groups.rules={rules}", "horizon.steps=10"])).to_json()))


def test_a_plan_from_before_loads() -> None:
    plain = by_command("[]")
    assert plain.pop("group_curves") == {}
    assert plan_schema.checked(plain) == planned(compose(["horizon.steps=10"]))


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"head": {"phases": []}}, r"plan\.group_curves\.head"),
        ({"head": {"phases": [{"name": "x"}], "momentum": None}}, r"plan\.group_curves\.head\.phases"),
    ],
)
def test_a_plan_that_no_run_could_follow_is_refused(wrong: Any, key: str) -> None:
    plain = by_command("[{name: head, pattern: h, delay: 2}]")
    assert plan_schema.checked(plain).group_curves.keys() == {"head"}
    with pytest.raises(ConfigError, match=f"^{key}"):
        plan_schema.checked(plain | {"group_curves": wrong})


def test_a_short_run_squeezes_every_curve() -> None:
    plan = lrkit.plan(lr=1.0, steps=100, schedule="constant", param_groups=[{"name": "h", "pattern": "h", "delay": 40}])
    assert rates(plan.within(10, 1.0), "h") == [0] * 4 + [1] * 6


def test_the_page_has_a_row_for_each_curve_and_rate() -> None:
    rules = [{"name": "head", "pattern": "h", "lr_scale": 10, "schedule": "linear", "delay": 4}]
    text = str(lrkit.plan(**TEN, schedule="constant", param_groups={"rules": rules, "no_decay": True}))
    assert "curve[group, t] (schedule; head: delay then schedule)" in text
    table = [" ".join(line.split()) for line in text.splitlines()]
    rows = table[table.index("phase shape steps group first peak last") + 1 :][:3]
    assert rows == [
        "schedule constant 0-9 default, no_decay 1 1 1",
        "delay constant 0-3 head, head_no_decay 0 0 0",
        "schedule linear 4-9 head, head_no_decay 10 10 1.667",
    ]
    assert "note: head: is not trained until step 4" in text


def test_layers_with_and_without_weight_decay_share_a_row() -> None:
    """Eight rows a phase for two layers were too many."""
    plan = lrkit.plan(**TEN, param_groups={"layer_decay": 0.5})
    names = [(f"layer_{i}", 0.5 ** (3 - i)) for i in range(4)]
    groups = [GroupRate(f"{name}{end}", scale) for name, scale in names for end in ("", "_no_decay")]
    text = str(plan.with_groups(groups))
    assert (
        text.count("no_decay") >= 4
        and len([line for line in text.splitlines() if "layer_" in line and "lr[" not in line]) == 4
    )


def test_every_output_has_the_groups_own_rates() -> None:
    plan = with_rule({"schedule": "linear", "delay": 4}, schedule="cosine")
    header, *rows = render.render_csv(plan).splitlines()
    assert header == "step,lr/head,lr/default"
    for t, row in enumerate(rows):
        assert row == ",".join([str(t), *(repr(plan.lr(group, t)) for group in plan.groups)])
    assert plan.chart().lines["head"] == ([*range(10)], [plan.lr(plan.groups[0], t) for t in range(10)])


CYCLE = {"name": "one_cycle", "up": 4, "momentum_start": 0.95, "momentum_peak": 0.85}


def test_momentum_belongs_to_the_schedule_that_cycles_it() -> None:
    momentum = {"options": {"momentum": 0.9, "nesterov": False}}
    ours = with_rule({"schedule": CYCLE}, **momentum)
    assert [ours.hyper(t) for t in (0, 4)] == [{"momentum/head": 0.95}, {"momentum/head": 0.85}]
    theirs = with_rule({"schedule": "cosine"}, schedule=CYCLE, **momentum)
    assert theirs.hyper(4) == {"momentum/head": 0.9, "momentum/default": 0.85}
    later = with_rule({"delay": 2}, schedule=CYCLE, **momentum)
    assert [later.hyper(t)["momentum/head"] for t in (0, 2, 6)] == [0.95, 0.95, 0.85]
    driven = with_rule({"delay": 2}, coschedule={"momentum": "linear"}, **momentum)
    assert driven.hyper(5) == {"momentum/head": 0.45, "momentum/default": 0.45}


def test_a_track_has_rules_of_its_own() -> None:
    node = [{"name": "head", "pattern": "h", "delay": 2}]
    plan = lrkit.plan(**TEN, schedule="constant", optimizers={"a": {"param_groups": node}, "b": {}})
    assert rates(plan.tracks["a"], "head") == [0, 0, *[1] * 8] and not plan.tracks["b"].group_curves
    assert json.loads(json.dumps(plan.to_json()))["tracks"]["a"]["group_curves"].keys() == {"head"}


def test_warnings_name_the_rule_and_are_not_repeated() -> None:
    plan = with_rule({"schedule": {"name": "linear", "start": 0, "end": 7}, "delay": 3})
    assert [note.partition(":")[0] for note in plan.warnings] == ["head"] * 3
    assert "step 3 is a no-op" in plan.warnings[1] and "rises to 6 times" in plan.warnings[2]
    both = with_rule({"delay": 3}, schedule={"name": "linear", "start": 0, "end": 7})
    assert [note.partition(":")[0] for note in both.warnings if "step" in note] == ["step 0 is a no-op", "head", "head"]


def test_a_delay_longer_than_what_the_run_takes_of_its_steps_is_told() -> None:
    rule = "param_groups.rules=[{name: head, pattern: h, delay: 50}]"
    plan = planned(compose([rule, "horizon.steps=100", "horizon.stop_after=40"]))
    assert any(
        "head: is never trained: its delay ends at step 50, and the run stops after 40" in n for n in plan.warnings
    )


REFUSED = [
    ({"schedule": "cosin"}, {}, "schedule.name has no option 'cosin'. Did you mean 'cosine'?"),
    ({"schedule": {"name": "step", "gamma": 0}}, {}, "schedule.gamma must be > 0. Received: 0"),
    ({"schedule": {"name": "step", "gama": 1}}, {}, "schedule.gama is not a key."),
    ({"schedule": {"step": {"every": 3}}}, {}, "schedule must be the name of a schedule, or a group of keys with it"),
    ({"schedule": 3}, {}, "schedule must be the name of a schedule"),
    ({"schedule": {}}, {}, "schedule must not be empty"),
    ({"schedule": {"_target_": "torch.nn.Linear"}}, {}, "schedule"),
    ({"schedule": "plateau"}, {}, "schedule=plateau must not be set for one rule: reduce-on-plateau acts on every"),
    ({"schedule": {"name": "linear", "length": 11}}, {}, "schedule.length must be at most the 10 steps that are left"),
    ({"schedule": {"name": "linear", "length": 9}, "delay": 2}, {}, "schedule.length must be at most the 8 steps"),
    ({"delay": 10}, {}, "delay leaves no step for the schedule: delay 10 of 10 optimizer steps"),
    ({"delay": "100%"}, {}, "delay leaves no step for the schedule"),
    ({"delay": 8}, UP, "delay leaves no step for the schedule: delay 8 + warmup 2 of 10 optimizer steps"),
    ({"delay": -1}, {}, "delay must not be negative"),
    ({"delay": "soon"}, {}, "delay must be a length"),
    ({"delay": "2ep"}, {}, "delay needs the number of optimizer steps in an epoch"),
    ({"warmup": {"name": "linear", "length": 10}}, {}, "warmup.length must leave steps for the schedule"),
    ({"warmup": {"name": "linear", "end": 0.5}}, {}, "warmup.end must not be set: a warmup ends at"),
    ({"schedule": CYCLE}, {"coschedule": {"momentum": "linear"}, "options": {"momentum": 0.9}},
     "schedule.momentum_start and coschedule.momentum both drive momentum"),
    ({"schedule": "linear"}, {"optimizer": "prodigy"}, "schedule must not be set: Prodigy has one rate for all groups"),
    ({"delay": 2}, {"optimizer": "prodigy"}, "delay must not be set: Prodigy has one rate for all groups"),
    ({"schedule": "linear"}, {"optimizer": "schedule_free_adamw"}, "schedule must not be set: AdamWScheduleFree repl"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "run", "message"), REFUSED, ids=[row[2][:40] for row in REFUSED])
def test_what_a_rule_cannot_say_is_refused_by_its_key(rule: Any, run: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_rule(rule, **run)
    assert str(caught.value).startswith(f"param_groups.rules[0].{message}")


@pytest.mark.parametrize(
    "shown", ["schedule: linear", "schedule: {name: linear, end: 0.0}", "schedule: {_target_: lrkit.schedules.Linear}"]
)
def test_the_command_says_the_same(shown: str) -> None:
    rule = f"param_groups.rules=[{{name: head, pattern: '^net.1', lr_scale: 10, {shown}, delay: 10%}}]"
    plan = planned(compose([rule, "horizon.steps=100", "warmup=linear", "optimizer.lr=0.1"]))
    node = [{"name": "head", "pattern": "^net.1", "lr_scale": 10, "schedule": Linear(), "delay": "10%"}]
    same = lrkit.plan(lr=0.1, steps=100, schedule=Cosine(), warmup="linear", optimizer="momentum", param_groups=node)
    assert rates(plan, "head", 100) == rates(same, "head", 100)
    assert dataclasses.replace(plan, warnings=()).group_curves == same.group_curves

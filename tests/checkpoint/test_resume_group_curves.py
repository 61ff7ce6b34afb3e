"""A resumed run continues the curve of each group: as it was, or stretched, reduced or replaced by the policy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import full_and_resumed, ignored
from recorded_rates import Recorded

from lrkit.base.errors import ConfigError
from lrkit.checkpoint.resume_policies import Resumption
from lrkit.checkpoint.saved_run import SavedRun
from lrkit.config.compose import compose
from lrkit.config.compose import plan as planned
from lrkit.planning.plan import GroupRate, Plan
from lrkit.schedules.shapes import Linear

AT = 30
MODEL = [GroupRate("head"), GroupRate("head_no_decay"), GroupRate("default")]


def plan_of(rule: str, *overrides: str) -> Plan:
    """The plan of a run of 100 steps at a base rate of 1, before there is a model."""
    said = [f"param_groups.rules=[{{name: head, pattern: h, {rule}}}]"] if rule else []
    length = [] if any("horizon.steps" in each for each in overrides) else ["horizon.steps=100"]
    return planned(compose(["optimizer.lr=1", *length, *said, *overrides]))


def saved_with(plan: Plan, at: int = AT) -> SavedRun:
    """What a checkpoint of that run at step ``at`` says of its plan."""
    plain = json.loads(json.dumps(plan.with_groups(MODEL).to_json(), default=str))
    return SavedRun(Path("last.ckpt"), plain, at, {"global_step": at, "lrkit": {"monitor": None}})


def go_on(old: Plan, new: Plan, policy: str | None, at: int = AT, length: Any = 20) -> Plan:
    resumption = Resumption(saved_with(old, at), policy, Linear(length=length) if policy == "cooldown" else None)
    plan = resumption.plan(new).with_groups(MODEL)
    resumption.check(plan)
    return plan


def rates(plan: Plan, group: int, *steps: int) -> list[float]:
    return [round(plan.lr(plan.with_groups(MODEL).groups[group], step), 9) for step in steps]


def at_all(plan: Plan, group: int, last: int = 100) -> list[float]:
    return rates(plan.with_groups(MODEL), group, *range(last))


RULES = ["schedule: linear", "delay: 10", "delay: 60", "warmup: {name: linear, length: 20}, schedule: one_cycle"]


@pytest.mark.parametrize("policy", [None, "restore"])
@pytest.mark.parametrize("rule", RULES)
def test_the_same_plan_goes_on(rule: str, policy: str | None) -> None:
    old = plan_of(rule)
    new = old if policy is None else plan_of("schedule: constant")
    for group in range(3):
        assert at_all(go_on(old, new, policy), group) == at_all(old, group)


def test_another_schedule_of_a_rule_is_a_difference_that_names_the_rule() -> None:
    with pytest.raises(ConfigError, match=r"^resume\.policy must be set.* in group curves: head: ") as caught:
        go_on(plan_of("schedule: linear"), plan_of("schedule: cosine"), None)
    assert "Linear" in caught.value.details and "Cosine" in caught.value.details
    with pytest.raises(ConfigError, match="group curves: head"):
        go_on(plan_of(""), plan_of("delay: 10"), None)


def test_matrices_that_go_from_muon_to_adamw_are_a_difference() -> None:
    with pytest.raises(ConfigError, match=r"^resume\.policy must be set.* in groups by AdamW"):
        go_on(plan_of("lr_scale: 1", "optimizer=muon"), plan_of("lr_scale: 1, adamw: true", "optimizer=muon"), None)


def test_a_checkpoint_from_before_goes_on() -> None:
    plan = plan_of("")
    saved = saved_with(plan)
    before = {key: value for key, value in saved.plan.items() if key != "group_curves"}
    assert Resumption(dataclasses.replace(saved, plan=before)).plan(plan) == plan


def test_override_takes_the_new_curve_at_the_same_step() -> None:
    new = plan_of("schedule: linear, delay: 20")
    assert at_all(go_on(plan_of("schedule: step"), new, "override"), 0) == at_all(new, 0)


def test_extend_stretches_each_curve() -> None:
    old, new = (plan_of("schedule: linear, delay: 10", f"horizon.steps={n}", "schedule=constant") for n in (100, 170))
    plan = go_on(old, new, "extend")
    head = [rates(plan, 0, t)[0] for t in range(170)]
    assert head[:31] == at_all(old, 0)[:31]  # 1 - 20/90 at step 30, and 70 steps to the end become 140
    assert head[31:] == pytest.approx([(1 - 20 / 90) * (1 - (t - 30) / 140) for t in range(31, 170)], abs=1e-9)
    assert plan.curve(169) == 1.0 and plan.lr(plan.groups[1], 50) == plan.lr(plan.groups[0], 50)


def test_extend_within_a_delay_keeps_the_delay_or_its_share() -> None:
    for delay, end in (("40", 40), ("40%", 80)):
        old, new = (plan_of(f"delay: {delay}", f"horizon.steps={n}", "schedule=constant") for n in (100, 200))
        plan = go_on(old, new, "extend")
        assert rates(plan, 0, 0, end - 1, end, 199) == [0, 0, 1, 1]


def test_extend_refuses_another_schedule_of_a_rule() -> None:
    old, new = plan_of("schedule: linear"), plan_of("schedule: cosine", "horizon.steps=200")
    with pytest.raises(ConfigError, match="keeps the shape, but the param_groups differs: use override"):
        go_on(old, new, "extend")


def test_cooldown_reduces_each_group_from_its_own_value() -> None:
    old = plan_of("schedule: linear, lr_scale: 10", "schedule=constant")
    plan = go_on(old, old, "cooldown", length=10)
    assert rates(plan, 2, 29, 30, 35, 39) == [1, 1, 0.5, 0.1]
    assert rates(plan, 0, 29, 30, 35, 39) == pytest.approx([0.71, 0.7, 0.35, 0.07])
    late = plan_of("delay: 50", "schedule=constant")
    assert rates(go_on(late, late, "cooldown", length=10), 0, 30, 39, 60) == [0, 0, 0]


def test_a_cooldown_above_a_group_is_refused_and_one_without_any_rate_too() -> None:
    late = plan_of("delay: 50", "schedule=constant")
    with pytest.raises(ConfigError, match=r"^cooldown\.end must not be above 0, where the cooldown of head begins"):
        Resumption(saved_with(late), "cooldown", Linear(length=10, end=0.1)).plan(late)
    still = plan_of("delay: 50", "schedule=linear", "schedule.end=0", "schedule.length=20")
    with pytest.raises(ConfigError, match=r"^resume\.policy=cooldown must begin above 0"):
        Resumption(saved_with(still), "cooldown", Linear(length=10)).plan(still)


def test_the_config_of_a_cooldown_asks_for_no_curve_of_a_rule() -> None:
    """A delay may be longer than the run that a cooldown makes of it."""
    old = plan_of("delay: 50, lr_scale: 3", "schedule=constant")
    resumption = Resumption(saved_with(old, 20), "cooldown", Linear(length=10))
    config = resumption.config(compose(["resume.path=x", "resume.policy=cooldown", "cooldown=linear"]))
    assert config["param_groups"]["rules"] == [{"name": "head", "pattern": "h", "lr_scale": 3}]


def test_restart_takes_the_new_curve_from_its_first_step() -> None:
    new = plan_of("delay: 20")
    assert at_all(go_on(plan_of("schedule: linear"), new, "restart"), 0) == at_all(new, 0)


@ignored
def test_a_resumed_training_is_the_same_training(tmp_path: Path, recorded: Recorded) -> None:
    """Within a delay, with a cycled momentum; rates, momentum, metrics and weights, to the bit."""
    rule = "{name: head, pattern: '^head', delay: 10, schedule: {name: one_cycle, up: 4}}"
    full_and_resumed(tmp_path, recorded, 8, f"param_groups.rules=[{rule}]", "param_groups=no_decay")
    assert {step["head"][0] for step in recorded[:1]} == {0.0}

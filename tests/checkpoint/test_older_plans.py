"""A run by an older lrkit, whose schedules had fewer options, goes on as what it is."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from lrkit.base.errors import ConfigError
from lrkit.checkpoint.resume_differences import list_plan_differences, normalise
from lrkit.config.compose import compose, plan
from lrkit.planning.plan_schema import checked
from lrkit.schedules.shapes.schedule import OVERLAPS

#: The keys that schedules have had since, in configs and in plans.
SINCE = ("scale", "floor", "skip", "update_every", "overlap")
RUN = ["schedule=step", "warmup=linear", "cooldown=sqrt", "schedule@coschedule.weight_decay=cosine",
       "optimizer.weight_decay=0.1"]  # fmt: skip


def older(plain: Any) -> Any:
    """The JSON of a plan as it was before; ``start`` is new for step schedules."""
    if isinstance(plain, list):
        return [older(each) for each in plain]
    if not isinstance(plain, dict):
        return plain
    is_schedule = {"length", "every"} <= plain.keys()
    gone = {*SINCE, "start"} if is_schedule else {*SINCE} if "length" in plain else set()
    return {name: older(value) for name, value in plain.items() if name not in gone}


#: Momentum beside schedules, as version 0.1 saved it in a plan: with fields of the rate that had no effect.
MOMENTUM = """[
{"name": "momentum", "first_step": 0, "steps": 10, "schedule": {"name": "_Dip", "length": null, "start": 0.04,
 "peak": 1.0, "end": 4e-06, "up": 3, "anneal": "cosine", "three_phase": true, "momentum_start": null,
 "momentum_peak": null, "high": 0.95, "low": 0.85}, "scale": 1.0},
{"name": "momentum", "first_step": 10, "steps": 10, "schedule": {"name": "_CycledMomentum", "length": null,
 "start": 0.9, "peak": 0.8, "up": 2, "down": 3, "mode": "exp_cycle", "gamma": 0.5, "every": 1, "formula": null,
 "momentum_start": null, "momentum_peak": null}, "scale": 1.0}]"""
VALUES = [0.95, 0.9249999999999998, 0.875, 0.85, 0.8749999999999999, 0.925, 0.95, 0.95, 0.95, 0.95,
          0.9, 0.8500000000000001, 0.8, 0.8333333333333334, 0.8666666666666667, 0.9, 0.875, 0.8500000000000001,
          0.8666666666666667, 0.8833333333333333]  # fmt: skip


def test_its_momentum_is_the_same() -> None:
    new = plan(compose(RUN)).to_json()
    saved = checked({**new, "momentum": json.loads(MOMENTUM)})
    assert saved.momentum is not None and [saved.momentum(t) for t in range(20)] == VALUES
    cycles = {"one_cycle": ["schedule.up=3", "schedule.three_phase=true"],
              "cyclic": ["schedule.up=2", "schedule.down=3", "schedule.mode=exp_cycle", "schedule.gamma=0.5",
                         "schedule.momentum_start=0.9", "schedule.momentum_peak=0.8", "schedule.every=1"]}  # fmt: skip
    for (name, words), phase in zip(cycles.items(), json.loads(MOMENTUM), strict=True):
        now = plan(compose([f"schedule={name}", "horizon.steps=10", *words])).to_json()
        assert list_plan_differences({**now, "momentum": [{**phase, "first_step": 0}]}, now) == []


@pytest.fixture
def run(tmp_path: Path) -> Path:
    plain = older(plan(compose(RUN)).to_json())
    assert "scale" not in plain["config"]["schedule"] and "start" not in plain["phases"][1]["schedule"]
    (tmp_path / "plan.json").write_text(json.dumps(plain))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    return tmp_path


def test_its_plan_is_the_same(run: Path) -> None:
    old = json.loads((run / "plan.json").read_text())
    new = plan(compose(RUN))
    assert checked(old).curve == new.curve and checked(old).decay_curve == new.decay_curve
    assert list_plan_differences(old, new.to_json()) == []
    for part in ("schedule", "warmup", "cooldown", "coschedule"):
        assert normalise(old["config"][part]) == normalise(new.config[part])
    scaled = plan(compose([*RUN, "schedule.scale=0.5"]))
    assert {name for name, _, _ in list_plan_differences(old, scaled.to_json())} == {"phases"}
    assert normalise(old["config"]["schedule"]) != normalise(scaled.config["schedule"])


def test_its_options_can_be_set_when_it_goes_on(run: Path) -> None:
    said = ["schedule.scale=0.5", "schedule.start=0.8", "warmup.overlap=join", "cooldown.update_every=5"]
    config = compose([f"resume.path={run}", *said])
    assert config["schedule"]["scale"] == 0.5 and config["schedule"]["start"] == 0.8
    assert plan(config).curve == plan(compose([*RUN, *said])).curve
    with pytest.raises(ConfigError, match=r"^schedule\.scael is not a key"):
        compose([f"resume.path={run}", "schedule.scael=0.5"])
    with pytest.raises(ConfigError, match=r"^warmup\.floor cannot be set: a warmup begins at its start"):
        plan(compose([f"resume.path={run}", "warmup.floor=0.5"]))


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_what_a_plan_says_is_not_lost(overlap: str) -> None:
    whole = plan(compose([*RUN, "schedule.floor=0.2", f"warmup.overlap={overlap}", "cooldown.update_every=5"]))
    plain = json.loads(json.dumps(whole.to_json()))
    assert checked(copy.deepcopy(plain)).curve == whole.curve
    assert plain["phases"][0]["schedule"].get("overlap", "none") == overlap
    schedule = plain["phases"][1]["schedule"]
    assert (schedule if overlap == "none" else schedule["shape"])["floor"] == 0.2
    assert plain["phases"][-1]["schedule"]["update_every"] == 5
    other = OVERLAPS[OVERLAPS.index(overlap) - 1]
    changed = plan(compose([*RUN, "schedule.floor=0.2", f"warmup.overlap={other}", "cooldown.update_every=5"]))
    assert {name for name, _, _ in list_plan_differences(plain, changed.to_json())} == {"phases"}

"""The options that every schedule has: scale, floor, skip and update_every, on every shape."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_shapes import CONCRETE, cases

from lrkit.base.errors import ConfigError
from lrkit.planning.plan import Plan
from lrkit.planning.plan_schema import checked
from lrkit.planning.resolve import resolve_plan
from lrkit.schedules.curve import Curve
from lrkit.schedules.curve_json import curve_from_json, curve_to_json
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import (
    Cosine,
    Cyclic,
    Exponential,
    InverseSqrt,
    Linear,
    Multistep,
    OneCycle,
    Piecewise,
    Polynomial,
    Restarts,
    Schedule,
    Step,
    Wsd,
)

OPTIONS = ("scale", "floor", "skip", "update_every")


@st.composite
def options(draw: Any) -> dict[str, Any]:
    """Some of the options, not all at their defaults."""
    drawn = {
        "scale": draw(st.floats(0.1, 3.0)),
        "floor": draw(st.floats(0.0, 0.5)),
        "skip": draw(st.integers(0, 50)),
        "update_every": draw(st.none() | st.integers(1, 40)),
    }
    names = draw(st.sets(st.sampled_from(OPTIONS), min_size=1))
    return {name: value for name, value in drawn.items() if name in names}


def expected(bare: Any, s: int, n: int, said: dict[str, Any]) -> float:
    """The formula, on a shape without options."""
    r, n = s + said.get("skip", 0), n + said.get("skip", 0)
    if (every := said.get("update_every")) is not None:
        r = r // every * every
    return max(said.get("floor", 0.0), said.get("scale", 1.0) * bare(r, n))


@settings(deadline=None, max_examples=100)
@given(cases(), options())
def test_every_shape_follows_the_formula(case: tuple[Any, int], said: dict[str, Any]) -> None:
    bare, whole = case
    said["skip"] = min(said.get("skip", 0), whole - 1)  # the shape is drawn for `whole` steps
    n = whole - said["skip"]
    schedule = dataclasses.replace(bare, **said)
    values = [schedule(s, n) for s in range(n)]
    assert values == [expected(bare, s, n, said) for s in range(n)]
    assert all(value >= said.get("floor", 0.0) for value in [*values, schedule.final(n)])
    if said.get("update_every") in (None, 1):
        assert schedule.final(n) == max(said.get("floor", 0.0), said.get("scale", 1.0) * bare.final(whole))
    else:
        assert schedule.final(n) == values[-1]
        jumps = [s for s in range(1, n) if values[s] != values[s - 1]]
        assert set(jumps) <= set(schedule.edges(n))
    edges = schedule.edges(n)
    assert edges == sorted(set(edges)) and all(0 < e < n for e in edges)
    assert schedule.bare() == bare


@settings(deadline=None, max_examples=50)
@given(cases())
def test_without_options_the_shape_is_bare(case: tuple[Any, int]) -> None:
    schedule, n = case
    said = {"scale": 1.0, "floor": 0.0, "skip": 0, "update_every": None}
    same = dataclasses.replace(schedule, **said)
    assert same == schedule and schedule.set_options == {}
    assert [schedule(s, n) for s in range(n)] == [schedule.value(s, n) for s in range(n)]
    assert (schedule.final(n), schedule.edges(n)) == (schedule.end_value(n), schedule.turns(n))


@settings(deadline=None, max_examples=50)
@given(cases(), options())
def test_the_json_of_a_plan_holds_the_options(case: tuple[Any, int], said: dict[str, Any]) -> None:
    bare, n = case
    said["skip"] = 0
    schedule = dataclasses.replace(bare, **said)
    curve = Curve.build(schedule, Horizon(n)) if schedule.length is None else None
    if curve is None:
        return
    written = curve_to_json(curve)
    assert written is not None and curve_from_json(written) == curve
    assert {name: written[0]["schedule"].get(name) for name in said if name in schedule.set_options} == (
        schedule.set_options
    )
    assert "scale" not in curve_to_json(Curve.build(bare, Horizon(n)))[0]["schedule"]  # type: ignore[index]


@pytest.mark.parametrize("name", CONCRETE)
def test_no_shape_hides_the_options(name: str) -> None:
    for method in ("__call__", "final", "edges"):
        assert getattr(CONCRETE[name], method) is getattr(Schedule, method)
    assert set(OPTIONS) <= {f.name for f in dataclasses.fields(CONCRETE[name]) if f.metadata.get("shared")}


def test_a_plan_with_options_is_saved_and_read() -> None:
    schedule = Piecewise(phases=[Step(every=5, floor=0.2, length=20), Cosine(scale=0.5, update_every=4)], floor=0.01)
    plan = resolve_plan(lr=0.1, schedule=schedule, horizon=Horizon(100), config={"optimizer": {}})
    again = Plan.from_json(plan.to_json())
    assert again.curve == plan.curve and [again.curve(t) for t in range(101)] == [plan.curve(t) for t in range(101)]
    config = {name: {} for name in ("optimizer", "schedule", "data", "trainer", "horizon")}
    config |= {"seed": 0} | {name: {} for name in ("warmup", "cooldown", "plateau", "coschedule")}
    plain = {**plan.to_json(), "config": config}
    assert checked(plain).curve == plan.curve
    plain["phases"][0]["schedule"]["skip"] = -1
    with pytest.raises(ConfigError, match=r"phases\[0\].schedule.skip must be a whole number >= 0"):
        checked(plain)


NEW: dict[Schedule, tuple[str, ...]] = {
    Cosine(end=0.1): ("power", "k"),
    Polynomial(power=3.0): ("k", "period"),
    Exponential(end=0.1): ("ratio",),
    InverseSqrt(timescale=5): ("power",),
    Restarts(period=10, decay=0.5): ("shape", "decay_of", "warmup"),
    Wsd(decay=5, shape="cosine"): ("milestones",),
    Cyclic(up=5): ("momentum_start", "momentum_peak", "formula"),
}


@pytest.mark.parametrize("schedule", NEW, ids=lambda schedule: type(schedule).__name__)
def test_a_plan_that_was_saved_before_an_option_existed_is_read(schedule: Schedule) -> None:
    curve = Curve.build(schedule, Horizon(60, 6))
    written = curve_to_json(curve)
    assert written is not None
    for name in NEW[schedule]:
        del written[0]["schedule"][name]
    assert curve_from_json(written) == curve


@dataclass(frozen=True)
class Own(Schedule):
    """A schedule of a third party with a ``__call__`` of its own."""

    def __call__(self, s: int, n: int) -> float:
        return 1.0 - s / (2 * n)


@dataclass(frozen=True)
class OwnScale(Schedule):
    """A schedule of a third party with a ``scale`` of its own."""

    scale: float = 3.0

    def __call__(self, s: int, n: int) -> float:
        return self.scale


@pytest.mark.parametrize("said", [{"scale": 0.5}, {"floor": 0.1}, {"skip": 5}, {"update_every": 5}])
def test_a_class_with_its_own_call_works_and_refuses_the_options(said: dict[str, Any]) -> None:
    assert Curve.build(Own(), Horizon(10)).values() == [1.0 - s / 20 for s in range(10)]
    name = next(iter(said))
    with pytest.raises(
        ConfigError, match=rf"^{name} cannot be set for Own, which has its own __call__: rename it to va"
    ):
        Own(**said)
    assert Curve.build(OwnScale(scale=0.5), Horizon(10))(3) == 0.5


BAD = [
    ({"scale": 0}, "scale must be > 0. Received: 0"),
    ({"scale": float("inf")}, "scale must be > 0. Received: inf"),
    ({"floor": -1}, "floor must be >= 0. Received: -1"),
    ({"skip": -1}, "skip must not be negative. Received: -1"),
    ({"skip": None}, "skip must be a length"),
    ({"update_every": 0}, "update_every must be longer than 0. Received: 0"),
    ({"update_every": "1xp"}, "update_every must be a length"),
]


@pytest.mark.parametrize(("said", "sentence"), BAD)
def test_bad_options(said: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Linear(**said)
    assert str(caught.value).startswith(sentence)


def test_the_options_resolve_to_steps() -> None:
    schedule = Cosine(skip="2ep", update_every="1ep").resolved(Horizon(1000, 100))
    assert (schedule.skip, schedule.update_every) == (200, 100)
    with pytest.raises(ConfigError, match=r"^update_every needs the number of optimizer steps in an epoch"):
        Cosine(update_every="1ep").resolved(Horizon(1000))


def test_momentum_of_one_cycle_follows_its_rate() -> None:
    cycle = OneCycle(up=40, momentum_start=0.95, momentum_peak=0.85, skip=20, update_every=5, scale=2.0, floor=0.5)
    momentum = cycle.momentum(0.9)
    assert momentum is not None
    bare = OneCycle(up=40, momentum_start=0.95, momentum_peak=0.85).momentum(0.9)
    assert bare is not None
    # As far into the shape, in the same stairs; but its values are plain, so neither scaled nor held up.
    assert [momentum(s, 80) for s in range(80)] == [bare((s + 20) // 5 * 5, 100) for s in range(80)]


def test_milestones_before_the_skip_are_not_warned_of() -> None:
    plan = resolve_plan(lr=0.1, schedule=Multistep(milestones=[10, 60], skip=30), horizon=Horizon(100))
    assert plan.curve.edges == (0, 30) and not any("milestone" in line for line in plan.warnings)

"""The warmup: how it meets the schedule, for every shape, by the formulas of other libraries."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_schedule_options import options
from test_shapes import cases

from lrkit.base.errors import ConfigError
from lrkit.config.shipped_options import class_of_option, option_names, read_option
from lrkit.planning.plan import Plan
from lrkit.planning.resolve import resolve_plan
from lrkit.schedules.curve import Curve
from lrkit.schedules.curve_json import curve_from_json, curve_to_json
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Constant, Cosine, Exponential, Linear, Multistep, OneCycle, Schedule, Sqrt, Step, Wsd

WARMUPS = [name for name in option_names("warmup") if name != "none"]
OVERLAPS = ("none", "join", "peak", "multiply")


def shipped(name: str, **said: Any) -> Schedule:
    """A warmup of ``conf/warmup``, with other options."""
    node = read_option("warmup", name, "warmup")
    node |= {key: value for key, value in said.items() if key in node}  # a formula has no start
    made: Schedule = class_of_option(node.pop("_target_"))(**node)
    return made


@st.composite
def runs(draw: Any) -> tuple[Curve, Schedule, Schedule, Schedule | None, int, int]:
    """A curve, its warmup, schedule and cooldown, the steps of the warmup, and those of the whole schedule."""
    schedule, whole = draw(cases())
    overlap = draw(st.sampled_from(OVERLAPS))
    said = draw(st.just({}) | options())
    skip = said["skip"] = min(said.get("skip", 0), whole - 2)
    schedule = dataclasses.replace(schedule, **said)
    steps = draw(st.integers(1, whole - skip - 1))  # of the warmup
    start, every = draw(st.floats(0.01, 3.0)), draw(st.none() | st.integers(1, 20))
    warmup = shipped(draw(st.sampled_from(WARMUPS)), length=steps, start=start, overlap=overlap, update_every=every)
    cooldown = Sqrt(length=draw(st.integers(1, 50))) if draw(st.booleans()) else None
    total = whole - skip + (steps if overlap == "none" else 0) + (0 if cooldown is None else int(cooldown.length or 0))
    try:
        curve = Curve.build(schedule, Horizon(total), warmup=warmup, cooldown=cooldown)
    except ConfigError as error:  # an exponential warmup to 0
        assume("must be > 0" not in str(error))
        raise
    return curve, warmup, schedule, cooldown, steps, whole - skip


@settings(deadline=None, max_examples=100)
@given(runs())
def test_every_warmup_meets_every_schedule_by_the_formula(run: Any) -> None:
    curve, warmup, schedule, cooldown, steps, n = run
    first, reached = schedule(0, n), schedule(steps, n)
    after = steps if warmup.overlap == "none" else 0
    assert [curve(after + s) for s in range(steps - after, n)] == [schedule(s, n) for s in range(steps - after, n)]
    rise = dataclasses.replace(warmup, overlap="none").with_ends(end=1.0)
    for s in range(steps):
        share = rise(s, steps)
        if warmup.overlap in ("none", "peak"):
            assert curve(s) == share * first
        elif warmup.overlap == "multiply":
            assert curve(s) == share * schedule(s, n)
        elif "start" not in warmup.ends:
            assert curve(s) == share * reached
        else:
            assert curve(s) == warmup.with_ends(start=warmup.ends["start"] * first, end=reached)(s, steps)
    if cooldown is not None:
        assert curve(after + n) == schedule.final(n)
    edges = curve.edges
    assert edges == tuple(sorted(set(edges))) and all(0 <= e < (curve.steps or 0) for e in edges)


@settings(deadline=None, max_examples=40)
@given(runs(), st.data())
def test_such_a_curve_is_saved_cut_and_stretched(run: Any, data: st.DataObject) -> None:
    curve = run[0]
    steps = curve.steps
    again = curve_from_json(curve_to_json(curve))
    assert again == curve and again.values() == curve.values()
    cut = data.draw(st.integers(1, steps - 1))
    assert curve.until(cut).values() == curve.values()[:cut]
    longer = curve.stretched(cut, steps + 50)
    assert longer.values()[:cut] == curve.values()[:cut] and longer.steps == steps + 50
    assert curve.within(steps).values() == curve.values()
    assert all(curve.peak(i) >= 0 for i in range(len(curve.phases)))
    assert all(math.isfinite(value) for value in curve.within(max(1, steps // 3)).values())


@pytest.mark.parametrize("name", WARMUPS)
def test_a_warmup_without_overlap_is_what_it_was(name: str) -> None:
    warmup = shipped(name, length=10)
    curve = Curve.build(Cosine(start=0.5), Horizon(100), warmup=warmup)
    alone = Curve.build(Constant(start=0.5), Horizon(100), warmup=warmup)
    assert curve.values()[:10] == alone.values()[:10]
    assert curve.values()[10:] == [Cosine(start=0.5)(s, 90) for s in range(90)]
    for overlap in OVERLAPS:  # on a constant schedule all of them are the same
        same = Curve.build(Constant(), Horizon(100), warmup=dataclasses.replace(warmup, overlap=overlap))
        assert same.values() == Curve.build(Constant(), Horizon(100), warmup=warmup).values()


# The formulas of other libraries. timm and detectron2: read in their source; by steps or by epochs of `k` steps.


def timm_cosine(t: int, run: int, warmup: int, init: float, low: float) -> float:
    """``CosineLRScheduler`` with its default ``warmup_prefix=False``, for a base rate of 1."""
    if t < warmup:
        return init + t * (1.0 - init) / warmup
    return low + 0.5 * (1.0 - low) * (1 + math.cos(math.pi * t / run))


@pytest.mark.parametrize("k", [1, 7])
def test_timms_default(k: int) -> None:
    """``t_in_epochs`` too, its default: both warmup and schedule change once an epoch."""
    every = None if k == 1 else "1ep"
    warmup = Linear(start=0.01, length=5 * k, overlap="peak", update_every=every)
    curve = Curve.build(Cosine(end=0.1, update_every=every), Horizon(50 * k, k), warmup=warmup)
    theirs = [timm_cosine(t // k, 50, 5, 0.01, 0.1) for t in range(50 * k)]
    assert curve.values() == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("method", ["linear", "constant"])
def test_detectron2(method: str) -> None:
    """``WarmupParamScheduler(CosineParamScheduler(1, 0.1), 0.25, 15 / 60, method)``."""

    def scheduler(where: float) -> float:
        return 0.1 + 0.5 * (1.0 - 0.1) * (1 + math.cos(math.pi * where))

    def theirs(t: int) -> float:
        low, high, where = 0.25 * scheduler(0.0), scheduler(15 / 60), t / 15
        rising = low if method == "constant" else high * where + low * (1 - where)
        return rising if t < 15 else scheduler(t / 60)

    curve = Curve.build(Cosine(end=0.1), Horizon(60), warmup=shipped(method, start=0.25, length=15, overlap="join"))
    assert curve.values() == pytest.approx([theirs(t) for t in range(60)], rel=1e-12)


@pytest.mark.parametrize("overlap", ["join", "peak", "multiply"])
def test_milestones_count_from_the_beginning_of_the_run(overlap: str) -> None:
    """As in Composer, MMEngine and detectron2; a milestone within the warmup tells their three ways apart."""
    warmup = Linear(start=0.0, length=10, overlap=overlap)
    curve = Curve.build(Multistep(milestones=["30%", 60], gamma=0.1), Horizon(100), warmup=warmup)
    assert [curve(s) for s in (5, 10, 29, 30, 59, 60)] == pytest.approx([0.5, 1, 1, 0.1, 0.1, 0.01])
    assert curve.edges == (0, 10, 30, 60)
    early = Curve.build(Multistep(milestones=[4], gamma=0.1), Horizon(100), warmup=warmup)
    expected = {"join": [0.02, 0.05], "peak": [0.2, 0.5], "multiply": [0.2, 0.05]}[overlap]
    assert [early(s) for s in (2, 5, 10)] == pytest.approx([*expected, 0.1])


def test_a_falling_warmup() -> None:
    """optax's ``warmup_cosine_decay_schedule`` with an ``init_value`` above the peak."""
    curve = Curve.build(Cosine(end=0.05), Horizon(60), warmup=Linear(start=2.0, length=10))
    assert [curve(s) for s in (0, 5, 10)] == [2.0, 1.5, 1.0]
    plan = resolve_plan(lr=0.1, schedule=Cosine(), horizon=Horizon(60), warmup=Exponential(start=4.0, end=1, length=10))
    assert plan.curve(5) == pytest.approx(2.0) and "the rate rises to 4 times the base rate" in plan.warnings


def test_momentum_follows_an_overlapped_cycle() -> None:
    cycle = OneCycle(up=40, momentum_start=0.95, momentum_peak=0.85)
    run = {"lr": 0.1, "schedule": cycle, "horizon": Horizon(100), "momentum": 0.9}
    plain = resolve_plan(**run, cooldown=Linear(length=20))  # type: ignore[arg-type]
    for overlap in ("join", "peak", "multiply"):
        plan = resolve_plan(**run, warmup=Linear(length=10, overlap=overlap), cooldown=Linear(length=20))  # type: ignore[arg-type]
        assert plan.momentum == plain.momentum
        assert plan.curve.values()[10:] == plain.curve.values()[10:]
        assert Plan.from_json(plan.to_json()).momentum == plan.momentum
    before = resolve_plan(**run, warmup=Linear(length=10), cooldown=Linear(length=20))  # type: ignore[arg-type]
    assert before.momentum is not None and {before.momentum(s) for s in range(11)} == {0.95}


def test_a_run_of_unknown_length() -> None:
    endless = Horizon(None, 50)
    for overlap in ("join", "peak", "multiply"):
        curve = Curve.build(Step(every=30, gamma=0.5), endless, warmup=Linear(length=10, start=0.1, overlap=overlap))
        assert [curve(s) for s in (10, 29, 30, 60, 10_000)] == [1.0, 1.0, 0.5, 0.25, 0.5 ** (10_000 // 30)]
        assert curve_from_json(curve_to_json(curve)) == curve
    with pytest.raises(ConfigError, match=r"^schedule\.end needs the total number of optimizer steps"):
        Curve.build(Cosine(), endless, warmup=Linear(length=10, overlap="join"))


def test_warnings_are_about_the_whole_schedule() -> None:
    def warnings(schedule: Schedule, overlap: str) -> list[str]:
        warmup = Linear(start=0.1, length=30, overlap=overlap)
        return list(resolve_plan(lr=0.1, schedule=schedule, horizon=Horizon(100), warmup=warmup).warnings)

    assert warnings(Multistep(milestones=[10, 50]), "join") == []  # one of them is in the warmup
    late = "milestone 80 is never reached: the schedule has 70 steps after the warmup"
    assert warnings(Multistep(milestones=[50, 80]), "none") == [late]
    assert warnings(Multistep(milestones=[50, 80]), "join") == []
    assert Curve.build(Wsd(decay=20), Horizon(100), warmup=Linear(length=30, overlap="join")).edges == (0, 30, 80)

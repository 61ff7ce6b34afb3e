"""The curve: warmup, schedule and cooldown laid end to end, in integers of optimizer steps."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import hydra
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose
from lrkit.config.compose import plan as planned
from lrkit.config.shipped_options import read_option
from lrkit.schedules.curve import Curve
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import (
    Constant,
    Cosine,
    Cyclic,
    Exponential,
    Formula,
    InverseSqrt,
    InverseTime,
    Linear,
    Multistep,
    OneCycle,
    Piecewise,
    Plateau,
    Polynomial,
    Product,
    Restarts,
    Rex,
    Schedule,
    Sqrt,
    Step,
    Table,
    Wsd,
)

CONF = Path(__file__).parents[2] / "conf"
UP, DOWN = Linear(start=0.1, length=10), Linear(end=0.0, length=20)

LAID_OUT = [
    # schedule                        run  warmup  cooldown  phases
    (Cosine(),                        100, None,   None,     {"schedule": (0, 100)}),
    (Cosine(),                        100, UP,     None,     {"warmup": (0, 10), "schedule": (10, 90)}),
    (Constant(),                      100, UP,     DOWN,     {"warmup": (0, 10), "schedule": (10, 70),
                                                              "cooldown": (80, 20)}),
    (Linear(end=0.5, length=30),      100, UP,     DOWN,     {"warmup": (0, 10), "schedule": (10, 30),
                                                              "hold": (40, 40), "cooldown": (80, 20)}),
    (Linear(length=30),               100, UP,     None,     {"warmup": (0, 10), "schedule": (10, 30)}),
    (Cosine(),                        1,   None,   None,     {"schedule": (0, 1)}),
    (Cosine(),                        31,  UP,     DOWN,     {"warmup": (0, 10), "schedule": (10, 1),
                                                              "cooldown": (11, 20)}),
    (Cosine(),                        100, Linear(length=0), Linear(length="0%"), {"schedule": (0, 100)}),
    (Constant(),                      200, Linear(length="5%"), None, {"warmup": (0, 10), "schedule": (10, 190)}),
]  # fmt: skip

VALUES = [
    # schedule                 warmup                            cooldown           multipliers of a run of 8 steps
    (Constant(),               Linear(start=0.0, length=4),      None,              {0: 0, 1: 0.25, 4: 1, 7: 1}),
    (Constant(start=0.5),      Linear(start=0.2, length=4),      None,              {0: 0.1, 2: 0.3, 4: 0.5}),
    (Constant(),               Constant(start=0.1, length=4),    None,              {0: 0.1, 3: 0.1, 4: 1}),
    (Constant(),               Cosine(start=0.0, length=4),      None,              {0: 0, 2: 0.5, 4: 1}),
    (Constant(),               Exponential(start=0.01, end=1, length=4), None,      {0: 0.01, 2: 0.1, 4: 1}),
    (Linear(),                 Linear(start=0.0, end=0.5, length=4), None,          {2: 0.5, 4: 1, 6: 0.5, 8: 0}),
    (Constant(),               None,       Linear(length=4),                        {4: 1, 6: 0.5, 8: 0, 9: 0}),
    (Linear(end=0.6),          None,       Linear(end=0.2, length=4),               {0: 1, 2: 0.8, 4: 0.6, 6: 0.4}),
    (Step(every=2, gamma=0.5), None,       Sqrt(length=4),                          {2: 0.5, 4: 0.5, 5: 0.25, 8: 0}),
    (Step(every=4, gamma=0.5), None,       Sqrt(length=4),                          {3: 1, 4: 1, 5: 0.5, 8: 0}),
    (Constant(),               Linear(start=0.0, length=4),      Linear(length=2),  {2: 0.5, 4: 1, 6: 1, 7: 0.5}),
    (Constant(start=0.5),      Formula(formula="u**2", length=4), None,             {0: 0, 2: 0.125, 4: 0.5}),
    (Linear(end=0.5),          None,       Formula(formula="(1-u)**2", length=4),   {2: 0.75, 4: 0.5, 6: 0.125, 8: 0}),
    (Constant(start=0.5),      Table(table=[[0, 0.2], [4, 1.0]], length=4), None,   {0: 0.1, 2: 0.3, 4: 0.5}),
    (Constant(start=0.5),      None, Product(factors=[Linear(), Linear()], length=4), {4: 0.5, 6: 0.125, 8: 0}),
    (Constant(start=0.5),      None,       Step(every=2, gamma=0.5, length=4),      {4: 0.5, 5: 0.5, 6: 0.25, 8: 0.25}),
]  # fmt: skip

REFUSED = [
    # schedule, run, warmup, cooldown
    #     the sentence
    (Cosine(), 100, Linear(length=100), None,
        "warmup.length must leave steps for the schedule: it is 100 of 100 steps; for a warmup alone "
        "use schedule=linear schedule.start=0 schedule.end=1. Received: 100"),
    (Cosine(), 100, Linear(length="100%"), None,
        "warmup.length must leave steps for the schedule: it is 100 of 100 steps; for a warmup alone "
        "use schedule=linear schedule.start=0 schedule.end=1. Received: '100%'"),
    (Cosine(), 100, None, Sqrt(length="2ep"),
        "cooldown.length must leave steps for the schedule: it is 200 of 100 steps. Received: '2ep'"),
    (Cosine(), 100, Linear(length=70), Sqrt(length=30),
        "warmup.length leaves no step for the schedule: warmup 70 + cooldown 30 of 100 optimizer steps."),
    (Cosine(), 1, Linear(length="5%"), None,
        "warmup.length must leave steps for the schedule: it is 1 of 1 steps; for a warmup alone "
        "use schedule=linear schedule.start=0 schedule.end=1. Received: '5%'"),
    (Cosine(), 100, Linear(), None,
        "warmup.length must be set."),
    (Cosine(), 100, None, Linear(),
        "cooldown.length must be set."),
    (Cosine(length=0), 100, None, None,
        "schedule.length must be longer than 0. Received: 0"),
    (Cosine(length=95), 100, UP, None,
        "schedule.length must be at most the 90 steps that are left. Received: 95"),
    (Cosine(length=10), 100, Linear(length=10, overlap="join"), None,
        "schedule.length must be longer than the warmup of 10 steps, which overlaps it. Received: 10"),
    (Cosine(), 100, Linear(length=70, overlap="join"), Sqrt(length=30),
        "warmup.length leaves no step for the schedule: warmup 70 + cooldown 30 of 100 optimizer steps."),
    (Cosine(overlap="join"), 100, None, None,
        "schedule.overlap is an option of the warmup: set warmup.overlap. Received: 'join'"),
    (Cosine(), 100, None, Linear(length=5, overlap="peak"),
        "cooldown.overlap is an option of the warmup: set warmup.overlap. Received: 'peak'"),
    (Cosine(), 100, Linear(length=5, scale=0.5), None,
        "warmup.scale cannot be set: a warmup ends at a value of the schedule; set schedule.scale. Received: 0.5"),
    (Cosine(), 100, Linear(length=5, floor=0.5), None,
        "warmup.floor cannot be set: a warmup begins at its start, which is its lowest value; set warmup.start."),
    (Cosine(), 100, Linear(length=5, skip=5), None,
        "warmup.skip cannot be set: set warmup.start, the value at which the warmup begins."),
    (Cosine(), 100, None, Linear(length=5, scale=0.5),
        "cooldown.scale cannot be set: a cooldown begins at the schedule's last value; set schedule.scale. Rece"),
    (Cosine(), 100, None, Linear(length=5, floor=0.5),
        "cooldown.floor cannot be set: a cooldown ends at its end, which is its lowest value; set cooldown.end"),
    (Cosine(), 100, None, Linear(length=5, skip=5),
        "cooldown.skip cannot be set: a cooldown begins at the schedule's last value. Received: 5"),
    (Cosine(), 100, Exponential(gamma=0.5, length=5), None,
        "warmup.gamma or `end` must be set, and the other one null. Received: {'gamma': 0.5, 'end': 1.0}"),
    (Linear(end=0.1), 100, None, Linear(end=0.5, length=5),
        "cooldown.end must not be above 0.1, where the cooldown begins. Received: 0.5"),
    (Linear(), 100, None, Exponential(gamma=0.5, length=5),
        "cooldown.start must be > 0. Received: 0.0"),
    (OneCycle(up=90), 100, UP, None,
        "schedule.up must leave steps for the way down: the phase has 90 steps. Received: 90"),
    (Wsd(decay="95%"), 100, UP, None,
        "schedule.decay must not be longer than the phase, which has 90 steps. Received: 95"),
    (Multistep(milestones=[90]), 100, UP, None,
        "schedule.milestones must lie before the end of the schedule, which has 90 steps: the rate would never "
        "drop. Received: [90]"),
    (Restarts(cycles=91), 100, UP, None,
        "schedule.cycles must leave each cycle at least one of the 90 steps. Received: 91"),
    (Step(every="1ep"), None, None, None,
        "schedule.every needs the number of optimizer steps in an epoch, which is not known: set horizon.st"),
    (Constant(), None, Linear(length="5%"), None,
        "warmup.length needs the total number of optimizer steps, which is not known: set trainer.max_"),
    (Constant(), None, None, DOWN,
        "cooldown.length needs the total number of optimizer steps, which is not known: set trainer.max_"),
    (Cosine(), 100, Formula(formula="0.9*u", length=5), None,
        "warmup must end at 1, which is the schedule's first value; after its 5 steps it is 0.9."),
    (Cosine(), 100, Step(every=2, gamma=0.5, length=5), None,
        "warmup must end at 1, which is the schedule's first value; after its 5 steps it is 0.25."),
    (Cosine(), 100, Formula(formula="2-u*3", length=5), None,
        "warmup.formula must be a finite number >= 0, and is -0."),
    (Constant(), 100, None, Formula(formula="0.9-u/2", length=5),
        "cooldown must begin at 1, which is the schedule's last value; its first value is 0.9."),
    (Constant(), 100, None, Formula(formula="1+u", length=5),
        "cooldown must not end above 1, where it begins; after its 5 steps it is 2."),
    (Constant(), 100, None, Formula(formula="1/(s-3)**2", length=5),
        "cooldown.formula divides by zero at step 3 of 5. Received: '1/(s-3)**2'"),
    (Formula(formula="1/(s-3)**2"), 100, UP, None,
        "schedule.formula divides by zero at step 3 of 90. Received: '1/(s-3)**2'"),
    (Formula(formula="1/(s-3)**2"), None, None, None,
        "schedule.formula divides by zero at step 3 of 20000. Received: '1/(s-3)**2'"),
]  # fmt: skip

ENDLESS = [
    Constant(), Plateau(), Step(every=3), Multistep(milestones=[4]), Exponential(gamma=0.9, every=3),
    InverseSqrt(timescale=3), InverseTime(every=3), Restarts(period=4, growth=2), Cyclic(up=3),
    Piecewise(phases=[Linear(length=5), Constant()]), Cosine(length=9),
    Formula(formula="0.9**s"), Table(table=[[2, 1.0], [7, 0.1]]), Product(factors=[Step(every=3), Cosine(length=9)]),
]  # fmt: skip

NEEDS_AN_END = [
    # schedule                              the key that says so
    (Linear(),                              "schedule.end"),
    (Polynomial(),                          "schedule.end"),
    (Cosine(),                              "schedule.end"),
    (Sqrt(),                                "schedule.end"),
    (Rex(),                                 "schedule.end"),
    (Exponential(end=0.1),                  "schedule.end"),
    (OneCycle(up=10),                       "schedule.end"),
    (Wsd(decay=10),                         "schedule.end"),
    (Restarts(cycles=3),                    "schedule.end"),
    (Piecewise(phases=[Linear()]),          "schedule"),
    (Formula(formula="1-u"),                "schedule"),
    (Table(table=[["50%", 1.0]]),           "schedule.table[0]"),
    (Product(factors=[Constant(), Rex()]),  "schedule"),
    (Step(every="30%"),                     "schedule.every"),
    (Cosine(length="50%"),                  "schedule.length"),
    (Piecewise(phases=[Step(every="30%")]), "schedule.phases[0].every"),
]  # fmt: skip


def ids(row: Any) -> str | None:
    return str(row) if isinstance(row, Schedule) else None


@pytest.mark.parametrize(("schedule", "run", "warmup", "cooldown", "phases"), LAID_OUT, ids=ids)
def test_the_phases_tile_the_run(schedule: Any, run: int, warmup: Any, cooldown: Any, phases: Any) -> None:
    curve = Curve.build(schedule, Horizon(run), warmup=warmup, cooldown=cooldown)
    laid = zip(curve.phases, curve.starts, strict=True)
    assert {phase.name: (first, phase.length) for phase, first in laid} == phases
    assert curve.steps == sum(length for _, length in phases.values())
    assert set(curve.starts) <= set(curve.edges)


@pytest.mark.parametrize(("schedule", "warmup", "cooldown", "values"), VALUES, ids=ids)
def test_the_values(schedule: Any, warmup: Any, cooldown: Any, values: dict[int, float]) -> None:
    curve = Curve.build(schedule, Horizon(8), warmup=warmup, cooldown=cooldown)
    assert {step: curve(step) for step in values} == pytest.approx(values, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("schedule", "run", "warmup", "cooldown", "sentence"), REFUSED, ids=ids)
def test_what_does_not_fit_is_refused(schedule: Any, run: Any, warmup: Any, cooldown: Any, sentence: str) -> None:
    per_epoch = None if run is None else 100
    with pytest.raises(ConfigError) as caught:
        Curve.build(schedule, Horizon(run, per_epoch), warmup=warmup, cooldown=cooldown)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("schedule", ENDLESS, ids=ids)
def test_without_an_end(schedule: Schedule) -> None:
    curve = Curve.build(schedule, Horizon(None), warmup=UP)
    known = Curve.build(schedule, Horizon(1010), warmup=UP)
    assert [curve(t) for t in range(1000)] == [known(t) for t in range(1000)]
    assert curve.steps is None if schedule.length is None else curve.steps == 10 + int(schedule.length)
    assert 0.0 <= curve(10**12) <= 1.0
    with pytest.raises(ConfigError, match=r"^horizon\.steps must be set to list a curve without an end"):
        Curve.build(Constant(), Horizon(None)).values()


@pytest.mark.parametrize(("schedule", "key"), NEEDS_AN_END, ids=ids)
def test_without_an_end_what_needs_it_is_refused(schedule: Schedule, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Curve.build(schedule, Horizon(None))
    assert str(caught.value).startswith(f"{key} needs the total number of optimizer steps, which is not known: set ")


def test_a_wrong_value_at_a_step_that_was_not_tried_names_the_step() -> None:
    """The check of a long run takes a sample; `abs` hides that this formula is negative only around one step."""
    curve = Curve.build(Formula(formula="abs(3*s - 1000002)/1e7 - 1e-8"), Horizon(10**6 + 10), warmup=UP)
    assert curve(333_334 + 10 - 1) > 0.0
    with pytest.raises(
        ConfigError, match=r"^schedule\.formula must be .* >= 0, and is -1e-08 at step 333334 of 1000000"
    ):
        curve(333_334 + 10)


# The options of conf/: every warmup with every schedule and every cooldown.


@cache
def shipped(group: str) -> dict[str, Any]:
    """option -> the object that it describes; None for ``none``."""
    built = {}
    for path in sorted((CONF / group).glob("*.yaml")):
        if path.stem == "custom":  # of a class of the user's
            continue
        node = read_option(group, path.stem, group)
        built[path.stem] = hydra.utils.instantiate(node, _convert_="all") if node else None
    return built


COMBINATIONS = list(product(shipped("warmup"), shipped("schedule"), shipped("cooldown")))
#: Each warmup and each cooldown with each schedule: enough for a long run, as the parts do not know each other.
PAIRS = [names for names in COMBINATIONS if names[0] == "linear" or names[2] == "none"]


def built(names: tuple[str, str, str], horizon: Horizon) -> Curve:
    warmup, schedule, cooldown = names
    return Curve.build(
        shipped("schedule")[schedule],
        horizon,
        warmup=shipped("warmup")[warmup],
        cooldown=shipped("cooldown")[cooldown],
    )


def examine(curve: Curve, horizon: Horizon) -> None:
    """Properties of every curve of conf/: all of them peak at 1 and begin above 0."""
    assert curve.steps == horizon.steps
    assert curve.starts == tuple(sum(p.length or 0 for p in curve.phases[:i]) for i in range(len(curve.phases)))
    values = curve.values()
    assert all(math.isfinite(m) and 0.0 <= m <= 1.0 for m in values)
    assert values[0] > 0.0
    for i, (first, phase) in enumerate(zip(curve.starts, curve.phases, strict=True)):
        length = phase.length or 0
        assert length >= 1
        assert curve.peak(i) == max(values[first : first + length])
        if phase.name == "warmup":
            top = curve.phases[1](0)
            assert curve(length) == top
            assert phase.final in (top, phase(0))  # it arrives there, or is flat and jumps
            assert phase.schedule.ends or phase.schedule.final(length) == 1.0  # a formula
        if phase.name == "cooldown":
            assert curve(first) == curve.phases[i - 1].final
            assert phase.final == phase.schedule.ends.get("end", 0.0)
    end = curve.phases[-1].final
    assert [curve(len(values) + t) for t in (0, 1, 1000, 10**9)] == [end] * 4
    assert all(isinstance(e, int) and 0 <= e < len(values) for e in curve.edges)


@pytest.mark.parametrize("horizon", [Horizon(100, 10, 8), Horizon(997, 100, 8)], ids=str)
def test_every_combination_resolves(horizon: Horizon) -> None:
    assert len(COMBINATIONS) == 7 * len(shipped("schedule")) * 10
    for names in COMBINATIONS if horizon.steps == 100 else PAIRS:
        examine(built(names, horizon), horizon)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 11, 16])
def test_a_short_run_is_laid_out_or_refused(steps: int) -> None:
    horizon, laid = Horizon(steps, max(1, steps // 3), 8), 0
    for names in COMBINATIONS:
        laid += laid_or_refused(names, horizon)
    assert laid >= 12  # of those without warmup and cooldown, even for a single step


def laid_or_refused(names: tuple[str, str, str], horizon: Horizon) -> bool:
    try:
        curve = built(names, horizon)
    except ConfigError as error:
        assert error.key.startswith(("warmup.length", "cooldown.length", "schedule."))
        return False
    examine(curve, horizon)
    return True


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(COMBINATIONS), st.integers(1, 3000), st.integers(1, 400))
def test_any_horizon_is_laid_out_or_refused(names: tuple[str, str, str], steps: int, per_epoch: int) -> None:
    laid = laid_or_refused(names, Horizon(steps, per_epoch, 8))
    assert laid or steps < 60


@pytest.mark.parametrize("schedule", shipped("schedule"))
def test_the_command_line_gives_the_same_curve(schedule: str) -> None:
    overrides = [f"schedule={schedule}", "warmup=linear", "cooldown=sqrt"]
    plan = planned(compose([*overrides, "horizon.steps=997", "horizon.steps_per_epoch=100"]))
    assert plan.curve == built(("linear", schedule, "sqrt"), Horizon(997, 100))


# Properties for all numbers.

LENGTHS = st.integers(1, 60)
LEVEL = st.floats(0.0, 2.0, allow_subnormal=False)
RISES = st.sampled_from([Linear, Cosine, Sqrt, Polynomial, Rex])


@settings(deadline=None, max_examples=150)
@given(RISES, st.floats(0.0, 1.0), LENGTHS, LEVEL, LEVEL, LENGTHS)
def test_a_warmup_arrives_where_the_schedule_begins(
    cls: type[Schedule], start: float, before: int, first: float, last: float, n: int
) -> None:
    warmup = cls(start=start, length=before)  # type: ignore[call-arg]
    curve = Curve.build(Linear(start=first, end=last), Horizon(before + n), warmup=warmup)
    assert curve(before) == first == curve.phases[0].final
    assert curve(0) == start * first
    assert all(0.0 <= curve(t) <= first for t in range(before))


@given(st.floats(0.0, 1.0), LENGTHS, LEVEL)
def test_the_step_into_the_schedule_is_one_more_step_of_the_warmup(start: float, before: int, first: float) -> None:
    curve = Curve.build(Constant(start=first), Horizon(before + 1), warmup=Linear(start=start, length=before))
    slopes = [curve(t + 1) - curve(t) for t in range(before)]
    assert slopes == pytest.approx([(first - start * first) / before] * before, abs=1e-14)


@settings(deadline=None, max_examples=150)
@given(RISES, LEVEL, LEVEL, LENGTHS, LENGTHS, st.integers(0, 60), st.floats(0.0, 1.0))
def test_a_cooldown_begins_where_the_schedule_arrived(
    cls: type[Schedule], first: float, last: float, n: int, after: int, held: int, share: float
) -> None:
    schedule = Cosine(start=first, end=last, length=n)
    cooldown = cls(end=share * last, length=after)  # type: ignore[call-arg]
    curve = Curve.build(schedule, Horizon(n + held + after), cooldown=cooldown)
    assert [curve(n + t) for t in range(held + 1)] == [last] * (held + 1)
    assert curve.phases[-1].name == "cooldown"
    assert all(share * last <= curve(n + held + t) <= last for t in range(after))
    assert curve(n + held + after) == curve(10**9) == share * last


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(COMBINATIONS), st.integers(60, 500), st.data())
def test_a_curve_has_no_memory(names: tuple[str, str, str], steps: int, data: st.DataObject) -> None:
    """Any step, in any order, as often as wanted."""
    curve = built(names, Horizon(steps, 20, 8))
    in_order = curve.values()
    anywhere = data.draw(st.lists(st.integers(0, steps - 1), max_size=30))
    assert [curve(t) for t in anywhere] == [in_order[t] for t in anywhere] == curve.values(anywhere)
    assert dataclasses.replace(curve).values() == in_order
    assert built(names, Horizon(steps, 20, 8)) == curve


@given(LENGTHS, LENGTHS, LENGTHS)
def test_the_parts_are_a_piecewise_schedule(before: int, n: int, after: int) -> None:
    """A curve equals ``Piecewise`` with the same phases."""
    run = Horizon(before + n + after)
    curve = Curve.build(
        Cosine(end=0.5), run, warmup=Linear(start=0.1, length=before), cooldown=Sqrt(end=0.1, length=after)
    )
    written = [Linear(start=0.1, end=1.0, length=before), Cosine(end=0.5, length=n), Sqrt(start=0.5, end=0.1)]
    assert curve.values() == Curve.build(Piecewise(phases=written), run).values()
    inner = Curve.build(Piecewise(phases=written), run).edges
    assert curve.edges == inner


@pytest.mark.parametrize(
    "schedule",
    [
        Piecewise(phases=[Linear(start=0.0, end=1.0, length=50), Constant(start=0.1)]),  # its peak is before a jump
        Cyclic(start=0.1, up=10, down=30, mode="triangular2"),
        OneCycle(up=30, three_phase=True),
        Restarts(cycles=3, decay=0.5, growth=1.5),
    ],
    ids=str,
)
def test_the_peak_is_the_highest_value(schedule: Schedule) -> None:
    curve = Curve.build(schedule, Horizon(100))
    assert curve.peak(0) == max(curve.values())

"""Schedules: a table whose rows show the shapes, and properties of all of them."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lrkit.base.errors import ConfigError
from lrkit.config.shipped_options import read_option
from lrkit.schedules import shapes
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
    Logarithmic,
    Multistep,
    OneCycle,
    Piecewise,
    Plateau,
    Polynomial,
    Product,
    RangeTest,
    Restarts,
    Rex,
    Schedule,
    Sqrt,
    Step,
    Table,
    Tanh,
    Wsd,
)
from lrkit.schedules.shapes.decay_shape import DECAYS

CONF = Path(__file__).parents[2] / "conf" / "schedule"
CONCRETE = {
    name: value
    for name, value in vars(shapes).items()
    if inspect.isclass(value) and issubclass(value, Schedule) and not name.startswith("_")
    and value.value is not Schedule.value
}  # fmt: skip

RAMP = Linear(start=0.0, end=1.0, length=4)

TABLE = [
    # schedule                                       n    steps                 multipliers
    (Constant(start=0.5),                            10,  [0, 5, 10],           [0.5, 0.5, 0.5]),
    (Plateau(),                                      10,  [0, 9],               [1, 1]),  # only the gain falls
    (Step(every=3, gamma=0.5),                       10,  [0, 2, 3, 6, 9],      [1, 1, 0.5, 0.25, 0.125]),
    (Multistep(milestones=[4, 6], gamma=0.1),        10,  [0, 3, 4, 5, 6, 9],   [1, 1, 0.1, 0.1, 0.01, 0.01]),
    (Step(every=3, gamma=2.0, start=0.25),           10,  [0, 2, 3, 6, 9],      [0.25, 0.25, 0.5, 1, 2]),  # growth
    (Multistep(milestones=[4], gamma=0.1, start=2.0), 10, [0, 4, 9],            [2, 0.2, 0.2]),
    (Exponential(gamma=2.0, every=5, start=0.25),    10,  [0, 5, 10],           [0.25, 0.5, 1]),
    (InverseTime(gamma=1.0, every=10, start=0.5),    100, [0, 10, 30],          [1 / 2, 1 / 4, 1 / 8]),
    (InverseSqrt(timescale=4, start=0.5),            100, [0, 12, 60],          [1 / 2, 1 / 4, 1 / 8]),
    (Multistep(milestones=[4, 99], gamma=0.1),       10,  [3, 4, 9],            [1, 0.1, 0.1]),  # 99 is not reached
    (Exponential(gamma=0.25, every=10),              100, [0, 5, 10, 20],       [1, 0.5, 0.25, 0.0625]),
    (Exponential(end=0.01),                          4,   [0, 1, 2, 4],         [1, 0.31622776601683794, 0.1, 0.01]),
    (Exponential(start=0.01, end=1.0),               4,   [0, 2, 4],            [0.01, 0.1, 1]),  # a warmup
    (Exponential(end=0.0, ratio=0.25),               4,   [0, 2, 4],            [1, 1 / 3, 0]),  # stretched
    (Exponential(start=0.0, end=1.0, ratio=4.0),     4,   [0, 2, 4],            [0, 1 / 3, 1]),
    (Logarithmic(base=16.0),                         15,  [0, 1, 3, 7, 15],     [1, 0.75, 0.5, 0.25, 0]),
    (Logarithmic(start=0.2, end=1.0, base=4.0),      3,   [0, 1, 3],            [0.2, 0.6, 1]),  # a warmup
    (Tanh(lower=-math.atanh(0.5), upper=math.atanh(0.5)),
                                                     4,   [0, 2, 4],            [1, 0.5, 0]),
    (Tanh(start=2.0, end=1.0, lower=0.0, upper=math.log(3.0)),
                                                     2,   [0, 1, 2],            [2, 1.375, 1]),  # tanh: 0, 1/2, 4/5
    (InverseTime(gamma=1.0, every=10),               100, [0, 10, 20, 30],      [1, 1 / 2, 1 / 3, 1 / 4]),
    (InverseSqrt(timescale=4),                       100, [0, 12, 32, 60],      [1, 1 / 2, 1 / 3, 1 / 4]),
    (InverseSqrt(timescale=1, power=0.25),           100, [0, 15, 80],          [1, 1 / 2, 1 / 3]),  # scikit-learn
    (InverseSqrt(timescale=4, power=1.0),            100, [0, 4, 8, 12],        [1, 1 / 2, 1 / 3, 1 / 4]),
    (Linear(),                                       4,   [0, 1, 2, 3, 4],      [1, 0.75, 0.5, 0.25, 0]),
    (Linear(start=0.5, end=0.1),                     4,   [0, 1, 2, 3, 4],      [0.5, 0.4, 0.3, 0.2, 0.1]),
    (Polynomial(power=2.0),                          4,   [0, 1, 2, 3, 4],      [1, 0.5625, 0.25, 0.0625, 0]),
    (Polynomial(power=0.5, end=0.2),                 4,   [0, 3, 4],            [1, 0.6, 0.2]),  # late, then steep
    (Polynomial(power=1.0, k=2.0),                   4,   [0, 1, 2, 3, 4],      [1, 0.9375, 0.75, 0.4375, 0]),
    (Polynomial(power=1.0, k=0.5),                   16,  [0, 1, 4, 9, 16],     [1, 0.75, 0.5, 0.25, 0]),  # Sqrt
    (Polynomial(power=1.0, period=4),                12,  [0, 2, 4, 5, 8, 9],   [1, 0.5, 0, 0.375, 0, 0.25]),
    (Cosine(),                                       6,   [0, 2, 3, 4, 6],      [1, 0.75, 0.5, 0.25, 0]),
    (Cosine(start=0.2, end=1.0),                     6,   [0, 2, 3, 4, 6],      [0.2, 0.4, 0.6, 0.8, 1]),
    (Cosine(power=2.0),                              6,   [0, 2, 3, 4, 6],      [1, 0.5625, 0.25, 0.0625, 0]),
    (Cosine(k=2.0),                                  6,   [0, 3, 6],            [1, 0.5 + 0.125**0.5, 0]),
    (Sqrt(),                                         16,  [0, 1, 4, 9, 16],     [1, 0.75, 0.5, 0.25, 0]),
    (Rex(),                                          4,   [0, 1, 2, 3, 4],      [1, 6 / 7, 2 / 3, 2 / 5, 0]),
    (Restarts(period=4),                             12,  [0, 2, 4, 6, 8],      [1, 0.5, 1, 0.5, 1]),
    (Restarts(period=4, growth=2, decay=0.5),        12,  [0, 2, 4, 8],         [1, 0.5, 0.5, 0.25]),
    (Restarts(cycles=3, growth=2),                   70,  [0, 5, 10, 20, 30],   [1, 0.5, 1, 0.5, 1]),  # 10 + 20 + 40
    (Restarts(cycles=3),                             10,  [0, 3, 7],            [1, 1, 1]),  # to the nearest step
    (Restarts(period=4, decay=0.5, end=0.2),         12,  [0, 2, 4, 8],         [1, 0.6, 0.6, 0.4]),  # half the height
    (Restarts(period=4, decay=0.5, end=0.2, decay_of="peak"),
                                                     16,  [0, 4, 8, 12, 14],    [1, 0.5, 0.25, 0.2, 0.2]),  # not below
    (Restarts(period=4, growth=1.5, shape="linear"), 19,  [0, 4, 9, 10, 14],    [1, 1, 1 / 6, 1, 5 / 9]),  # 4 + 6 + 9
    (Restarts(period=5, growth=1.5, shape="linear"), 20,  [5, 12, 13, 23, 24],  [1, 1 / 8, 1, 1 / 11, 1]),  # 12.5
    (Restarts(period=6, shape="linear", warmup=2, end=0.2, decay=0.5),
                                                     12,  [0, 1, 2, 4, 6, 8, 12], [0.2, 0.6, 1, 0.6, 0.2, 0.6, 0.2]),
    (Restarts(period=4, shape="linear"),             12,  [0, 1, 4, 6],         [1, 0.75, 1, 0.5]),
    (Restarts(period=4, shape=Polynomial(power=1.0, k=2.0), decay=0.5),
                                                     12,  [0, 2, 4, 6],         [1, 0.75, 0.5, 0.375]),
    (Cyclic(start=0.2, up=2, down=4),                12,  [0, 1, 2, 4, 6, 8],   [0.2, 0.6, 1, 0.6, 0.2, 1]),
    (Cyclic(start=0.0, up=2, mode="triangular2"),    12,  [2, 4, 6, 10],        [1, 0, 0.5, 0.25]),
    (Cyclic(start=0.0, up=2, mode="exp_range", gamma=0.5, every=2),
                                                     12,  [0, 2, 4, 6, 10],     [0, 0.5, 0, 0.125, 0.03125]),
    (Cyclic(start=0.2, up=2, mode="formula", formula="1 - (cycle == 2)"),
                                                     12,  [1, 2, 5, 6, 10],     [0.6, 1, 0.2, 0.2, 1]),
    (Cyclic(start=0.0, up=2, mode="exp_cycle", gamma=0.5),
                                                     12,  [1, 2, 5, 6, 10],     [0.5, 1, 0.25, 0.5, 0.25]),
    (OneCycle(up=30),                                100, [0, 15, 30, 65, 100], [0.04, 0.52, 1, 0.500002, 4e-6]),
    (OneCycle(start=0.2, end=0.0, up=4, anneal="linear", three_phase=True),
                                                     10,  [0, 2, 4, 6, 8, 9],   [0.2, 0.6, 1, 0.6, 0.2, 0.1]),
    (Wsd(decay=4),                                   10,  [0, 5, 6, 7, 10],     [1, 1, 1, 0.5, 0]),
    (Wsd(decay=4, shape="linear", end=0.2),          10,  [0, 6, 7, 8, 10],     [1, 1, 0.8, 0.6, 0.2]),
    (Wsd(decay=3, shape="cosine"),                   3,   [0, 1, 2, 3],         [1, 0.75, 0.25, 0]),  # all of it decay
    (Wsd(decay=4, shape="exponential"),              10,  [5, 6, 8, 10],        [1, 1, (0.1**0.5 - 0.1) / 0.9, 0]),
    (Wsd(decay=4, shape=Polynomial(power=1.0, k=2.0), end=0.2),
                                                     10,  [6, 7, 8, 10],        [1, 0.95, 0.8, 0.2]),  # 1-square
    (Wsd(decay=2, shape="linear", milestones=[4, 8]),
                                                     14,  [1, 3, 4, 5, 7, 8, 12, 13, 14],
                                                                                [1, 0.5, 1, 1, 0.5, 1, 1, 0.5, 0]),
    (RangeTest(start=0.01),                          4,   [0, 1, 2, 4],         [0.01, 0.1**1.5, 0.1, 1]),
    (RangeTest(start=0.2, shape="linear"),           4,   [0, 1, 2, 4],         [0.2, 0.4, 0.6, 1]),
    (Piecewise(phases=[RAMP, Constant(length=2), Sqrt()]),
                                                     10,  [0, 2, 4, 6, 7, 10],  [0, 0.5, 1, 1, 0.5, 0]),
    (Piecewise(phases=[RAMP]),                       10,  [3, 4, 9],            [0.75, 1, 1]),  # holds its end
    (Piecewise(phases=[Step(every=2, gamma=0.5, length=4)]),
                                                     10,  [1, 2, 4, 9],         [1, 0.5, 0.5, 0.5]),  # also of a stair
    (Formula(),                                      6,   [0, 2, 3, 4, 6],      [1, 0.75, 0.5, 0.25, 0]),  # as Cosine
    (Formula(formula="0.95**s"),                     10,  [0, 1, 2],            [1, 0.95, 0.9025]),
    (Formula(formula="0.1 if u >= 0.5 else 1"),      10,  [0, 4, 5, 10],        [1, 1, 0.1, 0.1]),
    (Formula(formula="0.5**floor(epoch)", epoch_length=4),
                                                     10,  [0, 3, 4, 8, 10],     [1, 1, 0.5, 0.25, 0.25]),
    (Table(table=[[2, 1.0], [4, 0.5], [8, 0.1]]),    10,  [0, 2, 3, 6, 8, 10],  [1, 1, 0.75, 0.3, 0.1, 0.1]),
    (Table(table=[[0, 1.0], [4, 0.5]], interpolate="previous"),
                                                     8,   [0, 3, 4, 8],         [1, 1, 0.5, 0.5]),
    (Table(table=[[0, 1.0], [4, 0.5]], interpolate="previous"),
                                                     4,   [0, 3, 4],            [1, 1, 0.5]),
    (Table(table=[[0, 0.0], [6, 1.0]], interpolate="cosine"),
                                                     6,   [0, 2, 3, 4, 6],      [0, 0.25, 0.5, 0.75, 1]),
    (Table(table=[[0, 0.2], [4, 0.8]], normalise="peak"),
                                                     8,   [0, 2, 4, 8],         [0.25, 0.625, 1, 1]),
    (Table(table=[[0, 0.2], [4, 0.8]], normalise="first"),
                                                     8,   [0, 2, 4, 8],         [1, 2.5, 4, 4]),
    (Product(factors=[Linear(), Step(every=2, gamma=0.5)]),
                                                     4,   [0, 1, 2, 3, 4],      [1, 0.75, 0.25, 0.125, 0]),
    (Product(factors=[RAMP, InverseTime(gamma=1.0, every=10)]),
                                                     20,  [0, 2, 4, 10],        [0, 0.5 / 1.2, 1 / 1.4, 0.5]),
]  # fmt: skip

MOMENTUM = [
    # three_phase  steps                      momentum
    (False,        [0, 2, 4, 7, 10],          [0.95, 0.90, 0.85, 0.90, 0.95]),
    (True,         [0, 2, 4, 6, 8, 9, 10],    [0.95, 0.90, 0.85, 0.90, 0.95, 0.95, 0.95]),
]  # fmt: skip


CYCLING = OneCycle(up=2, anneal="linear", momentum_start=0.95, momentum_peak=0.85)
CYCLING_FOUR = dataclasses.replace(CYCLING, length=4)

#: Schedules with a schedule inside that moves momentum; the optimizer's is 0.9.
INNER_MOMENTUM = [
    # schedule, n
    #   steps, momentum
    (Piecewise(phases=[Linear(length=2), CYCLING_FOUR, Sqrt()]), 10,
        [0, 1, 2, 3, 4, 5, 6, 9], [0.9, 0.9, 0.95, 0.9, 0.85, 0.9, 0.9, 0.9]),
    (Piecewise(phases=[Linear(length=2), CYCLING_FOUR]), 10,
        [1, 2, 4, 6, 9],          [0.9, 0.95, 0.85, 0.95, 0.95]),  # it holds its end
    (Piecewise(phases=[CYCLING_FOUR, Cyclic(up=2, momentum_start=0.8, momentum_peak=0.7)]), 8,
        [0, 2, 4, 5, 6],          [0.95, 0.85, 0.8, 0.75, 0.7]),
    (Piecewise(phases=[CYCLING_FOUR, Sqrt()], skip=2, scale=0.5), 8,
        [0, 1, 2],                [0.85, 0.9, 0.9]),
    (Product(factors=[Linear(), CYCLING]), 4,
        [0, 1, 2, 3],             [0.95, 0.9, 0.85, 0.9]),
    (Product(factors=[CYCLING_FOUR, Linear()]), 10,
        [0, 2, 4, 9],             [0.95, 0.85, 0.95, 0.95]),  # it holds its end
    (Product(factors=[CYCLING_FOUR, Linear()], update_every=2), 10,
        [0, 1, 2, 3],             [0.95, 0.95, 0.85, 0.85]),
    (Product(factors=[Step(), Piecewise(phases=[Linear(length=1), CYCLING])]), 5,
        [0, 1, 3, 4],             [0.9, 0.95, 0.85, 0.9]),
]  # fmt: skip


def ids(row: Any) -> str | None:
    return str(row) if isinstance(row, Schedule) else None


@pytest.mark.parametrize(("schedule", "n", "steps", "multipliers"), TABLE, ids=ids)
def test_the_shape(schedule: Schedule, n: int, steps: list[int], multipliers: list[float]) -> None:
    assert [schedule(s, n) for s in steps] == pytest.approx(multipliers, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("three_phase", "steps", "momentum"), MOMENTUM)
def test_momentum_moves_against_one_cycle(three_phase: bool, steps: list[int], momentum: list[float]) -> None:
    cycle = OneCycle(up=4, anneal="linear", three_phase=three_phase, momentum_start=0.95, momentum_peak=0.85)
    dip = cycle.momentum(0.9)
    assert dip is not None
    assert [dip(s, 10) for s in steps] == pytest.approx(momentum, rel=1e-12)
    assert OneCycle(up=4).momentum(0.9) is None


@pytest.mark.parametrize(("schedule", "n", "steps", "momentum"), INNER_MOMENTUM, ids=ids)
def test_a_schedule_inside_moves_momentum(schedule: Schedule, n: int, steps: list[int], momentum: list[float]) -> None:
    moved = schedule.momentum(0.9)
    assert moved is not None
    assert [moved.resolved(Horizon(n))(s, n) for s in steps] == pytest.approx(momentum, rel=1e-12)
    assert Piecewise(phases=[RAMP, Linear()]).momentum(0.9) is None
    assert Product(factors=[RAMP, Linear()]).momentum(0.9) is None


def test_a_schedule_inside_may_not_move_momentum_where_another_does() -> None:
    inner = Product(factors=[Linear(), Piecewise(phases=[RAMP, CYCLING]), CYCLING])
    both = r"^factors\[1\].phases\[1\].momentum_start and factors\[2\].momentum_start both drive momentum: set all but "
    with pytest.raises(ConfigError, match=both):
        inner.momentum(0.9)
    shape = dataclasses.replace(CYCLING, start=1.0, end=0.0)
    with pytest.raises(ConfigError, match=r"^shape.momentum_start must be null: a decay of Wsd leaves momentum alone"):
        Wsd(decay=4, shape=shape).resolved(Horizon(10))


# One dataclass, one YAML, one row.


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def option(name: str) -> dict[str, Any]:
    """The node ``schedule`` of an option, with the options that every schedule has."""
    return read_option("schedule", name, "schedule")


def test_every_schedule_has_an_option_and_a_row() -> None:
    assert {snake(name) for name in CONCRETE} == {path.stem for path in CONF.glob("*.yaml")} - {"custom"}
    assert set(CONCRETE.values()) == {type(schedule) for schedule, *_ in TABLE}
    assert set(shapes.__all__) == {*CONCRETE, "Schedule", "Endless"}


@pytest.mark.parametrize("name", CONCRETE)
def test_the_option_lists_every_key(name: str) -> None:
    node = option(snake(name))
    assert node.pop("_target_") == f"lrkit.schedules.{name}"
    assert set(node) == {field.name for field in dataclasses.fields(CONCRETE[name])} - {"overlap"}  # a warmup's
    assert (CONF / f"{snake(name)}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("name", CONCRETE)
def test_the_shape_depends_on_progress_alone(name: str) -> None:
    """Twice the devices, half the steps: the same bits at the same share of the run."""
    schedule = hydra.utils.instantiate(option(snake(name)), _convert_="all")
    assert schedule.describe().split(" ")[0] == snake(name)  # the plan names a schedule as the user types it
    few, many = schedule.resolved(Horizon(700, 100, 64)), schedule.resolved(Horizon(2800, 400, 16))
    assert [few(s, 700) for s in range(700)] == [many(4 * s, 2800) for s in range(700)]
    assert few.final(700) == many.final(2800)
    assert [4 * e for e in few.edges(700)] == many.edges(2800)


# Properties for all numbers.

LEVEL = st.floats(0.0, 2.0, allow_subnormal=False)
POSITIVE = st.floats(1e-6, 2.0)
FACTOR = st.floats(0.01, 1.0)
EXPONENT = st.just(1.0) | st.floats(0.1, 5.0)
RATIO = st.floats(1e-6, 0.999) | st.floats(1.001, 1e6)
GROWTH = FACTOR | st.floats(1.0, 1.05)
Draw = Callable[[st.SearchStrategy[Any]], Any]


def apart(draw: Draw, levels: st.SearchStrategy[float]) -> dict[str, float]:
    """Two ends: any, or equal, or so close that rounding between them shows."""
    start = draw(levels)
    return {"start": start, "end": draw(levels | st.sampled_from([start, math.nextafter(start, 3.0)]))}


def ends(cls: type[Schedule]) -> Callable[[Draw, int], Schedule]:
    return lambda draw, n: cls(**apart(draw, LEVEL))  # type: ignore[arg-type]


def steps(n: int) -> st.SearchStrategy[int]:
    return st.integers(1, n)


def polynomial(draw: Draw, n: int) -> Schedule:
    period = draw(st.none() | steps(n))
    return Polynomial(power=draw(EXPONENT), k=draw(EXPONENT), period=period, **apart(draw, LEVEL))  # type: ignore[arg-type]


def multistep(draw: Draw, n: int) -> Schedule:
    first = draw(st.integers(1, n - 1))
    later = draw(st.sets(st.integers(first + 1, 2 * n), max_size=3))
    return Multistep(milestones=[first, *sorted(later)], gamma=draw(GROWTH), start=draw(LEVEL))


def restarts(draw: Draw, n: int) -> Schedule:
    common = {"decay": draw(FACTOR), "shape": draw(decay_shapes()), **apart(draw, LEVEL)}
    if common["start"] >= common["end"]:
        common["decay_of"] = draw(st.sampled_from(["height", "peak"]))
    if draw(st.booleans()):
        period = draw(steps(n))
        if period > 1:
            common["warmup"] = draw(st.none() | st.integers(1, period - 1))
        return Restarts(period=period, growth=draw(st.floats(1.0, 3.0)), **common)
    cycles = draw(st.integers(1, min(n, 4)))
    return Restarts(cycles=cycles, growth=draw(st.sampled_from([1, 1.5, 2])) if n >= 15 else 1, **common)


def cyclic(draw: Draw, n: int) -> Schedule:
    low, high = sorted([draw(LEVEL), draw(LEVEL)])
    mode = draw(st.sampled_from(["triangular", "triangular2", "exp_range", "exp_cycle", "formula"]))
    formula = draw(st.sampled_from(["1/cycle", "0.5*(1+sin(cycle))", 0.5])) if mode == "formula" else None
    down = draw(st.none() | steps(n))
    return Cyclic(
        start=low, peak=high, up=draw(steps(n)), down=down, mode=mode, gamma=draw(FACTOR), every=1, formula=formula
    )


def one_cycle(draw: Draw, n: int) -> Schedule:
    start, end, peak = sorted([draw(LEVEL), draw(LEVEL), draw(LEVEL)])
    if draw(st.booleans()):
        start, end = end, start
    three = n > 2 and draw(st.booleans())
    up = draw(st.integers(1, (n - 1) // 2 if three else n - 1))
    anneal = draw(st.sampled_from(["cosine", "linear"]))
    return OneCycle(start=start, peak=peak, end=end, up=up, anneal=anneal, three_phase=three)


def decay_shapes() -> st.SearchStrategy[Any]:
    """The shape of a decay inside another schedule: a name, or a schedule with options of its own."""
    own = st.builds(Polynomial, power=EXPONENT, k=EXPONENT) | st.builds(Cosine, power=EXPONENT, k=EXPONENT)
    return st.sampled_from(sorted(DECAYS)) | own | st.builds(Exponential, end=st.just(0.0), ratio=RATIO)


def wsd(draw: Draw, n: int) -> Schedule:
    shape = draw(decay_shapes())
    milestones = draw(st.none() | st.sets(st.integers(1, n - 1), min_size=1, max_size=3).map(sorted))
    places = [0, *(milestones or ()), n]
    decay = draw(st.integers(1, min(b - a for a, b in pairwise(places))))
    return Wsd(decay=decay, shape=shape, milestones=milestones, **apart(draw, LEVEL))  # type: ignore[arg-type]


def exponential(draw: Draw, n: int) -> Schedule:
    form = draw(st.sampled_from(["gamma", "end", "ratio"]))
    if form == "gamma":
        return Exponential(start=draw(POSITIVE), gamma=draw(GROWTH), every=draw(steps(n)))
    if form == "ratio":
        return Exponential(ratio=draw(RATIO), **apart(draw, LEVEL))  # type: ignore[arg-type]
    return Exponential(**apart(draw, POSITIVE))  # type: ignore[arg-type]


def piecewise(draw: Draw, n: int) -> Schedule:
    cut = draw(st.integers(1, n - 1))
    return Piecewise(phases=[Cosine(length=cut, **apart(draw, LEVEL)), ends(Sqrt)(draw, n)])


def range_test(draw: Draw, n: int) -> Schedule:
    low, high = sorted(draw(st.lists(POSITIVE, min_size=2, max_size=2, unique=True)))
    return RangeTest(start=low, end=high, shape=draw(st.sampled_from(["exponential", "linear"])))


def formula(draw: Draw, n: int) -> Schedule:
    """A formula from 1 downwards."""
    factor, power, k = draw(FACTOR), draw(st.floats(0.1, 5.0)), draw(steps(n))
    shapes = ["0.5*(1+cos(pi*u))", f"(1-u)**{power}", f"{factor}**(s/{k})", f"{factor}**floor(epoch)",
              f"1/(1+{power}*s)", f"{factor} if s >= {k} else 1", f"max({factor}, 1-s/n)"]  # fmt: skip
    return Formula(formula=draw(st.sampled_from(shapes)), epoch_length=draw(steps(n)))


def table(draw: Draw, n: int) -> Schedule:
    places = sorted(draw(st.sets(st.integers(0, 2 * n), min_size=1, max_size=5)))
    kind = draw(st.sampled_from(["linear", "previous", "cosine"]))
    return Table(table=[(place, draw(LEVEL)) for place in places], interpolate=kind)


def product(draw: Draw, n: int) -> Schedule:
    return Product(factors=[ends(Cosine)(draw, n), Linear(length=draw(steps(n)), **apart(draw, LEVEL))])


MAKE: dict[type[Schedule], Callable[[Draw, int], Schedule]] = {
    **{cls: ends(cls) for cls in (Linear, Sqrt, Rex)},
    Cosine: lambda draw, n: Cosine(power=draw(EXPONENT), k=draw(EXPONENT), **apart(draw, LEVEL)),  # type: ignore[arg-type]
    Polynomial: polynomial,
    Logarithmic: lambda draw, n: Logarithmic(base=draw(st.floats(1.001, 1e6)), **apart(draw, LEVEL)),
    Tanh: lambda draw, n: Tanh(lower=draw(st.floats(-9, 0)), upper=draw(st.floats(0.01, 9)), **apart(draw, LEVEL)),
    Constant: lambda draw, n: Constant(start=draw(LEVEL)),
    Plateau: lambda draw, n: Plateau(start=draw(LEVEL)),
    Step: lambda draw, n: Step(every=draw(steps(n)), gamma=draw(GROWTH), start=draw(LEVEL)),
    InverseTime: lambda draw, n: InverseTime(gamma=draw(POSITIVE), every=draw(steps(n)), start=draw(LEVEL)),
    InverseSqrt: lambda draw, n: InverseSqrt(timescale=draw(steps(n)), power=draw(EXPONENT), start=draw(LEVEL)),
    Multistep: multistep, Exponential: exponential, Restarts: restarts, Cyclic: cyclic, OneCycle: one_cycle, Wsd: wsd,
    Piecewise: piecewise, RangeTest: range_test, Formula: formula, Table: table, Product: product,
}  # fmt: skip


@st.composite
def cases(draw: Draw, *classes: type[Schedule]) -> tuple[Any, int]:
    """A schedule, all its lengths in steps, and the length of its phase."""
    n = draw(st.integers(2, 300))
    return MAKE[draw(st.sampled_from(classes or tuple(MAKE)))](draw, n), n


def levels(schedule: Any) -> list[float]:
    """The multipliers that a schedule names; it never leaves the range between them."""
    if isinstance(schedule, Piecewise):
        return [level for phase in schedule.phases for level in levels(phase)]
    if isinstance(schedule, Product):
        return [math.prod(map(pick, map(levels, schedule.factors))) for pick in (min, max)]
    if isinstance(schedule, Table):
        return [value for _, value in schedule.table]
    named = [getattr(schedule, name, None) for name in ("start", "peak", "end")]
    if isinstance(schedule, Step | Multistep | Exponential | InverseTime | InverseSqrt) and named[-1] is None:
        named.append(0.0 if isinstance(schedule, InverseTime | InverseSqrt) or schedule.gamma <= 1 else math.inf)
    return [level for level in named if level is not None] or [0.0, 1.0]


def test_every_schedule_is_drawn() -> None:
    assert set(MAKE) == set(CONCRETE.values())


@settings(deadline=None, max_examples=300)
@given(cases())
@example((Exponential(start=0.2424068379431713, end=0.24240683794317133), 8))
def test_values_are_finite_and_never_outside_of_the_levels(case: tuple[Any, int]) -> None:
    schedule, n = case
    low, high = min(levels(schedule)), max(levels(schedule))
    values = [*(schedule(s, n) for s in range(n)), schedule.final(n)]
    assert all(math.isfinite(m) and 0.0 <= low <= m <= high for m in values)  # exactly: not by one ulp


@settings(deadline=None, max_examples=200)
@given(cases())
def test_the_first_and_the_last_value_are_exact(case: tuple[Any, int]) -> None:
    schedule, n = case
    first, last = (schedule.phases[0], schedule.phases[-1]) if isinstance(schedule, Piecewise) else (schedule, schedule)
    begins = {
        Product: lambda: math.prod(f.start for f in schedule.factors),
        Table: lambda: schedule.table[0][1],
        Restarts: lambda: schedule.start if schedule.warmup is None else schedule.end,
    }
    assert schedule(0, n) == begins.get(type(schedule), lambda: getattr(first, "start", 1.0))()
    stairs = getattr(schedule, "interpolate", "") == "previous"
    if stairs or isinstance(schedule, Step | Multistep | Constant):
        assert schedule.final(n) == schedule(n - 1, n)
    elif getattr(last, "end", None) is not None and getattr(last, "period", None) is None:
        assert schedule.final(n) == last.end
    elif not isinstance(schedule, Restarts):
        assert schedule.final(n) == schedule(n, n)


@settings(deadline=None, max_examples=200)
@given(cases(*(cls for cls in MAKE if cls not in (Restarts, Cyclic, OneCycle, Piecewise, Table, Product))))
def test_it_goes_one_way(case: tuple[Any, int]) -> None:
    schedule, n = case
    for several in ("milestones", "period"):  # decays, one after the other
        if getattr(schedule, several, None) is not None and isinstance(schedule, Wsd | Polynomial):
            schedule = dataclasses.replace(schedule, **{several: None})
    values = [*(schedule(s, n) for s in range(n)), schedule.final(n)]
    sign = 1.0 if values[-1] >= values[0] else -1.0
    assert all(sign * (b - a) >= -1e-15 for a, b in pairwise(values))  # but for rounding


@settings(deadline=None, max_examples=200)
@given(cases())
def test_a_wrapper_around_one_schedule_is_not_seen(case: tuple[Any, int]) -> None:
    schedule, n = case
    wrapped = Piecewise(phases=[schedule])
    assert [wrapped(s, n) for s in range(n)] == [schedule(s, n) for s in range(n)]
    assert (wrapped.final(n), wrapped.edges(n)) == (schedule.final(n), schedule.edges(n))


@settings(deadline=None, max_examples=200)
@given(cases(), cases())
def test_two_schedules_in_a_row_are_the_one_and_then_the_other(a: tuple[Any, int], b: tuple[Any, int]) -> None:
    (first, m), (second, n) = a, b
    both = Piecewise(phases=[dataclasses.replace(first, length=m), second])
    assert [both(t, m + n) for t in range(m)] == [first(t, m) for t in range(m)]
    assert [both(m + t, m + n) for t in range(n)] == [second(t, n) for t in range(n)]
    assert both.final(m + n) == second.final(n)
    assert both.edges(m + n) == [*first.edges(m), m, *(m + e for e in second.edges(n))]


@settings(deadline=None, max_examples=200)
@given(cases())
def test_edges_lie_inside_in_order(case: tuple[Any, int]) -> None:
    schedule, n = case
    edges = schedule.edges(n)
    assert edges == sorted(set(edges))
    assert all(isinstance(e, int) and 0 < e < n for e in edges)


@settings(deadline=None, max_examples=100)
@given(st.data(), st.integers(2, 300))
def test_edges_are_where_the_jumps_are(data: st.DataObject, n: int) -> None:
    drop = data.draw(st.floats(0.1, 0.9))
    several = {
        Step(every=data.draw(steps(n)), gamma=drop),
        Multistep(milestones=tuple(sorted(data.draw(st.sets(st.integers(1, n - 1), min_size=1)))), gamma=drop),
    }
    for schedule in several:
        assert schedule.edges(n) == [s for s in range(1, n) if schedule(s, n) < schedule(s - 1, n)]
    sgdr = Restarts(period=data.draw(st.integers(2, 50)), growth=data.draw(st.floats(1, 3)), decay=0.9)
    assert sgdr.edges(n) == [s for s in range(1, n) if sgdr(s, n) > sgdr(s - 1, n)]


@settings(deadline=None, max_examples=100)
@given(cases())
def test_resolving_what_is_resolved_changes_nothing(case: tuple[Any, int]) -> None:
    schedule, n = case
    once = schedule.resolved(Horizon(n))
    assert once.resolved(Horizon(7 * n)) == once
    assert [once(s, n) for s in range(n)] == [schedule(s, n) for s in range(n)]


def test_lengths_become_steps() -> None:
    horizon = Horizon(1000, 100, 64)
    assert Step(every="2ep").resolved(horizon) == Step(every=200)
    assert Multistep(milestones=["50%", "8ep"]).resolved(horizon) == Multistep(milestones=(500, 800))
    nested = Piecewise(phases=[Step(every="6400sp", length="50%"), Linear()]).resolved(horizon)
    assert nested == Piecewise(phases=(Step(every=100, length=500), Linear()))
    assert Exponential(end=0.1).resolved(Horizon(7)) == Exponential(end=0.1, every=1)  # no epochs needed


@pytest.mark.parametrize("schedule", [schedule for schedule, *_ in TABLE], ids=ids)
def test_a_schedule_that_needs_no_end_is_the_same_in_any_phase(schedule: Schedule) -> None:
    same = [schedule(s, 100) for s in range(100)] == [schedule(s, 2**53) for s in range(100)]
    assert same != schedule.bounded


# Values that are refused.

NO_SHAPE = f"shape must be one of {', '.join(DECAYS)}, or a schedule: {{name: polynomial, k: 2}}. "
BAD = [
    # class      arguments                              the sentence
    (Constant,   {"start": -0.1},                       "start must be >= 0. Received: -0.1"),
    (Constant,   {"start": math.nan},                   "start must be >= 0. Received: nan"),
    (Constant,   {"start": "1"},                        "start must be a number. Received: '1'"),
    (Constant,   {"start": True},                       "start must be a number. Received: True"),
    (Constant,   {"start": None},                       "start must be a number. Received: None"),
    (Constant,   {"length": 1.5},                       "length must be a whole number of steps"),
    (Step,       {"gamma": -1.5},                       "gamma must be > 0. Received: -1.5"),
    (Step,       {"gamma": 0},                          "gamma must be > 0. Received: 0"),
    (Step,       {"every": 0},                          "every must be longer than 0. Received: 0"),
    (Step,       {"every": None},                       "every must be a length: 500 (optimizer steps), 5%"),
    (Step,       {"every": 1.0},                        "every must be 1 for one step, or 100%"),
    (Multistep,  {"milestones": []},                    "milestones must not be empty: for no drops use schedule=con"),
    (Multistep,  {"milestones": "50%"},                 "milestones must be a list of durations, such as [50%, 75%]"),
    (Multistep,  {"milestones": 50},                    "milestones must be a list of durations"),
    (Multistep,  {"milestones": [5, 0]},                "milestones[1] must be longer than 0. Received: 0"),
    (Multistep,  {"milestones": ["5x"]},                "milestones[0] must be a length"),
    (Exponential, {},                                   "gamma or `end` must be set, and the other one null"),
    (Exponential, {"gamma": 0.9, "end": 0.1},           "gamma or `end` must be set, and the other one null"),
    (Exponential, {"end": 0},                           "end must be > 0, or >= 0 with `ratio`. Received: 0"),
    (Exponential, {"end": 0.1, "start": 0},             "start must be > 0, or >= 0 with `ratio`. Received: 0"),
    (Exponential, {"end": -1},                          "end must be >= 0. Received: -1"),
    (Exponential, {"gamma": 0.5, "start": 0},           "start must be > 0. Received: 0"),
    (Exponential, {"gamma": 0.5, "ratio": 0.5},         "ratio is a form of the decay to `end`: set gamma to null"),
    (Exponential, {"end": 0, "ratio": 1},               "ratio must not be 1, which would be a straight line: use Lin"),
    (Exponential, {"end": 0, "ratio": 0},               "ratio must be > 0. Received: 0"),
    (Logarithmic, {"base": 1},                          "base must be > 1. Received: 1"),
    (Tanh,       {"lower": 0.5},                        "lower must be <= 0. Received: 0.5"),
    (Tanh,       {"lower": -math.inf},                  "lower must be <= 0. Received: -inf"),
    (Tanh,       {"upper": 0},                          "upper must be > 0. Received: 0"),
    (InverseSqrt, {"power": 0},                         "power must be > 0. Received: 0"),
    (InverseTime, {"gamma": -1},                        "gamma must be > 0. Received: -1"),
    (InverseSqrt, {"timescale": "0%"},                  "timescale must be longer than 0. Received: '0%'"),
    (Linear,     {"end": -1e-9},                        "end must be >= 0. Received: -1e-09"),
    (Polynomial, {"power": 0},                          "power must be > 0. Received: 0"),
    (Polynomial, {"k": 0},                              "k must be > 0. Received: 0"),
    (Polynomial, {"period": 0},                         "period must be longer than 0. Received: 0"),
    (Cosine,     {"k": -1},                             "k must be > 0. Received: -1"),
    (Cosine,     {"power": None},                       "power must be a number. Received: None"),
    (Polynomial, {"power": math.inf},                   "power must be > 0. Received: inf"),
    (Restarts,   {},                                    "period or `cycles` must be set, and the other one null"),
    (Restarts,   {"period": 5, "cycles": 3},            "period or `cycles` must be set, and the other one null"),
    (Restarts,   {"cycles": 0},                         "cycles must be a whole number >= 1. Received: 0"),
    (Restarts,   {"cycles": 2.5},                       "cycles must be a whole number >= 1. Received: 2.5"),
    (Restarts,   {"cycles": True},                      "cycles must be a whole number >= 1. Received: True"),
    (Restarts,   {"period": 5, "growth": 0.5},          "growth must be >= 1. Received: 0.5"),
    (Restarts,   {"period": 5, "decay": 1.1},           "decay must be in (0, 1]. Received: 1.1"),
    (Restarts,   {"period": 5, "decay_of": "rate"},     "decay_of must be height or peak. Received: 'rate'"),
    (Restarts,   {"period": 5, "decay_of": "peak", "end": 2.0}, "decay_of must be height where `start` is below `end`"),
    (Restarts,   {"period": 5, "shape": "step"},        "shape must be one of sqrt, linear, cosine, exponential, log"),
    (Cyclic,     {"mode": "formula"},                   "formula must be set with mode=formula. Received: None"),
    (Cyclic,     {"formula": "cycle"},                  "formula has no effect with mode=triangular. Received"),
    (Cyclic,     {"mode": "formula", "formula": "u"},   "formula must not have the unknown name u"),
    (Cyclic,     {"mode": "formula", "formula": [1]},   "formula must be a text such as"),
    (Cyclic,     {"mode": "formula", "formula": "2"},   "formula must be in [0, 1], and is 2.0 in cycle 1. Received"),
    (Cyclic,     {"momentum_start": 0.9},               "momentum_start and momentum_peak must be set together"),
    (Cyclic,     {"momentum_start": 0.9, "momentum_peak": 1.0}, "momentum_peak must be below 1"),
    (Cyclic,     {"start": 2.0},                        "start must not be above schedule.peak (1.0). Received: 2.0"),
    (Cyclic,     {"mode": "square"},                    "mode must be one of triangular, triangular2, exp_range, exp_"),
    (Cyclic,     {"down": 0},                           "down must be longer than 0. Received: 0"),
    (OneCycle,   {"start": 2.0},                        "peak must not be below start (2.0) or end (4e-06)"),
    (OneCycle,   {"end": 2.0},                          "peak must not be below start (0.04) or end (2.0)"),
    (OneCycle,   {"anneal": "cos"},                     "anneal must be cosine or linear. Received: 'cos'"),
    (OneCycle,   {"three_phase": 1},                    "three_phase must be true or false. Received: 1"),
    (OneCycle,   {"momentum_peak": 0.85},               "momentum_start and momentum_peak must be set together"),
    (OneCycle,   {"momentum_start": 1.5, "momentum_peak": 0.8}, "momentum_start must be in [0, 1]. Received: 1.5"),
    (Wsd,        {"shape": "step"},                     NO_SHAPE + "Received: 'step'"),
    (Wsd,        {"shape": None},                       NO_SHAPE + "Received: None"),
    (Wsd,        {"shape": Step()},                     "shape must be a schedule from `start` to `end`, such as Poly"),
    (Wsd,        {"shape": Linear(length=5)},           "shape.length must not be set: the decay has a length. Recei"),
    (Wsd,        {"shape": Linear(start=0.5)},          "shape must leave out `start` and `end`, which Wsd sets"),
    (Wsd,        {"shape": Exponential(end=0.5)},       "shape must leave out `start` and `end`, which Wsd sets"),
    (Wsd,        {"shape": Exponential(gamma=0.5)},     "shape.gamma or `end` must be set, and the other one null"),
    (Wsd,        {"milestones": []},                    "milestones must not be empty: for one decay use null"),
    (Wsd,        {"milestones": "50%"},                 "milestones must be a list of durations, such as [50%, 75%]"),
    (Wsd,        {"milestones": [5, 0]},                "milestones[1] must be longer than 0. Received: 0"),
    (Wsd,        {"decay": 0},                          "decay must be longer than 0. Received: 0"),
    (Piecewise,  {},                                    "phases must be a list of schedules, each with a length"),
    (Piecewise,  {"phases": [{"start": 1}]},            "phases[0] must be a schedule, such as {name: linear, end: "),
    (Piecewise,  {"phases": [Linear(), Linear()]},      "phases[0].length must be set: only the last phase may take"),
    (Product,    {},                                    "factors must be a list of schedules. Received: ()"),
    (Product,    {"factors": [Linear(), "cosine"]},     "factors[1] must be a schedule, such as {name: linear, end: "),
    (Formula,    {"formula": "1-x"},                    "formula must not have the unknown name x. "),
    (Formula,    {"formula": ["u"]},                    "formula must be a text such as '0.5*(1+cos(pi*u))'. Recei"),
    (Formula,    {"formula": True},                     "formula must be a text such as '0.5*(1+cos(pi*u))'. Recei"),
    (Formula,    {"epoch_length": 0},                   "epoch_length must be longer than 0. Received: 0"),
    (Table,      {"table": []},                         "table must be a .csv or .json file, or a list such as [["),
    (Table,      {"table": "rates.txt"},                "table must be a .csv or .json file, or a list such as [["),
    (Table,      {"table": [0.5]},                      "table[0] must be a place and a value, such as [50%, 0.1]"),
    (Table,      {"table": [[0, 1], [5, -1]]},          "table[1] must have a value >= 0, a multiplier of the base"),
    (Table,      {"table": [[0, 1], [5, math.nan]]},    "table[1] must have a value >= 0, a multiplier of the base"),
    (Table,      {"table": [[0, 1], ["5x", 1]]},        "table[1] must be a length: 500 (optimizer steps), 5%"),
    (Table,      {"table": [[5, 1], [5, 1]]},           "table[1] must have a place after 5, that of the row befor"),
    (Table,      {"table": [["9%", 1], [1, 1], [0, 1]]}, "table[2] must have a place after 1, that of the row befo"),
    (Table,      {"table": [[0, 1]] * 10001},           "table must have at most 10000 rows, and has 10001"),
    (Table,      {"interpolate": "spline"},             "interpolate must be one of linear, previous, cosine. Rece"),
    (Table,      {"normalise": "last"},                 "normalise must be peak or first. Received: 'last'"),
    (Table,      {"table": [[0, 0], [5, 1]], "normalise": "first"}, "normalise must divide by a value > 0, and it is "),
    (Table,      {"column": "lr"},                      "column must be null where the table is a list: it chooses"),
]  # fmt: skip

TOO_LONG = [
    # schedule                                        n    the sentence
    (OneCycle(up=10),                                 10,  "up must leave steps for the way down: the phase has 10 s"),
    (OneCycle(up=5, three_phase=True),                10,  "up must leave steps for the way down: the phase has 10 s"),
    (Wsd(decay=11),                                   10,  "decay must not be longer than the phase, which has 10 st"),
    (Cyclic(up=2, mode="formula", formula="cycle/2"), 10, "formula must be in [0, 1], and is 1.5 in cycle 3. Received"),
    (Cyclic(up=2, mode="formula", formula="3-cycle if cycle > 2 else 1"),
                                                      20, "formula must be a finite number >= 0, and is -1.0 in cyc"),
    (Restarts(cycles=3, growth=2, warmup=2),          14,  "warmup must be shorter than a cycle, and one has 2 steps"),
    (Restarts(period=4, warmup=4),                    14,  "warmup must be shorter than a cycle, and one has 4 steps"),
    (Wsd(decay=4, milestones=[3]),                    10,  "decay must not be longer than the 3 steps between step 0"),
    (Wsd(decay=4, milestones=[5, 8]),                 10,  "decay must not be longer than the 3 steps between step 5"),
    (Wsd(decay=1, milestones=[5, 10]),                10,  "milestones must lie before the end of the schedule, which"),
    (Wsd(decay=1, milestones=[5, 11]),                10,  "milestones must lie before the end of the schedule, which"),
    (Piecewise(phases=[RAMP, RAMP, RAMP]),            10,  "phases[2].length must fit: 2 of 10 steps are left. Recei"),
    (Piecewise(phases=[RAMP, Linear()]),              4,   "phases[1].length must fit: 0 of 4 steps are left. Receiv"),
    (Restarts(cycles=11),                             10,  "cycles must leave each cycle at least one of the 10 step"),
    (Restarts(cycles=5, growth=2),                    10,  "cycles must leave each cycle at least one of the 10 step"),
    (Multistep(milestones=[10]),                      10,  "milestones must lie before the end of the schedule"),
    (Product(factors=[Linear(), Linear(length=11)]),  10,  "factors[1].length must be in [1, 10], the steps of the s"),
    (Product(factors=[Step(every=1), Wsd(decay=11)]), 10,  "decay must not be longer than the phase, which has 10 st"),
    (Formula(formula="1-u*1.1"),                      20,  "formula must be a finite number >= 0, and is -0."),
    (Formula(formula="1/(s-7)**2"),                   20,  "formula divides by zero at step 7 of 20. Received: '1/("),
    (Formula(formula="1/(s-7e3)**2"),                 9**5, "formula divides by zero at step 7000 of 59049"),
    (Formula(formula="sqrt(0.9-u)"),                  10**7, "formula is not a real number (such as the root of a neg"),
]  # fmt: skip


@pytest.mark.parametrize(("cls", "arguments", "sentence"), BAD)
def test_bad_arguments(cls: type[Schedule], arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cls(**arguments)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(("schedule", "n", "sentence"), TOO_LONG, ids=ids)
def test_what_does_not_fit_is_refused(schedule: Schedule, n: int, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        schedule(0, n)
        schedule.edges(n)
    assert str(caught.value).startswith(sentence)


def test_a_decay_has_the_shapes_of_a_cooldown() -> None:
    # A formula has no end.
    names = {path.stem for path in (CONF.parent / "cooldown").glob("*.yaml")} - {"none", "formula"}
    nodes = {name: read_option("cooldown", name, "cooldown") for name in names}
    cooldowns = {name: hydra.utils.instantiate(node, length=None) for name, node in nodes.items()}
    assert cooldowns == {name: shape.with_ends(end=0.0) for name, shape in DECAYS.items()}


def test_the_shape_of_a_decay_is_resolved_and_has_its_own_options() -> None:
    inner = Polynomial(power=1.0, k=2.0, update_every="1ep")
    for schedule in (Wsd(decay="2ep", shape=inner), Restarts(period="2ep", shape=inner)):
        shape = schedule.resolved(Horizon(100, 10)).shape
        assert shape == dataclasses.replace(inner, update_every=10)
        with pytest.raises(ConfigError, match=r"^shape\.update_every needs the number of optimizer steps in an epoch"):
            dataclasses.replace(schedule, **{"decay" if isinstance(schedule, Wsd) else "period": 20}).resolved(
                Horizon(100)
            )


def test_milestones_that_fall_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\[5, '50%'\], which is steps \[5, 5\]\) must be increasing"):
        Multistep(milestones=[5, "50%"]).resolved(Horizon(10))
    with pytest.raises(ConfigError, match="must be increasing"):
        Multistep(milestones=[6, 5]).resolved(Horizon(10))


def test_places_that_fall_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^table\[1\] must have a place after 5, which is step 5; its own is step 5"):
        Table(table=[[5, 1.0], ["50%", 0.5]]).resolved(Horizon(10))


def test_errors_of_an_inner_phase_say_which() -> None:
    with pytest.raises(ConfigError, match=r"^phases\[1\]\.every needs the number of optimizer steps in an epoch"):
        Piecewise(phases=[RAMP, Step(every="2ep")]).resolved(Horizon(10))

"""Batch sizes that change: where a stage begins, how many steps an epoch has, and which schedules cannot be."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lrkit.base.errors import ConfigError
from lrkit.schedules import Cosine, Linear, Multistep, Piecewise, Step
from lrkit.schedules.batch_sizes import BatchSizes, parse_stages, resolve_sizes
from lrkit.schedules.curve import Curve
from lrkit.schedules.durations import Duration
from lrkit.schedules.horizon import Horizon, LoaderSize, horizon_of

TABLE: list[tuple[Any, dict[str, Any], list[int], int | None]] = [
    # schedule                          of the run                             first steps   steps of the run
    ([[0, 8]],                          {"steps": 9},                          [0],          9),
    ([[0, 8], [4, 16]],                 {"steps": 9},                          [0, 4],       9),
    ([[0, 8], ["50%", 16]],             {"steps": 9},                          [0, 5],       9),  # halves up
    ([[0, 8], ["40sp", 16]],            {"steps": 9},                          [0, 5],       9),
    ([[0, 8], ["40sp", 16], ["72sp", 24]], {"steps": 9},                       [0, 5, 7],    9),
    ([[0, 8], ["2e2tok", 16]],          {"steps": 9, "tokens_per_sample": 5},  [0, 5],       9),
    # An epoch has 6 batches of 8.
    ([[0, 8]],                          {"length": "3ep"},                      [0],          18),
    ([[0, 16]],                         {"length": "3ep"},                      [0],          9),
    ([[0, 32]],                         {"length": "3ep"},                      [0],          6),  # of 4 and 2 batches
    ([[0, 8], ["1ep", 16]],             {"length": "3ep"},                      [0, 6],       12),
    ([[0, 8], ["0.5ep", 16]],           {"length": "3ep"},                      [0, 3],       11),  # 3, 2, then 3 and 3
    ([[0, 8], ["1ep", 24], ["2ep", 48]], {"length": "3ep"},                        [0, 6, 8],    9),
    ([[0, 8], [2, 32]],                 {"length": "2ep"},                      [0, 2],       5),  # 1 1 4, 4 2
    ([[0, 8], ["50%", 16]],             {"length": "3ep"},                      [0, 6],       12),
    ([[0, 8], ["50%", 16], ["75%", 48]], {"length": "3ep"},                        [0, 4, 5],    7),
    ([[0, 8], ["50%", 16]],             {"length": "3ep", "steps": 8},             [0, 4],       8),
    ([[0, 8], ["50%", 16]],             {"length": "3ep", "steps": 50},            [0, 6],       12),
    ([[0, 16], ["1ep", 8]],             {"length": "3ep"},                      [0, 3],       15),
    ([[0, 8], ["50%", 16]],             {"length": "144sp"},                   [0, 6],       12),
    ([[0, 8], ["50%", 16]],             {"length": "288tok", "tokens_per_sample": 2}, [0, 6],  12),
    ([[0, 8], [3, 16]],                 {},                                    [0, 3],       None),
]  # fmt: skip


def resolve(written: Any, *, length: str | None = None, **run: Any) -> tuple[BatchSizes, int | None]:
    """The stages of a run with epochs of 6 batches of 8 samples."""
    until = None if length is None else Duration.parse(length)
    return resolve_sizes(written, **{"micro": 8, "batches": 6, "length": until, **run})


@pytest.mark.parametrize(("written", "run", "firsts", "steps"), TABLE)
def test_where_stages_begin(written: Any, run: dict[str, Any], firsts: list[int], steps: int | None) -> None:
    sizes, total = resolve(written, **run)
    assert (list(sizes.firsts), total) == (firsts, steps)
    assert [size for _, size in sizes.stages] == [size for _, size in written]


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ("x", {}, "batch.schedule must be a list of pairs of a duration and samples, such as [[0,64],[50%,128]]. "),
    ([], {}, "batch.schedule must be a list of pairs"),
    ([[0, 8], 4], {}, "batch.schedule[1] must be a pair: "),
    ([[0, 8.0]], {}, "batch.schedule[0] must have a whole number of samples >= 1 as its second number. "),
    ([[0, 8], [1.0, 8]], {}, "batch.schedule[1] must "),
    ([[2, 8]], {}, "batch.schedule[0] must begin at 0. Received: 2"),
    ([[0, 12]], {}, "batch.schedule[0] must be a multiple of 8 = a product: 8 or 16 is possible. Received: 12"),
    ([[0, 3]], {}, "batch.schedule[0] must be a multiple of 8 = a product: 8 is possible. Received: 3"),
    ([[0, 56]], {}, "batch.schedule[0] must be at most 48, the 6 batches of an epoch. Received: 56"),
    ([[0, 8], [5, 16], [5, 24]], {}, "batch.schedule[2] must begin after step 5, where the stage before it begins; it"),
    ([[0, 8], [9, 16]], {"steps": 9}, "batch.schedule[1] must begin before the run ends: it begins at step 9 of 9 opt"),
    ([[0, 8], ["50%", 16]], {}, "batch.schedule[1] needs the total number of optimizer steps, which is not known: set"),
    ([[0, 8], ["1tok", 16]], {}, "batch.schedule[1] needs the number of tokens in a sample, which is not known: set h"),
    ([[0, 8], ["1ep", 16]], {"batches": None}, "batch.schedule[1] needs the number of batches in an epoch, which is "),
    ([[0, 24], ["50%", 8]], {"length": "1ep"}, "batch.schedule has shares of the run that fit no number of optimizer"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "run", "sentence"), REFUSED)
def test_what_cannot_be(written: Any, run: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(written, product=" = a product", **run)
    assert str(caught.value).startswith(sentence)


def walk(sizes: BatchSizes, epochs: int) -> list[int]:
    """The position in the data after each step, by going through all batches."""
    places, done = [0], 0
    assert sizes.batches is not None
    for epoch in range(1, epochs + 1):
        while done < epoch * sizes.batches:
            done = min(done + sizes.window(len(places) - 1), epoch * sizes.batches)
            places.append(done)
    return places


@st.composite
def many_sizes(draw: st.DrawFn) -> BatchSizes:
    firsts = sorted(draw(st.sets(st.integers(1, 40), max_size=3)))
    stages = tuple((first, 4 * draw(st.integers(1, 5))) for first in (0, *firsts))
    return BatchSizes(stages, 4, draw(st.integers(1, 12)))


@given(many_sizes(), st.integers(0, 8), st.fractions(0, 8))
def test_positions_are_those_of_a_walk(sizes: BatchSizes, epochs: int, place: Fraction) -> None:
    places = walk(sizes, 8)
    assert [sizes.batches_at(step) for step in range(len(places))] == places
    assert sizes.batches is not None
    assert sizes.steps_after(epochs * sizes.batches) == places.index(epochs * sizes.batches)
    position = place * sizes.batches
    assert abs(places[sizes.steps_after(position)] - position) == min(abs(each - position) for each in places)
    for step, done in enumerate(places):  # a walk that begins within the run
        assert sizes.steps_after(8 * sizes.batches, step, done) == len(places) - 1


@given(many_sizes(), st.integers(0, 60))
def test_samples_are_those_of_the_steps_before(sizes: BatchSizes, step: int) -> None:
    assert sizes.samples_at(step) == sum(map(sizes.at, range(step)))
    assert sizes.step_at_samples(sizes.samples_at(step)) == step


@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.data(), st.integers(1, 30), st.integers(1, 8))
def test_shares_of_growing_sizes_fit_the_epochs(
    windows: list[int], data: st.DataObject, batches: int, epochs: int
) -> None:
    more = len(windows) - 1
    shares = sorted(data.draw(st.sets(st.integers(1, 99), min_size=more, max_size=more)))
    places = [0, *(f"{share}%" for share in shares)]
    written = [[place, 4 * window] for place, window in zip(places, sorted(windows), strict=True)]
    try:
        sizes, steps = resolve_sizes(written, micro=4, batches=batches, length=Duration.parse(f"{epochs}ep"))
    except ConfigError as error:
        assert "begin" in str(error) or "of an epoch" in str(error)
        assume(False)
        raise
    assert sizes.steps_after(batches * epochs) == steps
    assert sizes.firsts == tuple(Duration.parse(p).steps(Horizon(steps)) if p else 0 for p in places)


#: 6 batches of 8 an epoch: a step each until step 12, then two a step; 24 steps are 6 epochs.
SIZES = Horizon(24, batch_sizes=BatchSizes(((0, 8), (12, 16)), 8, 6))


def test_lengths_are_exact_where_they_lie() -> None:
    # A warmup of one epoch before the change, a cooldown of two epochs after it, milestones on both sides of it.
    curve = Curve.build(
        Multistep(milestones=["0.5ep", "2ep"]), SIZES, warmup=Linear(length="1ep"), cooldown=Linear(length="2ep")
    )
    assert curve.starts == (0, 6, 18)
    assert curve.edges == (0, 6, 9, 15, 18)
    parts = Piecewise(phases=[Linear(length="1.5ep"), Linear(length="1ep"), Cosine()])
    assert [part.length for part in parts.resolved(SIZES.counted_from(0)).phases] == [9, 5, None]
    assert Curve.build(Step(every="1ep"), SIZES, warmup=Linear(length=12)).edges == (0, 12, 15, 18, 21)


@pytest.mark.parametrize("schedule", [Step(every="1ep"), Step(every="48sp"), Cosine(update_every="1ep")])
def test_a_period_in_epochs_is_refused_where_epochs_differ(schedule: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Curve.build(schedule, SIZES)
    assert "and batch.schedule cannot be used together: the steps of" in str(caught.value)
    assert "8 from step 0, 16 from step 12" in str(caught.value)


def test_the_horizon_of_a_run() -> None:
    loader = LoaderSize(100, 8, tokens_per_sample=(4, "data.context"))
    schedule = [[0, 16], ["1ep", 32]]
    horizon = horizon_of(loader, {"max_epochs": 3}, world=2, batch={"schedule": schedule})
    assert (horizon.steps, horizon.steps_per_epoch, horizon.batch_size) == (7 + 4 + 4, None, None)
    assert horizon.batch_sizes == BatchSizes(((0, 16), (7, 32)), 16, 7)
    assert [horizon.steps_after_epochs(n) for n in (1, 2, 3)] == [7, 11, 15]
    assert (horizon.shortest_epoch, horizon.samples_in(6), horizon.samples_in(7)) == (4, 16, 32)
    assert (
        horizon_of(
            loader, {"max_epochs": 3}, world=2, batch={"schedule": schedule}, overrides={"stop_after": "2ep"}
        ).end
        == 11
    )
    with pytest.raises(ConfigError, match=r"^horizon\.batch_size and batch\.schedule cannot be used together"):
        horizon_of(loader, {"max_epochs": 3}, batch={"schedule": schedule}, overrides={"batch_size": 8})
    with pytest.raises(
        ConfigError, match=r"needs one number of optimizer steps in an epoch, and batch\.schedule changes"
    ):
        horizon.require("steps_per_epoch", "x")


def test_the_pairs_keep_their_units() -> None:
    assert [str(place) for place, _ in parse_stages([[0, 8], ["2ep", 16], ["80%", 24]])] == ["0", "2ep", "80%"]

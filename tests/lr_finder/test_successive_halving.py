"""Successive halving: which rates are trained, for how many steps, and the result."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrkit.lr_finder.successive_halving import CAUTION, MOST, Confirmation, Round, confirm_rate, round_lengths

Train = Callable[[float, int], float]


def bowl(best: float, cliff: float = math.inf) -> Train:
    """A loss that is lowest at ``best``, and a cliff from which on everything diverges."""
    return lambda lr, steps: math.inf if lr >= cliff else math.log2(lr / best) ** 2


def raced(
    train: Train, around: float, steps: int | None = 1600, rounds: int = 2, full: bool = False
) -> tuple[Confirmation, list[tuple[float, int]]]:
    """The verdict, and every training."""
    trained: list[tuple[float, int]] = []

    def watched(lr: float, length: int) -> float:
        trained.append((lr, length))
        return train(lr, length)

    return confirm_rate(watched, around, steps, rounds, full), trained


def test_two_rounds_around_the_minimum() -> None:
    verdict, trained = raced(bowl(0.01), 0.01)
    assert [lr / 0.01 for lr, steps in trained if steps == 100] == [0.25, 0.5, 1, 2, 4, 8]
    assert [lr / 0.01 for lr, steps in trained if steps == 400] == [0.5, 1, 2]
    assert verdict.lr == pytest.approx(0.01 * CAUTION)


def test_the_third_heat_has_half_of_the_run_and_the_last_word() -> None:
    """At a quarter of the run a lower rate is best; half of the run shows the gain of a higher one."""

    def rising(lr: float, steps: int) -> float:
        return 100 / steps + 0.1 * math.log2(lr / (0.02 if steps == 800 else 0.01)) ** 2

    verdict, trained = raced(rising, 0.01, rounds=3)
    assert [lr / 0.01 for lr, steps in trained if steps == 800] == [0.5, 1, 2, 4]
    assert verdict.rounds[-1].steps == 800 and verdict.lr == pytest.approx(0.02)
    inner, trained = raced(bowl(0.011), 0.01, rounds=3)
    assert [lr / 0.01 for lr, steps in trained if steps == 800] == [1, 2, 0.5]  # the better neighbour first
    assert inner.lr == pytest.approx(0.011)


@pytest.mark.parametrize(("rounds", "between"), [(2, [100]), (3, [100, 400])])
@pytest.mark.parametrize(("cliff", "best"), [(0.03, 0.02 * math.sqrt(2.0)), (0.025, 0.02)])
def test_a_last_heat_of_full_runs_answers_the_best_rate_of_its_runs(
    rounds: int, between: list[int], cliff: float, best: float
) -> None:
    """In short runs a lower rate is best; in full runs a rate close below a cliff."""

    def unstable(lr: float, steps: int) -> float:
        if steps == 1600:
            return math.inf if lr > cliff else 1e-4 / lr
        return 100 / steps + 0.1 * math.log2(lr / 0.011) ** 2

    verdict, trained = raced(unstable, 0.01, rounds=rounds, full=True)
    assert [each.steps for each in verdict.rounds] == [*between, 1600]
    begun = [0.5, 1, 2] if rounds == 2 else [1, 2]
    assert [lr / 0.01 for lr, steps in trained if steps == 1600] == [*begun, 4, pytest.approx(2 * math.sqrt(2.0))]
    assert verdict.lr == verdict.rounds[-1].best == pytest.approx(best)
    assert raced(unstable, 0.01, rounds=3)[0].lr == pytest.approx(0.011)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("rounds", [2, 3])
@pytest.mark.parametrize("best", [0.0003, 0.002, 0.01, 0.05, 0.3])
def test_it_goes_on_beyond_an_edge(best: float, rounds: int, full: bool) -> None:
    verdict, _ = raced(bowl(best), 0.01, rounds=rounds, full=full)
    assert verdict.lr == pytest.approx(best, rel=0.5)


@settings(deadline=None, max_examples=100)
@given(st.floats(-4, 4), st.floats(0.5, 3.0), st.integers(1, 10**6), st.sampled_from([2, 3]), st.booleans())
def test_it_never_answers_beyond_the_cliff_nor_spends_more_than_its_budget(
    offset: float, away: float, steps: int, rounds: int, full: bool
) -> None:
    best = 0.01 * 2**offset
    verdict, trained = raced(bowl(best, cliff=best * 2**away), 0.01, steps, rounds, full)
    lengths = round_lengths(steps, rounds, full)
    assert len(verdict.rounds) == len(lengths) or verdict.lr is None
    most = [*MOST[: len(lengths) - 1], MOST[len(lengths) - 1] + full]  # the last of the full runs
    assert all(len(each.scores) <= count for each, count in zip(verdict.rounds, most, strict=False))
    assert sum(length for _, length in trained) <= sum(map(math.prod, zip(most, lengths, strict=True)))
    if verdict.lr is not None:
        assert verdict.low is not None and verdict.high is not None
        assert verdict.low <= verdict.lr <= verdict.high
        assert verdict.lr < best * 2**away  # every rate that diverged is above the answer


def test_rates_at_which_longer_runs_collapse_are_too_high() -> None:
    """Above 0.003 a longer run ends near the loss of the start, where the highest rate is best by accident."""

    def collapsing(lr: float, steps: int) -> float:
        return 2.3 - lr if lr > 0.003 and steps > 100 else 0.1 * math.log2(lr / 0.01) ** 2 + 100 / steps

    for rounds in (2, 3):
        verdict, trained = raced(collapsing, 0.01, rounds=rounds)
        begun = [0.5, 1, 2, 0.25] if rounds == 2 else [0.5, 1, 0.25, 0.125]
        assert [lr / 0.01 for lr, steps in trained if steps == 400] == begun
        assert verdict.lr is not None and verdict.lr <= 0.005


def test_the_last_of_two_rounds_has_both_neighbours_although_the_first_one_leans_down() -> None:
    """The first round's better neighbour is the lower one; with a quarter of the run the higher one is best."""

    def rising(lr: float, steps: int) -> float:
        if steps == 100:
            return math.log2(lr / 0.009) ** 2
        return {0.5: 0.30, 1.0: 0.31, 2.0: 0.10}.get(round(lr / 0.01, 6), 5.0)

    verdict, trained = raced(rising, 0.01, rounds=2)
    assert [lr / 0.01 for lr, steps in trained if steps == 400] == [0.5, 1, 2, 4]
    assert verdict.rounds[-1].best == pytest.approx(0.02)


def test_what_diverges_has_no_answer() -> None:
    verdict, trained = raced(lambda lr, steps: math.inf, 0.01)
    assert (verdict.lr, verdict.reason) == (None, "every short run of the first round diverged: lower find.end")
    assert {steps for _, steps in trained} == {100}
    later, _ = raced(lambda lr, steps: math.inf if steps > 400 else lr, 0.01, rounds=3)
    assert (later.lr, later.reason) == (None, "every short run of the third round diverged")


def test_what_makes_no_difference_has_no_answer() -> None:
    verdict, _ = raced(lambda lr, steps: 1.0, 0.01)
    assert (verdict.lr, verdict.reason) == (None, "all short runs reached the same score")


def test_the_drift_from_heat_to_heat_is_continued() -> None:
    """The best rate falls by a factor of 2 while the length grows by 4: half of that is expected once more."""
    verdict, _ = raced(lambda lr, steps: math.log2(lr / (0.02 if steps == 100 else 0.01)) ** 2, 0.01)
    assert verdict.lr == pytest.approx(CAUTION * 0.01 / math.sqrt(2.0), rel=1e-6)
    grown, _ = raced(lambda lr, steps: math.log2(lr / (0.01 if steps == 100 else 0.02)) ** 2, 0.01)
    assert grown.lr == pytest.approx(CAUTION * 0.02 * math.sqrt(2.0), rel=1e-6)


def test_the_vertex_leans_to_the_better_neighbour_and_away_from_a_cliff() -> None:
    assert Round(9, {1.0: 1.0, 2.0: 0.0, 4.0: 1.0}).vertex == 2.0
    assert Round(9, {1.0: 0.1, 2.0: 0.0, 4.0: 1.0}).vertex < 2.0
    assert Round(9, {1.0: 1.0, 2.0: 0.0, 4.0: math.inf}).vertex == pytest.approx(math.sqrt(2.0))
    assert Round(9, {1.0: 0.0, 2.0: 1.0}).vertex == 1.0


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(1600, (100, 400, 800)), (100, (8, 25, 50)), (10**6, (500, 2000, 4000)), (None, (100, 400, 800)),
     (20, (8, 16)), (10, (8, 10)), (1, (1, 1))],
)  # fmt: skip
def test_the_lengths_of_the_rounds(steps: int | None, expected: tuple[int, ...]) -> None:
    assert round_lengths(steps) == expected
    assert round_lengths(steps, 2) == expected[:2]


@pytest.mark.parametrize(
    ("steps", "rounds", "expected"),
    [(1600, 3, (100, 400, 1600)), (1600, 2, (100, 1600)), (10**6, 3, (500, 2000, 10**6)), (20, 3, (8, 16, 20)),
     (16, 3, (8, 16)), (10, 2, (8, 10)), (1, 3, (1, 1))],
)  # fmt: skip
def test_the_last_heat_is_the_full_run_once(steps: int, rounds: int, expected: tuple[int, ...]) -> None:
    assert round_lengths(steps, rounds, full=True) == expected


@pytest.mark.parametrize(("rounds", "share"), [(2, 2), (3, 4)])
def test_under_a_tenth_or_a_fifth_of_a_grid_of_twenty(rounds: int, share: int) -> None:
    """With three range tests of a sixth of the run, of which a fifth is cut off by divergence."""
    for steps in (400, 1000, 5000):
        _, trained = raced(bowl(0.03), 0.01, steps, rounds)
        assert sum(length for _, length in trained) + 3 * min(100, steps / 6) * 0.8 < share * steps

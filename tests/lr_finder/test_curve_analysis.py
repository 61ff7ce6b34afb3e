"""The analysis of range-test curves: curves with a known knee at each noise level, and curves without a suggestion."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from lrkit.lr_finder.curve_analysis import RangeTestRun, has_diverged, loss_noise, read_curves, smooth_losses

STEPS, START, END = 100, 1e-7, 10.0
LADDER = [START * (END / START) ** (i / STEPS) for i in range(STEPS)]


def sweeps(
    kind: str, noisy: float, seed: int, *, repeats: int = 3, knee: float | None = None, ladder: Sequence[float] = LADDER
) -> tuple[list[RangeTestRun], float]:
    """Repeats of a range test and the knee of their curve, stopped as a real one is."""
    rng = random.Random(f"{kind} {noisy} {seed}")
    knee = 10 ** rng.uniform(-4.5, -1) if knee is None else knee
    start = rng.uniform(1, 5)
    floor, width, cliff = start * rng.uniform(0.2, 0.7), rng.uniform(0.12, 0.35), knee * 10 ** rng.uniform(0.7, 1.7)

    def loss(lr: float) -> float:
        blown = start * 0.5 * min(lr / cliff, 50) ** 2
        if kind == "flat":
            return start
        if kind == "rising":
            return start + 2 * blown
        return floor + (start - floor) / (1 + math.exp(min(50, math.log10(lr / knee) / width))) + blown

    found = []
    for _ in range(repeats):
        losses: list[float] = []
        for lr in ladder:
            losses.append(loss(lr) * (1 + noisy * rng.gauss(0, 1)))
            if has_diverged(losses):
                break
        found.append(
            RangeTestRun(ladder[: len(losses)], losses, "it diverged" if len(losses) < len(ladder) else "its end")
        )
    return found, knee


def share_near(noisy: float, seeds: int) -> float:
    """The share of curves whose suggestion lies within a factor of 5 of the knee."""
    near = 0
    for seed in range(seeds):
        curves, knee = sweeps("knee", noisy, seed)
        lr = read_curves(curves).lr
        near += lr is not None and knee / 5 <= lr <= knee * 5
    return near / seeds


NOISES = [0.0, 0.002, 0.01, 0.05, 0.1]


@pytest.mark.parametrize("noisy", NOISES)
def test_the_suggestion_is_near_the_knee(noisy: float) -> None:
    assert share_near(noisy, 30) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("noisy", NOISES)
def test_the_suggestion_is_near_the_knee_for_200_seeds(noisy: float) -> None:
    assert share_near(noisy, 200) >= 0.95


def test_noise_at_small_rates_does_not_look_steep() -> None:
    """Lightning 2.6.6 suggests 1e-4 in the median of such curves, at 3 % noise; the knee is at 1e-2."""
    rates = sorted(read_curves(sweeps("knee", 0.03, seed, knee=1e-2)[0]).lr or 0.0 for seed in range(25))
    assert 5e-3 < rates[12] < 5e-2


@pytest.mark.parametrize(("kind", "word"), [("flat", "flat|noise"), ("rising", "never improves|noise")])
@pytest.mark.parametrize("noisy", NOISES)
def test_a_curve_that_says_nothing_is_no_suggestion(kind: str, word: str, noisy: float) -> None:
    for seed in range(20):
        reading = read_curves(sweeps(kind, noisy, seed)[0])
        assert reading.lr is None and reading.estimates == {}
        assert any(each in reading.reason for each in word.split("|")), reading.reason


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flat", "rising"])
@pytest.mark.parametrize("noisy", NOISES)
def test_a_curve_that_says_nothing_is_no_suggestion_for_200_seeds(kind: str, noisy: float) -> None:
    assert [seed for seed in range(200) if read_curves(sweeps(kind, noisy, seed)[0]).lr is not None] == []


def test_the_edges_of_the_range_are_not_suggested() -> None:
    high = [lr for lr in LADDER if lr < 2e-3]
    reading = read_curves(sweeps("knee", 0.01, 1, knee=2e-3, ladder=high)[0])
    assert reading.lr is None and "find.end" in reading.reason
    low = [5e-3 * (END / 5e-3) ** (i / STEPS) for i in range(STEPS)]
    reading = read_curves(sweeps("knee", 0.01, 1, knee=5e-3, ladder=low)[0])
    assert reading.lr is None and "find.start" in reading.reason


def test_a_test_that_ends_at_once_says_how_to_begin() -> None:
    reading = read_curves([RangeTestRun(LADDER[:5], [2.0] * 5, "the loss was not finite")])
    assert reading.lr is None
    assert reading.reason == "the test ended after 5 steps (the loss was not finite): lower find.start"
    first = read_curves(
        [RangeTestRun([], [], "the loss was not finite")]
    )  # no rate has moved anything yet, so it is not the rate's
    assert first.reason.startswith(
        "the loss was not finite at the first step, before any rate was used: check the data"
    )


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_the_unit_of_the_loss_does_not_matter(factor: float) -> None:
    curves, _ = sweeps("knee", 0.01, 3)
    scaled = [RangeTestRun(c.rates, [factor * loss for loss in c.losses], c.ended) for c in curves]
    assert read_curves(scaled).lr == pytest.approx(read_curves(curves).lr)


def test_the_estimators_and_the_interval() -> None:
    curves, knee = sweeps("knee", 0.0, 5)
    reading = read_curves(curves)
    assert list(reading.estimates) == ["steepest", "valley", "minimum/10", "slide"]
    assert reading.estimates["steepest"] == pytest.approx(knee, rel=0.6)
    assert reading.minimum is not None and reading.low is not None and reading.high is not None
    assert reading.estimates["minimum/10"] == pytest.approx(reading.minimum / 10)
    assert reading.low <= min(reading.estimates.values()) <= max(reading.estimates.values()) <= reading.high
    assert reading.lr == pytest.approx(math.sqrt(reading.estimates["steepest"] * reading.minimum / 2))


def test_smoothing_keeps_a_line_and_has_no_lag() -> None:
    line = [3.0 - 0.2 * math.log10(lr) for lr in LADDER]
    assert smooth_losses(LADDER, line) == pytest.approx(line)
    hill = [math.exp(-((math.log10(lr) + 3) ** 2)) for lr in LADDER]
    smoothed = smooth_losses(LADDER, hill)
    assert abs(smoothed.index(max(smoothed)) - hill.index(max(hill))) <= 1


def test_noise_is_measured_and_a_cliff_is_none() -> None:
    rng = random.Random(0)
    losses = [1.0 + rng.gauss(0, 0.05) for _ in range(2000)]
    assert loss_noise(losses) == pytest.approx(0.05, rel=0.1)
    assert loss_noise([1.0] * 50 + [100.0] * 3) == 0.0


def test_divergence_is_clear_or_none() -> None:
    assert not has_diverged([2.0] * 100)
    assert not has_diverged([2.0] * 50 + [1.0] * 50)
    assert not has_diverged([2.0, 2.1, 1.9] * 7 + [2.4])  # one bad batch
    assert has_diverged([2.0] * 40 + [1.5] * 10 + [3.0] * 5)
    assert has_diverged([-2.0] * 40 + [-3.0] * 10 + [1.0] * 5)  # a likelihood is a loss too

"""The annealing law: its two areas, and its fit to curves that follow it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrkit.prediction.annealing_law import AnnealingLaw, Numbers, measure_areas
from lrkit.prediction.law_fit import LossCurve, fit_law, measure_residuals, refit_law
from lrkit.prediction.uncertainty import LEAST, SPREAD, draw_laws

STEPS = 300
PLACES = np.arange(60.0, STEPS + 1.0, 6.0)
SHAPES = {
    "constant": np.ones(STEPS),
    "linear": np.linspace(1.0, 0.0, STEPS),
    "wsd": np.minimum(1.0, np.linspace(5.0, 0.0, STEPS)),
    "warmed": np.minimum(1.0, np.linspace(0.1, 30.0, STEPS)),
}


def curve_of(law: AnnealingLaw, rates: Numbers, noise: float = 0.0, seed: int = 0) -> LossCurve:
    scatter = 1.0 + noise * np.random.default_rng(seed).standard_normal(len(PLACES))
    return LossCurve(rates, 1, PLACES, law.losses(rates, 1, PLACES) * scatter)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=30), st.floats(1.0, 50.0))
def test_the_average_is_the_annealing_area_of_the_paper(rates: list[float], lag: float) -> None:
    """S2 as in arXiv:2408.11029, with the first rate before the run, is (first - average) / (1 - decay)."""
    decay, found = 1.0 - 1.0 / lag, measure_areas(np.array(rates), 1, range(1, len(rates) + 1), np.array([lag]))
    m = s2 = 0.0
    for i, rate in enumerate(rates):
        m = decay * m + (rates[max(0, i - 1)] - rate)
        s2 += m
        assert found.averages[0, i] == pytest.approx(rates[0] - s2 * (1.0 - decay), abs=1e-9)
        assert found.forward[i] == pytest.approx(sum(rates[: i + 1]))


def test_blocks_of_steps_have_nearly_the_areas_of_the_steps() -> None:
    rates, lags = SHAPES["wsd"], np.array([5.0, 40.0])
    whole = measure_areas(rates, 1, [150, 300], lags)
    blocks = measure_areas(rates.reshape(-1, 3).mean(1), 3, [150, 300], lags)
    assert blocks.forward == pytest.approx(whole.forward) and blocks.averages == pytest.approx(whole.averages, abs=0.02)


@settings(deadline=None, max_examples=8)
@given(st.floats(0.0, 3.0), st.floats(0.3, 1.2), st.floats(0.3, 1.0), st.floats(8.0, 60.0))
def test_the_parameters_of_exact_curves_are_found(floor: float, exponent: float, gain: float, lag: float) -> None:
    law = AnnealingLaw(floor, 3.0, exponent, gain, lag)
    found = fit_law([curve_of(law, SHAPES[name]) for name in ("constant", "linear", "warmed")])
    held_out = curve_of(law, SHAPES["wsd"])
    assert np.abs(measure_residuals(found, held_out)).max() < 0.01
    assert found.lag == pytest.approx(lag, rel=0.25) and found.gain == pytest.approx(gain, rel=0.1)


@settings(deadline=None, max_examples=10)
@given(st.floats(0.01, 100.0), st.permutations(["constant", "linear", "wsd"]))
def test_neither_units_of_the_loss_nor_the_order_of_the_runs_count(unit: float, order: list[str]) -> None:
    law = AnnealingLaw(0.5, 2.0, 0.5, 0.3, 15.0)
    plain = fit_law([curve_of(law, SHAPES[name], 0.01) for name in ("constant", "linear", "wsd")])
    runs = [curve_of(law, SHAPES[name], 0.01) for name in order]
    found = fit_law([LossCurve(run.rates, 1, run.steps, run.losses * unit) for run in runs])
    assert found.lag == pytest.approx(plain.lag) and found.exponent == pytest.approx(plain.exponent)
    at = found.losses(SHAPES["warmed"], 1, PLACES), plain.losses(SHAPES["warmed"], 1, PLACES)
    assert at[0] == pytest.approx(at[1] * unit, rel=1e-6)


def test_no_part_of_the_law_is_below_0() -> None:
    """Losses that a decay raises, or that fall in a straight line, give no law that predicts a loss below 0."""
    for losses in (np.linspace(2.0, 0.05, len(PLACES)), np.linspace(1.0, 0.9, len(PLACES))):
        runs = [LossCurve(SHAPES["constant"], 1, PLACES, losses), LossCurve(SHAPES["linear"], 1, PLACES, losses * 1.2)]
        law = fit_law(runs)
        assert min(law.floor, law.scale, law.gain) >= 0.0
        assert law.losses(np.ones(10 * STEPS), 1, [10 * STEPS])[0] > 0.0


def test_a_spike_does_not_move_the_fit() -> None:
    law = AnnealingLaw(0.5, 2.0, 0.5, 0.3, 15.0)
    runs = [curve_of(law, SHAPES[name], 0.002) for name in ("constant", "linear")]
    runs[0].losses[20] *= 3.0
    assert np.abs(measure_residuals(fit_law(runs), curve_of(law, SHAPES["wsd"]))).max() < 0.01


def test_a_bootstrap_knows_the_noise_and_is_the_same_each_time() -> None:
    law = AnnealingLaw(0.5, 2.0, 0.5, 0.3, 15.0)
    spreads = []
    for noise in (0.002, 0.02):
        runs = [curve_of(law, SHAPES[name], noise, seed) for name in ("constant", "linear") for seed in (1, 2)]
        found = fit_law(runs)
        laws = draw_laws(runs, [0, 0, 1, 1], found)
        assert laws == draw_laws(runs, [0, 0, 1, 1], found)
        spreads.append(np.std([each.losses(SHAPES["wsd"], 1, [STEPS])[0] for each in laws]))
    assert 0.0 < 3.0 * spreads[0] < spreads[1]
    (same,) = refit_law(runs, found, [np.ones(sum(len(run.steps) for run in runs))])
    assert np.abs(measure_residuals(same, runs[0]) - measure_residuals(found, runs[0])).max() < 0.01


def test_an_interval_widens_with_length_and_rate() -> None:
    near, far, fast = (
        SPREAD.half_width(0.02, 0.0, *far) for far in ((0.0, 0.0), (math.log(2), 0.0), (0.0, math.log(2)))
    )
    assert near < far and near < fast
    assert SPREAD.half_width(0.0, 0.0, 0.0, 0.0) == SPREAD.half_width(LEAST, 0.0, 0.0, 0.0)

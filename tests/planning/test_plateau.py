"""Reduce on plateau: its rates for a sequence of metrics, equal to torch's."""

from __future__ import annotations

import dataclasses
from itertools import accumulate
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lrkit.base.errors import ConfigError
from lrkit.planning.plateau import Plateau, PlateauState

NAN, INF = float("nan"), float("inf")
HALF = {"factor": 0.5, "patience": 1}

TABLE = [
    # plateau                                 metrics                       the gain after each
    ({"factor": 0.5, "patience": 0},          [1, 1, 1, 1],                 [1, 0.5, 0.25, 0.125]),
    (HALF,                                    [1, 1, 1, 1, 1],              [1, 1, 0.5, 0.5, 0.25]),  # more than 1 bad
    (HALF,                                    [3, 2, 1, 0],                 [1, 1, 1, 1]),
    (HALF,                                    [3, 4, 2, 3, 1, 2],           [1, 1, 1, 1, 1, 1]),  # never two in a row
    (HALF,                                    [3, 4, 4, 3.5, 3.5],          [1, 1, 0.5, 0.5, 0.25]),  # against the best
    ({**HALF, "mode": "max"},                 [1, 2, 2, 2, 3],              [1, 1, 1, 0.5, 0.5]),
    ({**HALF, "threshold": 0.1},              [1.0, 0.91, 0.92, 0.5],       [1, 1, 0.5, 0.5]),  # 9 % is not better
    ({**HALF, "threshold": 0.1},              [1.0, 0.89, 0.88, 0.87],      [1, 1, 1, 0.5]),
    ({**HALF, "threshold": 1, "threshold_mode": "abs"}, [9, 8, 8, 6.5],     [1, 1, 0.5, 0.5]),
    ({**HALF, "cooldown": 2},                 [1, 1, 1, 1, 1, 1, 1, 1],     [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]),
    ({**HALF, "min_gain": 0.4},               [1, 1, 1, 1, 1],              [1, 1, 0.5, 0.5, 0.4]),
    (HALF,                                    [1, NAN, 1, INF, 1, -INF, 1], [1, 1, 1, 1, 0.5, 0.5, 0.5]),  # not a check
    (HALF,                                    [NAN, INF, 5, 4],             [1, 1, 1, 1]),
]  # fmt: skip

REFUSED = [
    ({"monitor": ""},                  "monitor must be the name of a metric. Received: ''"),
    ({"monitor": None},                "monitor must be the name of a metric. Received: None"),
    ({"mode": "lower"},                "mode must be min or max. Received: 'lower'"),
    ({"threshold_mode": "share"},      "threshold_mode must be rel or abs. Received: 'share'"),
    ({"factor": 1.0},                  "factor must be in (0, 1). Received: 1.0"),
    ({"factor": 0},                    "factor must be in (0, 1). Received: 0"),
    ({"factor": NAN},                  "factor must be in (0, 1). Received: nan"),
    ({"factor": "0.1"},                "factor must be in (0, 1). Received: '0.1'"),
    ({"patience": -1},                 "patience must be a whole number of checks >= 0. Received: -1"),
    ({"patience": 2.5},                "patience must be a whole number of checks >= 0. Received: 2.5"),
    ({"patience": True},               "patience must be a whole number of checks >= 0. Received: True"),
    ({"cooldown": "5"},                "cooldown must be a whole number of checks >= 0. Received: '5'"),
    ({"threshold": -0.1},              "threshold must be >= 0. Received: -0.1"),
    ({"min_gain": 2},                  "min_gain must be in [0, 1]. Received: 2"),
]  # fmt: skip


def states(plateau: Plateau, metrics: list[float]) -> list[PlateauState]:
    return list(accumulate(metrics, plateau.observe, initial=PlateauState()))[1:]


@pytest.mark.parametrize(("plateau", "metrics", "gains"), TABLE)
def test_the_gain(plateau: dict[str, Any], metrics: list[float], gains: list[float]) -> None:
    assert [state.gain for state in states(Plateau(**plateau), metrics)] == gains


@pytest.mark.parametrize(("plateau", "sentence"), REFUSED)
def test_what_cannot_be_meant(plateau: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Plateau(**plateau)
    assert str(caught.value) == sentence


SETTINGS = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.sampled_from([0.1, 0.5, 0.9]),
        "patience": st.integers(0, 4),
        "threshold": st.sampled_from([0.0, 1e-4, 0.25]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 4),
    }
)
# Multiples of 1/8: a metric either equals a threshold exactly, or is well away from it.
POSITIVE = st.integers(0, 80).map(lambda i: i / 8)
SIGNED = st.integers(-80, 80).map(lambda i: i / 8)


def torchs(options: dict[str, Any], metrics: list[float], least: float = 0.0) -> list[float]:
    """The gains of torch's scheduler: its rates, for a base rate of 1."""
    sgd = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = ReduceLROnPlateau(sgd, **options, min_lr=least, eps=0.0)  # eps: torch leaves out very small changes
    gains = []
    for metric in metrics:
        scheduler.step(metric)
        gains.append(sgd.param_groups[0]["lr"])
    return gains


@settings(deadline=None, max_examples=300)
@given(SETTINGS, st.lists(POSITIVE, max_size=60), st.sampled_from([0.0, 0.03]))
def test_it_reduces_when_torch_does(options: dict[str, Any], metrics: list[float], least: float) -> None:
    ours = [state.gain for state in states(Plateau(**options, min_gain=least), metrics)]
    assert ours == torchs(options, metrics, least)


@settings(deadline=None, max_examples=200)
@given(SETTINGS, st.lists(SIGNED, max_size=60))
def test_below_zero_a_share_of_the_best_value_is_a_share_of_its_size(
    options: dict[str, Any], metrics: list[float]
) -> None:
    """For negative metrics torch's ``rel`` takes somewhat worse for better; an absolute threshold is as torch's."""
    ours = [state.gain for state in states(Plateau(**options), metrics)]
    if options["threshold_mode"] == "abs" or options["threshold"] == 0:
        assert ours == torchs(options, metrics)
    if options["threshold_mode"] == "rel":  # the mirrored metric in the mirrored mode is the same problem
        mirrored = {**options, "mode": "max" if options["mode"] == "min" else "min"}
        assert ours == [state.gain for state in states(Plateau(**mirrored), [-metric for metric in metrics])]


@settings(deadline=None, max_examples=200)
@given(SETTINGS, st.lists(SIGNED | st.sampled_from([NAN, INF, -INF]), max_size=60))
def test_a_metric_that_is_not_finite_changes_nothing(options: dict[str, Any], metrics: list[float]) -> None:
    plateau, after = Plateau(**options), states(Plateau(**options), metrics)
    for before, metric, state in zip([PlateauState(), *after], metrics, after, strict=False):
        if metric - metric != 0.0:
            assert state == before
    finite = [metric for metric in metrics if metric - metric == 0.0]
    assert (after or [PlateauState()])[-1] == (states(plateau, finite) or [PlateauState()])[-1]


@given(SETTINGS, st.lists(SIGNED, min_size=1, max_size=40), st.data())
def test_the_state_is_all_that_it_remembers(options: dict[str, Any], metrics: list[float], data: st.DataObject) -> None:
    plateau, whole = Plateau(**options), states(Plateau(**options), metrics)
    cut = data.draw(st.integers(0, len(metrics) - 1))
    state = PlateauState(**dataclasses.asdict(whole[cut]))
    for metric in metrics[cut + 1 :]:
        state = plateau.observe(state, metric)
    assert state == whole[-1]
    gains = [1.0, *(state.gain for state in whole)]
    assert sorted(gains, reverse=True) == gains

"""Refuses finished runs from which the annealing law cannot be fitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lrkit.base.errors import ConfigError
from lrkit.prediction.annealing_law import Numbers
from lrkit.prediction.law_fit import LossCurve
from lrkit.prediction.recorded_runs import RecordedRun
from lrkit.prediction.task_check import refuse_different_task, refuse_unpredictable

__all__ = ["check_runs", "number_groups", "separates_effects"]

#: Shares of the peak rate: above the first a rate is held, below the second it has decayed.
_HELD, _DECAYED = 0.9, 0.2


def check_runs(runs: Sequence[RecordedRun]) -> None:
    """Refuse too few runs, runs of different tasks, and runs in which sum and decay of the rates go together.

    Raises:
        ConfigError: with the reason.
    """
    if len(runs) < 2:
        must = "needs two finished runs at least, such as schedule=constant and schedule=cosine: one alone says nothing"
        raise ConfigError("lrkit predict", f"{must} about another schedule")
    for run in runs:
        refuse_unpredictable(run.plan, run.name)
        refuse_different_task(runs[0].plan, run.plan, run.name)
    curves = [run.curve for run in runs]
    if not any(map(_is_decayed, curves)):
        must = "needs a run whose rate decays, such as schedule=cosine: runs at a fixed rate say nothing about a decay"
        raise ConfigError("lrkit predict", must)
    if not separates_effects(curves):
        must = "needs a run that holds its rate for half of its steps, such as schedule=constant, beside one of another"
        raise ConfigError("lrkit predict", f"{must} schedule that decays: else the two effects cannot be told apart")


def separates_effects(curves: Sequence[LossCurve]) -> bool:
    """Return whether a run holds its rate for half of its steps, and one with other rates decays."""
    groups = number_groups(curves)
    held = {group for group, curve in zip(groups, curves, strict=True) if _is_held(curve)}
    decayed = {group for group, curve in zip(groups, curves, strict=True) if _is_decayed(curve)}
    return bool(held and decayed) and len(held | decayed) > 1


def number_groups(curves: Sequence[LossCurve]) -> list[int]:
    """Return for each run the number of its group: runs with the same rates, which differ in the seed."""
    seen: list[Numbers] = []
    groups = []
    for curve in curves:
        same = (i for i, rates in enumerate(seen) if np.array_equal(rates, curve.rates))
        groups.append(next(same, len(seen)))
        if groups[-1] == len(seen):
            seen.append(curve.rates)
    return groups


def _is_held(curve: LossCurve) -> bool:
    return bool(np.mean(curve.rates >= _HELD * curve.rates.max()) >= 0.5)


def _is_decayed(curve: LossCurve) -> bool:
    return bool(curve.rates[-1] <= _DECAYED * curve.rates.max())

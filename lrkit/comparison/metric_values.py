"""The value of a metric in a run, and in the runs of a setting."""

from __future__ import annotations

import math
from collections.abc import Callable

from lrkit.base.metric_names import higher_is_better
from lrkit.comparison.run_groups import Setting
from lrkit.runs.run_reader import Run

__all__ = ["best_value", "final_value", "values_over_seeds"]


def best_value(run: Run, metric: str) -> float | None:
    """Return the best value of a metric in a run; None if the run has no value of it."""
    if metric == run.monitor and metric in run.best:
        return run.best[metric]
    logged = [value for value in run.series[metric].values if math.isfinite(value)] if metric in run.series else []
    if logged:
        return max(logged) if higher_is_better(metric) else min(logged)
    return run.best.get(metric, run.final.get(metric))


def final_value(run: Run, metric: str) -> float | None:
    """Return the last value of a metric in a run; None if the run has no value of it."""
    if metric in run.final:
        return run.final[metric]
    return run.series[metric].values[-1] if metric in run.series else None


def values_over_seeds(setting: Setting, value_of: Callable[[Run], float | None]) -> dict[object, float]:
    """Return seed -> value of the counted runs. A run without a finite value is left out; its status says why."""
    values = {run.repeat: value_of(run) for run in setting.counted}
    return {seed: value for seed, value in values.items() if value is not None and math.isfinite(value)}

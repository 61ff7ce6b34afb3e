"""The order of the settings in a ranking, and the mark of a setting that is not separable from the best.

Settings whose runs all finished have the first ranks, ordered by the mean of the metric over seeds. Settings with a
diverged or failed run follow, because the mean of their other runs flatters them. Settings without a finished run are
last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from lrkit.base.metric_names import higher_is_better
from lrkit.comparison.run_groups import PREDICTED, Setting
from lrkit.comparison.statistics import means_differ

__all__ = ["mark_against_best", "marks_legend", "ranking_key"]

_MARKS = {
    "=": "= not separable from the best at 95 % (paired by seed where the seeds are the same, else Welch)",
    "?": "? too few runs to test whether it differs from the best",
}


def ranking_key(setting: Setting, metric: str, values: Mapping[object, float]) -> tuple[Any, ...]:
    """Return the sort key of a setting with ``values`` (seed -> value); the best setting sorts first."""
    lost = 2 if not setting.ended else 1 if setting.broken else 0
    worst = lost == 2 and any(run.status in ("diverged", "failed") for run in setting.runs)
    sign = -1.0 if higher_is_better(metric) else 1.0
    mean = sum(values.values()) / len(values) if values else math.inf
    # Predicted settings without a loss keep the order of the prediction.
    return (lost, worst, not values, sign * mean, "" if setting.status == PREDICTED else setting.name)


def mark_against_best(best: Mapping[object, float], other: Mapping[object, float]) -> str:
    """Return ``""`` if the values differ from the best, ``=`` if not separable, ``?`` with too few runs for a test."""
    return {True: "", False: "=", None: "?"}[means_differ(best, other)]


def marks_legend(marks: Iterable[str]) -> list[str]:
    """Return the legend of the marks that occur."""
    there = set(marks)
    return [said for sign, said in _MARKS.items() if sign in there]

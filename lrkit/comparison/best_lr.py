"""Families of settings, each at its own best rate: an answer that no shared rate can give.

At one rate for all, that family wins which the rate happens to suit. So each is taken where the validation data find
it best, and there they are judged by the test data, which had no say in the choice: a value by which the best of many
was chosen is better than it will be the next time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lrkit.comparison.ranking import (
    Comparison,
    best_value,
    final_value,
    mark_against_best,
    marks_legend,
    ranking_key,
    values_over_seeds,
)
from lrkit.comparison.run_groups import Setting
from lrkit.comparison.statistics import Interval
from lrkit.runs.run_reader import Run

__all__ = ["BestRate", "RankedFamilies", "choose_best_rates"]


@dataclass
class BestRate:
    """A family at its own best rate.

    Attributes:
        name: what its settings are but for their rate.
        label: column -> text, the same without the rate.
        rate: as it was written; empty where there is none, or no run of the family came to its end.
        edge: ``lowest`` or ``highest`` of the rates that were tried, ``only`` where there was one, else empty.
        setting: the settings' best one.
        values: seed -> what the families are judged by.
        chosen: what its rate was chosen by.
        beside: the accuracy, where it is another metric.
        mark: ``best``; ``=`` where it cannot be told apart from the best; ``?`` where there are too few runs to say.
    """

    name: str
    label: dict[str, str]
    rate: str
    edge: str
    setting: Setting
    values: dict[object, float] = field(default_factory=dict)
    chosen: Interval | None = None
    beside: Interval | None = None
    mark: str = ""

    @property
    def judged(self) -> Interval | None:
        return Interval.of(list(self.values.values())) if self.values else None

    @property
    def marked_rate(self) -> str:
        """The rate, and whether a better one may lie beyond it."""
        if not self.values:
            return "none ended"
        return self.rate + {"": "", "only": " (only one)"}.get(self.edge, " (edge)")


@dataclass
class RankedFamilies:
    """The families, best first.

    Attributes:
        rate: the column that is the rate.
        chosen_by: what the rates were chosen by, such as ``best val/loss``.
        judged_by: what the families are ranked by: a test metric, or what the rates were chosen by.
        beside: the accuracy, where it is another metric and there is one.
    """

    rate: str
    chosen_by: str
    judged_by: str
    beside: str | None
    choices: list[BestRate]
    notes: list[str] = field(default_factory=list)

    @property
    def tested(self) -> bool:
        """Whether the families are judged by data that had no say in the choice of their rates."""
        return self.judged_by != self.chosen_by


def choose_best_rates(comparison: Comparison) -> RankedFamilies | None:
    """Choose a rate for each family, and rank the families by what they reach there.

    The rate is that of the family's setting which the comparison ranks first. Judged is by the test metric of the
    same name, if all the runs have it that were chosen; else by what the rate was chosen by.

    Returns:
        None where no rate was swept, or there is one family alone.
    """
    families, chosen = comparison.families(), comparison.chosen()
    if comparison.rate is None or len(families) < 2 or not comparison.rates():
        return None
    counted = [run for setting in chosen.values() for run in setting.counted]
    test = _of_test(comparison.metric)
    without = [run for run in counted if test not in run.test]
    tested = test is not None and bool(counted) and not without
    judge = test if tested and test is not None else comparison.metric
    beside = _accuracy(counted, judge, tested)
    choices = []
    for name, at in families.items():
        setting = at[0][1]
        label = {column: text for column, text in setting.label.items() if column != comparison.rate}
        choice = BestRate(name, label, "", "", setting)
        if name in chosen:
            choice.rate = setting.label[comparison.rate]
            choice.edge = comparison.edge(name) if name in comparison.rates() else "only"
            choice.chosen = getattr(setting, comparison.by)
            choice.values = values_over_seeds(setting, _reached(judge, comparison.by, tested))
            accuracy = values_over_seeds(setting, _reached(beside, comparison.by, tested)) if beside else {}
            choice.beside = Interval.of(list(accuracy.values())) if accuracy else None
        choices.append(choice)
    choices.sort(key=lambda choice: ranking_key(choice.setting, judge, choice.values))
    _mark(choices)
    by = "" if tested else f"{comparison.by} "
    chosen_by, shown = f"{comparison.by} {comparison.metric}", None if beside is None else by + beside
    tuned = RankedFamilies(comparison.rate, chosen_by, by + judge, shown, choices)
    tuned.notes = marks_legend(choice.mark for choice in choices)
    tuned.notes += _by_final(comparison) if tested else _untested(test, counted, without)
    return tuned


def _of_test(metric: str) -> str | None:
    """The test metric that a validation metric is the same as.

    >>> _of_test("val/accuracy"), _of_test("val_loss"), _of_test("train/loss")
    ('test/accuracy', 'test_loss', None)
    """
    name = re.sub(r"^val(idation)?(?=[/_.-])", "test", metric)
    return None if name == metric else name


def _accuracy(runs: Sequence[Run], judge: str, tested: bool) -> str | None:
    """The accuracy on the data that ``judge`` is of, where it is another metric."""
    names = {name for run in runs for name in (run.test if tested else {**run.final, **run.series})}
    same_data = re.split(r"[/_.-]", judge)[0]
    found = [name for name in names - {judge} if name.startswith(same_data) and "acc" in name.lower()]
    return min(found, default=None)


def _reached(metric: str, by: str, tested: bool) -> Callable[[Run], float | None]:
    if tested:
        return lambda run: run.test.get(metric)
    return partial(best_value if by == "best" else final_value, metric=metric)


def _mark(choices: Sequence[BestRate]) -> None:
    first = choices[0]
    if not first.values:
        return
    first.mark = "best"
    for choice in choices[1:]:
        if choice.values:
            choice.mark = mark_against_best(first.values, choice.values)


def _untested(test: str | None, counted: Sequence[Run], without: Sequence[Run]) -> list[str]:
    """Why there is no independent judgement, and how to get one."""
    said = "rates are chosen and families judged on the same data, so a little optimistic"
    if not counted:
        return []
    if test is None:
        return [f"{said}: rank by a validation metric, and train with test=true"]
    if len(without) == len(counted):
        return [f"{said}: train with test=true"]
    some = ", ".join(run.name for run in without[:3]) + (", ..." if len(without) > 3 else "")
    have = "has" if len(without) == 1 else "have"
    return [f"{said}: {len(without)} of the {len(counted)} chosen runs {have} no {test} ({some})"]


def _by_final(comparison: Comparison) -> list[str]:
    """Where another rate is best at the end of the runs: it is their last weights that were tested."""
    metric, chosen = comparison.metric, comparison.chosen()

    def by_final(setting: Setting) -> tuple[Any, ...]:
        return ranking_key(setting, metric, values_over_seeds(setting, partial(final_value, metric=metric)))

    finals = {name: min((setting for _, setting in at), key=by_final) for name, at in comparison.families().items()}
    others = [
        f"{name} {finals[name].label[str(comparison.rate)]}" for name in chosen if finals[name] is not chosen[name]
    ]
    said = f"tested are the last weights, and by the final {metric} another rate is best: {', '.join(others)}; by=final"
    return [said] if others else []

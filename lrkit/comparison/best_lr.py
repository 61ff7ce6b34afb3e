"""The best learning rate of each family, and the ranking of the families at these rates.

A *family* is the settings of a sweep that differ only in their learning rate. At one rate for all families, the family
wins that the rate happens to suit. So validation data choose the rate of each family, and test data rank the families.
Test data do not take part in the choice: the best of many values is optimistic as an estimate of the next one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from lrkit.comparison.metric_values import best_value, final_value, values_over_seeds
from lrkit.comparison.rank_order import mark_against_best, marks_legend, ranking_key
from lrkit.comparison.run_groups import Setting
from lrkit.comparison.statistics import Interval
from lrkit.runs.run_reader import Run

if TYPE_CHECKING:
    from lrkit.comparison.ranking import Comparison

__all__ = ["BestRate", "RankedFamilies", "choose_best_rates"]


@dataclass
class BestRate:
    """A family at its own best learning rate.

    Attributes:
        name: the label of the family in one line.
        label: column -> text, for all columns but the learning rate.
        rate: the learning rate as the user wrote it; empty without a rate, or if no run of the family finished.
        edge: ``lowest`` or ``highest`` of the tried rates, ``only`` if one rate was tried, else empty.
        setting: the best setting of the family.
        values: seed -> value of the metric that ranks the families.
        chosen: mean of the metric that chose the rate.
        beside: mean of the accuracy, if the accuracy does not rank the families.
        mark: ``best``; ``=`` if not separable from the best; ``?`` if there are too few runs for a test.
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
        """The rate, with ``(edge)`` or ``(only one)`` if a better rate may lie outside the tried rates."""
        if not self.values:
            return "no run finished"
        return self.rate + {"": "", "only": " (only one)"}.get(self.edge, " (edge)")


@dataclass
class RankedFamilies:
    """The families, best first.

    Attributes:
        rate: name of the column of learning rates.
        chosen_by: metric that chose the rates, such as ``best val/loss``.
        judged_by: metric that ranks the families: a test metric, or ``chosen_by``.
        beside: name of the accuracy, if there is one and it does not rank the families.
        choices: one entry a family.
        notes: sentences for the reader of the table.
    """

    rate: str
    chosen_by: str
    judged_by: str
    beside: str | None
    choices: list[BestRate]
    notes: list[str] = field(default_factory=list)

    @property
    def tested(self) -> bool:
        """Whether other data rank the families than those that chose the rates."""
        return self.judged_by != self.chosen_by


def choose_best_rates(comparison: Comparison) -> RankedFamilies | None:
    """Choose a learning rate for each family, and rank the families at these rates.

    The rate of a family is the rate of its setting that the comparison ranks first. The test metric of the same name
    ranks the families, if all chosen runs have it; else the metric that chose the rates.

    Returns:
        The families, best first; None if no rate was swept or there is only one family.
    """
    families, chosen = comparison.families(), comparison.chosen()
    if comparison.rate is None or len(families) < 2 or not comparison.rates():
        return None
    counted = [run for setting in chosen.values() for run in setting.counted]
    test = _find_test_metric(comparison.metric)
    without = [run for run in counted if test not in run.test]
    tested = test is not None and bool(counted) and not without
    judge = test if tested and test is not None else comparison.metric
    beside = _find_accuracy_metric(counted, judge, tested)
    choices = []
    for name, at in families.items():
        setting = at[0][1]
        label = {column: text for column, text in setting.label.items() if column != comparison.rate}
        choice = BestRate(name, label, "", "", setting)
        if name in chosen:
            choice.rate = setting.label[comparison.rate]
            choice.edge = comparison.edge(name) if name in comparison.rates() else "only"
            choice.chosen = getattr(setting, comparison.by)
            choice.values = values_over_seeds(setting, _choose_reader(judge, comparison.by, tested))
            accuracy = values_over_seeds(setting, _choose_reader(beside, comparison.by, tested)) if beside else {}
            choice.beside = Interval.of(list(accuracy.values())) if accuracy else None
        choices.append(choice)
    choices.sort(key=lambda choice: ranking_key(choice.setting, judge, choice.values))
    _mark_choices(choices)
    by = "" if tested else f"{comparison.by} "
    chosen_by, shown = f"{comparison.by} {comparison.metric}", None if beside is None else by + beside
    tuned = RankedFamilies(comparison.rate, chosen_by, by + judge, shown, choices)
    tuned.notes = marks_legend(choice.mark for choice in choices)
    tuned.notes += _compare_with_final(comparison) if tested else _explain_missing_test(test, counted, without)
    return tuned


def _find_test_metric(metric: str) -> str | None:
    """Return the name of the test metric that corresponds to a validation metric; None for another metric.

    >>> _find_test_metric("val/accuracy"), _find_test_metric("val_loss"), _find_test_metric("train/loss")
    ('test/accuracy', 'test_loss', None)
    """
    name = re.sub(r"^val(idation)?(?=[/_.-])", "test", metric)
    return None if name == metric else name


def _find_accuracy_metric(runs: Sequence[Run], judge: str, tested: bool) -> str | None:
    """Return the name of the accuracy on the same data as the metric ``judge``, if it is another metric."""
    names = {name for run in runs for name in (run.test if tested else {**run.final, **run.series})}
    same_data = re.split(r"[/_.-]", judge)[0]
    found = [name for name in names - {judge} if name.startswith(same_data) and "acc" in name.lower()]
    return min(found, default=None)


def _choose_reader(metric: str, by: str, tested: bool) -> Callable[[Run], float | None]:
    if tested:
        return lambda run: run.test.get(metric)
    return partial(best_value if by == "best" else final_value, metric=metric)


def _mark_choices(choices: Sequence[BestRate]) -> None:
    first = choices[0]
    if not first.values:
        return
    first.mark = "best"
    for choice in choices[1:]:
        if choice.values:
            choice.mark = mark_against_best(first.values, choice.values)


def _explain_missing_test(test: str | None, counted: Sequence[Run], without: Sequence[Run]) -> list[str]:
    """Say why no test data rank the families, and what to type to get them."""
    said = "the same data choose the rates and rank the families, so the ranking is slightly optimistic"
    if not counted:
        return []
    if test is None:
        return [f"{said}: rank by a validation metric, and train with test=true"]
    if len(without) == len(counted):
        return [f"{said}: train with test=true"]
    some = ", ".join(run.name for run in without[:3]) + (", ..." if len(without) > 3 else "")
    have = "has" if len(without) == 1 else "have"
    return [f"{said}: {len(without)} of the {len(counted)} chosen runs {have} no {test} ({some})"]


def _compare_with_final(comparison: Comparison) -> list[str]:
    """Note the families whose best rate is another one by the final value: test metrics are of the final weights."""
    metric, chosen = comparison.metric, comparison.chosen()

    def by_final(setting: Setting) -> tuple[Any, ...]:
        return ranking_key(setting, metric, values_over_seeds(setting, partial(final_value, metric=metric)))

    finals = {name: min((setting for _, setting in at), key=by_final) for name, at in comparison.families().items()}
    others = [
        f"{name} {finals[name].label[str(comparison.rate)]}" for name in chosen if finals[name] is not chosen[name]
    ]
    said = (
        f"the test used the final weights, and by the final {metric} another rate is best: {', '.join(others)}; "
        "to rank by it: by=final"
    )
    return [said] if others else []

"""The ranking of a sweep's settings: which one is best, and which ones are not separable from it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.metric_names import validation_loss_name
from lrkit.base.plural import plural
from lrkit.comparison.best_lr import RankedFamilies, choose_best_rates
from lrkit.comparison.environments import describe_differences
from lrkit.comparison.metric_values import best_value, final_value, values_over_seeds
from lrkit.comparison.rank_order import mark_against_best, marks_legend, ranking_key
from lrkit.comparison.run_groups import RATE, Setting, gather_settings, short_label
from lrkit.comparison.statistics import Interval
from lrkit.runs.diagnosis import KINDS
from lrkit.runs.dropped_settings import find_dropped
from lrkit.runs.run_folders import find_runs
from lrkit.runs.run_reader import FINISHED, Run, load_run

__all__ = ["BY", "Comparison", "compare"]

BY = ("best", "final")
_SYMPTOMS = 3  # settings whose diagnosis is a note of the comparison


@dataclass
class Comparison:
    """The settings, best first, with the metric that ranks them.

    Attributes:
        metric: name of the metric.
        by: ``best`` or ``final``: the value of a run that counts.
        columns: keys in which the settings differ.
        settings: one entry a setting.
        notes: sentences for the reader of the table.
        answer_predicted: a sentence with the first one of a prediction, which ranks before all; empty without one.
    """

    metric: str
    by: str
    columns: list[str]
    settings: list[Setting]
    notes: list[str] = field(default_factory=list)
    answer_predicted: str = ""

    @property
    def rate(self) -> str | None:
        """The column of learning rates; None if no learning rate was swept."""
        return next((column for column in self.columns if RATE.search(column)), None)

    @cached_property
    def best_rates(self) -> RankedFamilies | None:
        """The families at their own best learning rates: computed once, for all tables, pictures and the page."""
        return choose_best_rates(self)

    def families(self) -> dict[str, list[tuple[float | None, Setting]]]:
        """Return family -> (rate, setting), best first; the rate is None where its text is not a positive number."""
        if self.rate is None:
            return {}
        families: dict[tuple[str, ...], list[tuple[float | None, Setting]]] = {}
        for setting in self.settings:
            others = tuple(text for column, text in setting.label.items() if column != self.rate)
            families.setdefault(others, []).append((_parse_rate(setting.label[self.rate]), setting))
        columns = [column for column in self.columns if column != self.rate]
        labels = [dict(zip(columns, others, strict=True)) for others in families]
        short = Counter(map(short_label, labels))
        names = [short_label(label) if short[short_label(label)] == 1 else _join_label(label) for label in labels]
        return dict(zip(names, families.values(), strict=True))

    def rates(self) -> dict[str, list[tuple[float, Setting]]]:
        """Return family -> (rate, setting), by rising rate, for the families with two rates or more."""
        found = {
            name: sorted(((rate, setting) for rate, setting in at if rate is not None), key=lambda pair: pair[0])
            for name, at in self.families().items()
        }
        return {name: at for name, at in found.items() if at and at[0][0] < at[-1][0]}

    def chosen(self) -> dict[str, Setting]:
        """Return family -> its best setting, for the families with a finished run in it."""
        first = {name: at[0][1] for name, at in self.families().items()}
        return {name: setting for name, setting in first.items() if setting.ended and setting.values}

    def edge(self, family: str) -> str:
        """Return ``lowest`` or ``highest`` if the best rate of a family is that one of the tried rates, else ``""``."""
        rates, best = self.rates().get(family), self.chosen().get(family)
        if rates is None or best is None:
            return ""
        return "lowest" if rates[0][1] is best else "highest" if rates[-1][1] is best else ""


def compare(
    paths: Sequence[Path | str], metric: str | None = None, by: str = "best", predicted: Sequence[Run] = ()
) -> Comparison:
    """Read the runs below ``paths``, gather them into settings, and rank these.

    Args:
        paths: folders of runs or of sweeps.
        metric: metric that ranks the settings; None for the monitored metric of most runs. Higher is better for
            accuracy, F1 and AUC.
        by: ``best`` or ``final``: the value of a run that counts. Best is the best logged value; for a metric
            without a curve it is the value at the step where the monitored metric was best.
        predicted: runs that were not trained, with the status ``predicted``: they rank after the finished runs.

    Raises:
        ConfigError: the paths hold no run, or no run has the metric.
    """
    if by not in BY:
        raise ConfigError("by", f"must be one of {', '.join(BY)}", by)
    runs = [load_run(folder, name) for folder, name in find_runs([Path(path) for path in paths]).items()]
    metric = _choose_metric(runs, metric)
    for run in runs:
        if run.status in FINISHED and _has_diverged(run, metric):
            run.status = "diverged"
    notes = [f"{run.name}: {note}" for run in runs for note in run.notes]
    columns, settings = gather_settings([*runs, *predicted], notes)
    for setting in settings:
        _fill_means(setting, metric, by)
    settings.sort(key=lambda setting: ranking_key(setting, metric, setting.values))
    _mark_settings(settings)
    comparison = Comparison(metric, by, columns, settings, notes)
    notes += [*_collect_notes(comparison), *describe_differences(runs), *find_dropped([Path(path) for path in paths])]
    return comparison


def _choose_metric(runs: Sequence[Run], asked: str | None) -> str:
    """Return the metric that ranks: ``asked``, else the one that most runs monitored, else the validation loss."""
    names = {name for run in runs for name in (*run.final, *run.series)}
    beside = re.compile(r"(result/|lr\b|momentum/|weight_decay/|gain$|epoch$)")
    there = sorted(name for name in names if not beside.match(name))
    if asked is not None and asked in names:
        return asked
    if not there:
        raise ConfigError("metric", f"needs a logged metric: there is none in {plural(len(runs), 'run')}")
    if asked is not None:
        raise ConfigError("metric", f"must be a metric of the runs. {did_you_mean(asked, there)}", asked)
    monitored = Counter(run.monitor for run in runs if run.monitor in names)
    found = monitored.most_common(1)[0][0] if monitored else validation_loss_name(there)
    found = found or next((name for name in there if "loss" in name.lower()), None)
    if found is None:
        raise ConfigError("metric", f"must be set: no run names its monitored metric. {did_you_mean('', there)}")
    return found


def _has_diverged(run: Run, metric: str) -> bool:
    ends = [final_value(run, name) for name in (metric, "train/loss", "val/loss")] + [*run.test.values()]
    return any(value is not None and not math.isfinite(value) for value in ends)


def _fill_means(setting: Setting, metric: str, by: str) -> None:
    """Set the best and the final mean of a setting, and its values for the ranking."""
    for name, value_of in (("best", best_value), ("final", final_value)):
        values = values_over_seeds(setting, partial(value_of, metric=metric))
        if values:
            setattr(setting, name, Interval.of(list(values.values())))
        if name == by:
            setting.values = values


def _mark_settings(settings: Sequence[Setting]) -> None:
    """Mark the best setting, and those not separable from it. Without a finished run no setting is best."""
    first = settings[0]
    if not first.ended or not first.values:
        return
    first.mark = "best"
    for setting in settings[1:]:
        if setting.ended and setting.values:
            setting.mark = mark_against_best(first.values, setting.values)


def _collect_notes(comparison: Comparison) -> list[str]:
    """Return the notes for the reader of the table."""
    settings = comparison.settings
    said = marks_legend(setting.mark for setting in settings)
    if len(settings) > 1 and all(len(setting.runs) == 1 for setting in settings):
        said = ["each setting has one run, so its variation over seeds is unknown; to measure it: -m seed=1,2,3"]
    if any(setting.broken and setting.ended for setting in settings):
        said.append("settings with an unfinished run rank after the others; their mean covers the finished runs only")
    for family, at in comparison.rates().items():
        if edge := comparison.edge(family):
            name, best = f"{family}: " if family else "", at[0 if edge == "lowest" else -1][0]
            said.append(f"{name}the best {comparison.rate}, {best:g}, is the {edge} tried")
    return said + _summarise_symptoms(settings)


def _summarise_symptoms(settings: Sequence[Setting]) -> list[str]:
    """Return the symptom that most runs of a setting share, for the first settings in the ranking with one."""
    said = []
    for setting in settings:
        for kind in KINDS:
            advice = [run.findings[kind] for run in setting.runs if kind in run.findings]
            if 2 * len(advice) > len(setting.runs):
                said.append(f"{setting.name}: {kind} in {len(advice)} of {len(setting.runs)} runs; try {advice[0]}")
                break
    more = [f"symptoms of {plural(len(said) - _SYMPTOMS, 'more setting')}: see their metrics.json"]
    return said[:_SYMPTOMS] + (more if len(said) > _SYMPTOMS else [])


def _parse_rate(text: str) -> float | None:
    try:
        rate = float(text)
    except ValueError:  # a run of another program without a rate
        return None
    return rate if 0 < rate < math.inf else None


def _join_label(label: Mapping[str, str]) -> str:
    return " ".join(f"{column}={text}" for column, text in label.items() if text)

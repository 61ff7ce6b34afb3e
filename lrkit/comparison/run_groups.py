"""Settings: groups of runs whose configs differ only in the seed, and the columns in which the settings differ."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lrkit.comparison.statistics import Interval
from lrkit.runs.run_reader import FINISHED, Run

__all__ = ["PREDICTED", "RATE", "Setting", "gather_settings", "short_label"]

#: The status of a run that was not trained: its curve is a prediction.
PREDICTED = "predicted"

#: The keys of learning rates. Such a key is a column even where the choice of the optimizer explains it.
RATE = re.compile(r"(^|[._/])(lr|learning_rate|base_lr|max_lr)$")


@dataclass
class Setting:
    """Runs that differ only in their seed.

    Attributes:
        label: column -> text, for the keys in which the settings differ.
        runs: all runs of the setting.
        values: seed -> value of the metric that ranks the settings, of the ``counted`` runs.
        best, final: mean of the best and of the last value of the metric, over the counted runs.
        mark: ``best``; ``=`` if not separable from the best; ``?`` if there are too few runs for a test.
    """

    label: dict[str, str]
    runs: list[Run]
    values: dict[object, float] = field(default_factory=dict)
    best: Interval | None = None
    final: Interval | None = None
    mark: str = ""

    @property
    def name(self) -> str:
        return short_label(self.label) or self.runs[0].name

    @property
    def counted(self) -> list[Run]:
        """The finished runs; all runs if none finished."""
        return [run for run in self.runs if run.status in FINISHED] or self.runs

    @property
    def broken(self) -> int:
        """Number of runs that did not finish."""
        return sum(run.status not in FINISHED for run in self.runs)

    @property
    def ended(self) -> int:
        """Number of finished runs."""
        return len(self.runs) - self.broken

    @property
    def status(self) -> str:
        counts = Counter(run.status for run in self.runs)
        return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{n} {status}" for status, n in counts.items())

    @property
    def steps(self) -> int | None:
        return max((run.steps for run in self.counted if run.steps is not None), default=None)

    @property
    def seconds(self) -> float | None:
        known = [run.seconds for run in self.counted if run.seconds is not None]
        return sum(known) / len(known) if known else None


def short_label(label: Mapping[str, str]) -> str:
    """Return a label in one line: the name of an option alone, but a number, true, false and none with the key.

    >>> short_label({"schedule": "cosine", "warmup.length": "", "optimizer.lr": "0.1"})
    'cosine lr=0.1'
    """
    words = []
    for key, text in label.items():
        says_itself = text[:1].isalpha() and text not in ("true", "false", "none")
        words += [text if says_itself or key == "run" else f"{key.rpartition('.')[2]}={text}"] if text else []
    return " ".join(words)


def gather_settings(runs: Sequence[Run], notes: list[str]) -> tuple[list[str], list[Setting]]:
    """Return the columns, and the settings in the order of their first runs; add a note for each run left out."""
    by_source = {source: [run for run in runs if run.source == source] for source in ("config", "hparams", "name")}
    differing = {source: _find_differing_keys(some) for source, some in by_source.items()}
    columns = _build_columns(by_source["config"], differing["config"])
    for key in differing["hparams"]:
        columns.setdefault(key, {}).update(
            {run.name: _format_value(run.facts.get(key)) for run in by_source["hparams"]}
        )
    columns = dict(sorted(columns.items(), key=lambda column: "." in column[0]))  # an option before its keys
    settings: dict[tuple[Any, ...], Setting] = {}
    for run in runs:
        what = run.name if run.source == "name" else tuple(run.facts.get(key) for key in differing[run.source])
        label = {column: texts.get(run.name, "") for column, texts in columns.items()}
        settings.setdefault((run.source, what), Setting(label, [])).runs.append(run)
    found = list(settings.values())
    for setting in found:
        setting.runs = _drop_repeated_runs(setting.runs, notes)
    labels = Counter(tuple(setting.label.values()) for setting in found)
    if len(found) > 1 and any(n > 1 or not any(label) for label, n in labels.items()):  # only the name differs
        for setting in found:
            setting.label = {"run": setting.runs[0].name, **setting.label}
    return list(found[0].label), found


def _find_differing_keys(runs: Sequence[Run]) -> list[str]:
    """Return the keys with more than one value; a missing key counts as null."""
    keys = dict.fromkeys(key for run in runs for key in run.facts)
    return [key for key in keys if len({run.facts.get(key) for run in runs}) > 1]


def _build_columns(runs: Sequence[Run], keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return column -> run -> text: the option of a config group in place of the keys that the option determines.

    ``schedule=step`` and ``schedule=cosine`` differ in their class, and in every key that only one of them has. A key
    is left out if the option determines its value; a key that differs within an option stays, and so does a rate.
    """
    columns: dict[str, dict[str, str]] = {}
    for key in keys:
        group = _find_group(key, runs)
        options = _find_options(group, runs) if group else {}
        if group and len(set(options.values())) > 1:
            columns.setdefault(group, options)
            within: dict[str, set[Any]] = {}
            for run in runs:
                within.setdefault(options[run.name], set()).add(run.facts.get(key))
            if all(len(values) == 1 for values in within.values()) and not RATE.search(key):
                continue
        columns[key] = {run.name: _format_value(run.facts.get(key)) for run in runs}
    return columns


def _find_group(key: str, runs: Sequence[Run]) -> str | None:
    """Return the config group of a key, such as ``schedule`` or ``coschedule.momentum``; None for a key outside."""
    parts = key.split(".")
    above = [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]
    return next((g for g in above if any(g in run.choices or f"{g}._target_" in run.facts for run in runs)), None)


def _find_options(group: str, runs: Sequence[Run]) -> dict[str, str]:
    """Return run -> its option of a config group: from Hydra's record if every run has one, else from the class."""
    if all(group in run.choices for run in runs):
        return {run.name: run.choices[group] for run in runs}
    return {run.name: _class_to_option(str(run.facts.get(f"{group}._target_", "none"))) for run in runs}


def _class_to_option(target: str) -> str:
    """Return the name of the option for a class, by convention: ``lrkit.schedules.OneCycle`` is ``one_cycle``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", target.rpartition(".")[2]).lower()


def _format_value(value: Any) -> str:
    """Return a value as text, as an override writes it."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _drop_repeated_runs(runs: Sequence[Run], notes: list[str]) -> list[Run]:
    """Return one run for each seed, the newest finished one: a repeated run would make the interval too narrow."""
    by_seed: dict[object, Run] = {}
    for run in runs:
        before = by_seed.get(run.repeat)
        if before is None or run.status in FINISHED or before.status not in FINISHED:
            by_seed[run.repeat] = run
        if before is not None:
            left_out = before if by_seed[run.repeat] is run else run
            notes.append(
                f"{left_out.name} is left out: {by_seed[run.repeat].name} has the same setting and the same seed"
            )
    return list(by_seed.values())

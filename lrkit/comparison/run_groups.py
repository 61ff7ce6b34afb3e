"""Settings: runs gathered by all that was configured but the seed, and the columns that tell settings apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lrkit.comparison.statistics import Interval
from lrkit.runs.run_reader import FINISHED, Run

__all__ = ["RATE", "Setting", "gather_settings", "short_label"]

#: A learning rate, by whatever name: shown also where the choice of the optimizer explains it, and may be an axis.
RATE = re.compile(r"(^|[._/])(lr|learning_rate|base_lr|max_lr)$")


@dataclass
class Setting:
    """Runs that differ in their seed alone.

    Attributes:
        label: column -> text, for the keys in which the settings differ.
        runs: all of them.
        values: seed -> what the settings are ranked by; of the runs that came to their end, if any did.
        best, final: the best and the last value of the metric, over those runs.
        mark: ``best``; ``=`` where it cannot be told apart from the best; ``?`` where there are too few runs to say.
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
        """The runs that came to their end; all of them where none did."""
        return [run for run in self.runs if run.status in FINISHED] or self.runs

    @property
    def broken(self) -> int:
        """How many runs did not come to their end."""
        return sum(run.status not in FINISHED for run in self.runs)

    @property
    def ended(self) -> int:
        """How many runs came to their end."""
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
    """A label in short: an option says by itself what it is of, a number needs its key.

    >>> short_label({"schedule": "cosine", "warmup.length": "", "optimizer.lr": "0.1"})
    'cosine lr=0.1'
    """
    words = []
    for key, text in label.items():
        says_itself = text[:1].isalpha() and text not in ("true", "false", "none")
        words += [text if says_itself or key == "run" else f"{key.rpartition('.')[2]}={text}"] if text else []
    return " ".join(words)


def gather_settings(runs: Sequence[Run], notes: list[str]) -> tuple[list[str], list[Setting]]:
    """The columns, and the settings in the order of their first runs; what was left out goes into ``notes``."""
    by_source = {source: [run for run in runs if run.source == source] for source in ("config", "hparams", "name")}
    differing = {source: _differing(some) for source, some in by_source.items()}
    columns = _columns(by_source["config"], differing["config"])
    for key in differing["hparams"]:
        columns.setdefault(key, {}).update({run.name: _text(run.facts.get(key)) for run in by_source["hparams"]})
    columns = dict(sorted(columns.items(), key=lambda column: "." in column[0]))  # what was chosen, before its keys
    settings: dict[tuple[Any, ...], Setting] = {}
    for run in runs:
        what = run.name if run.source == "name" else tuple(run.facts.get(key) for key in differing[run.source])
        label = {column: texts.get(run.name, "") for column, texts in columns.items()}
        settings.setdefault((run.source, what), Setting(label, [])).runs.append(run)
    found = list(settings.values())
    for setting in found:
        setting.runs = _without_repeated(setting.runs, notes)
    labels = Counter(tuple(setting.label.values()) for setting in found)
    if len(found) > 1 and any(n > 1 or not any(label) for label, n in labels.items()):  # nothing else tells them apart
        for setting in found:
            setting.label = {"run": setting.runs[0].name, **setting.label}
    return list(found[0].label), found


def _differing(runs: Sequence[Run]) -> list[str]:
    """Keys with more than one value; a key that is not there is null."""
    keys = dict.fromkeys(key for run in runs for key in run.facts)
    return [key for key in keys if len({run.facts.get(key) for run in runs}) > 1]


def _columns(runs: Sequence[Run], keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Column -> run -> text, for keys that differ: a group's option instead of all the keys that come with it.

    ``schedule=step`` and ``schedule=cosine`` differ in their class, and in every key that only one of them has. What
    the option explains is left out; a key that differs within an option is kept, and so is a rate.
    """
    columns: dict[str, dict[str, str]] = {}
    for key in keys:
        group = _group(key, runs)
        options = _options(group, runs) if group else {}
        if group and len(set(options.values())) > 1:
            columns.setdefault(group, options)
            within: dict[str, set[Any]] = {}
            for run in runs:
                within.setdefault(options[run.name], set()).add(run.facts.get(key))
            if all(len(values) == 1 for values in within.values()) and not RATE.search(key):
                continue
        columns[key] = {run.name: _text(run.facts.get(key)) for run in runs}
    return columns


def _group(key: str, runs: Sequence[Run]) -> str | None:
    """The group of a key, such as ``schedule`` or ``coschedule.momentum``; None for a key without one."""
    parts = key.split(".")
    above = [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]
    return next((g for g in above if any(g in run.choices or f"{g}._target_" in run.facts for run in runs)), None)


def _options(group: str, runs: Sequence[Run]) -> dict[str, str]:
    """Run -> its option of a group: by name where Hydra kept it for every run, else by class."""
    if all(group in run.choices for run in runs):
        return {run.name: run.choices[group] for run in runs}
    return {run.name: _snake(str(run.facts.get(f"{group}._target_", "none"))) for run in runs}


def _snake(target: str) -> str:
    """The option that a class is by convention: ``lrkit.schedules.OneCycle`` is ``one_cycle``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", target.rpartition(".")[2]).lower()


def _text(value: Any) -> str:
    """A value as one would write it in an override."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _without_repeated(runs: Sequence[Run], notes: list[str]) -> list[Run]:
    """One run for each seed, the newest that came to its end: the same run twice would make a mean seem certain."""
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

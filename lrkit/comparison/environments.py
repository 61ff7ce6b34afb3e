"""The differences of the environments in which compared runs were made: git commit, versions, device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lrkit.base.plural import plural
from lrkit.runs.run_reader import Run

__all__ = ["describe_differences", "list_differences"]

_NAMED = 4  #: values that a note names


def list_differences(runs: Sequence[Run]) -> dict[str, dict[str, int]]:
    """Return fact -> value -> number of runs, for each fact that differs between the runs with a record of it."""
    facts = dict.fromkeys(fact for run in runs for fact in run.environment)
    counts = {fact: Counter(run.environment[fact] for run in runs if fact in run.environment) for fact in facts}
    return {fact: dict(values.most_common()) for fact, values in counts.items() if len(values) > 1}


def describe_differences(runs: Sequence[Run]) -> list[str]:
    """Return a sentence for each fact that differs.

    >>> from pathlib import Path
    >>> runs = [Run(name, Path(name), environment={"torch": version}) for name, version in ("a1", "b1", "c2")]
    >>> describe_differences(runs)
    ['the runs differ in torch: 1 (2 runs), 2 (1 run)']
    """
    notes = []
    for fact, values in list_differences(runs).items():
        named = [f"{value} ({plural(n, 'run')})" for value, n in list(values.items())[:_NAMED]]
        more = [f"{len(values) - _NAMED} more"] if len(values) > _NAMED else []
        notes.append(f"the runs differ in {fact}: {', '.join([*named, *more])}")
    return notes

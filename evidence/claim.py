"""A published claim, and the finding of its experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lrkit.comparison.statistics import Interval, means_differ

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from evidence.lab import Lab

__all__ = [
    "NOT_REPRODUCED",
    "NOT_SEPARABLE",
    "REPRODUCED",
    "WORDS",
    "Claim",
    "Finding",
    "edge",
    "markdown",
    "more",
    "verdict",
]

REPRODUCED, NOT_SEPARABLE, NOT_REPRODUCED = "reproduced", "not separable", "not reproduced"
#: The words of a verdict in a sentence that compares two results.
WORDS = {REPRODUCED: "better than", NOT_REPRODUCED: "worse than", NOT_SEPARABLE: "not separable from"}


@dataclass(frozen=True)
class Finding:
    """The result of an experiment.

    Args:
        verdict: one of the three verdicts above, or several in words if the claim has parts.
        words: reasons for the verdict, and its limits.
        table: rows of cells; the first row is the head.
        picture: figure, not yet saved.
    """

    verdict: str
    words: str
    table: Sequence[Sequence[str]]
    picture: Figure | None = None


@dataclass(frozen=True)
class Claim:
    """A published claim about learning rates.

    Args:
        title: title of the section.
        says: claim and its source, with the source's figures.
        protocol: models, data, number of runs, and the rules of choice.
        measure: function that runs the experiment and returns its finding.
        commands: commands that run the experiment, for the reader to change.
    """

    title: str
    says: str
    protocol: str
    measure: Callable[[Lab], Finding]
    commands: Sequence[str] = field(default=())


def verdict(better: Mapping[object, float], worse: Mapping[object, float]) -> str:
    """Return the verdict on the mean of ``better`` being larger than that of ``worse``, at 95 %; seed -> value.

    >>> verdict({1: 3.0, 2: 3.1}, {1: 1.0, 2: 1.1}), verdict({1: 1.0, 2: 3.1}, {1: 1.3, 2: 1.1})
    ('reproduced', 'not separable')
    """
    if not means_differ(better, worse):
        return NOT_SEPARABLE
    return REPRODUCED if sum(better.values()) / len(better) > sum(worse.values()) / len(worse) else NOT_REPRODUCED


def more(a: Mapping[object, float], b: Mapping[object, float]) -> Interval:
    """Return the interval of the differences ``a - b``, seed by seed."""
    return Interval.of([a[seed] - b[seed] for seed in b])


def edge(rate: float, tried: Iterable[float]) -> str:
    """Return `` (edge)`` if the best rate is the lowest or the highest tried, so that a better one may lie outside.

    >>> edge(0.1, [0.05, 0.1, 0.2]), edge(0.2, [0.05, 0.1, 0.2])
    ('', ' (edge)')
    """
    rates = sorted(tried)
    return " (edge)" if len(rates) > 1 and rate in (rates[0], rates[-1]) else ""


def markdown(table: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as a table in Markdown; the first column is text, the others are numbers."""
    head, *body = table
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *body])

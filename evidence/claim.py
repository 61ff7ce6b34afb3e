"""A claim, and what came out when it was tried."""

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
#: What a verdict on the one against the other is in a sentence.
WORDS = {REPRODUCED: "better than", NOT_REPRODUCED: "worse than", NOT_SEPARABLE: "not separable from"}


@dataclass(frozen=True)
class Finding:
    """What came out.

    Args:
        verdict: one of the three above, or several in words where a claim has parts.
        words: what the verdict rests on, and what it does not show.
        table: lines of cells; the first is the head.
        picture: drawn, not yet saved.
    """

    verdict: str
    words: str
    table: Sequence[Sequence[str]]
    picture: Figure | None = None


@dataclass(frozen=True)
class Claim:
    """Something that is said about learning rates.

    Args:
        title: in a few words.
        says: the claim and its source, with the source's figures.
        protocol: what was trained, on what, how often; what was chosen by what.
        measure: runs the trainings and looks at them.
        commands: how to run it oneself, and change it.
    """

    title: str
    says: str
    protocol: str
    measure: Callable[[Lab], Finding]
    commands: Sequence[str] = field(default=())


def verdict(better: Mapping[object, float], worse: Mapping[object, float]) -> str:
    """Whether what should have the larger mean has it, at 95 %; both are seed -> value.

    >>> verdict({1: 3.0, 2: 3.1}, {1: 1.0, 2: 1.1}), verdict({1: 1.0, 2: 3.1}, {1: 1.3, 2: 1.1})
    ('reproduced', 'not separable')
    """
    if not means_differ(better, worse):
        return NOT_SEPARABLE
    return REPRODUCED if sum(better.values()) / len(better) > sum(worse.values()) / len(worse) else NOT_REPRODUCED


def more(a: Mapping[object, float], b: Mapping[object, float]) -> Interval:
    """How much more ``a`` has than ``b``, seed by seed."""
    return Interval.of([a[seed] - b[seed] for seed in b])


def edge(rate: float, tried: Iterable[float]) -> str:
    """A word for a best rate beyond which a better one may lie.

    >>> edge(0.1, [0.05, 0.1, 0.2]), edge(0.2, [0.05, 0.1, 0.2])
    ('', ' (edge)')
    """
    rates = sorted(tried)
    return " (edge)" if len(rates) > 1 and rate in (rates[0], rates[-1]) else ""


def markdown(table: Sequence[Sequence[str]]) -> str:
    """Lines of cells as a table of Markdown; the first column is text, the others are numbers."""
    head, *body = table
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *body])

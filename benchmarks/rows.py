"""The rows of the benchmark table: a ratio, its aim, and whether the aim is reached."""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["Row", "command", "compared", "in_turn", "middle", "per_call", "seconds", "table"]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        what: name of the measured thing.
        against: name of its comparison.
        ratio: lrkit's value divided by the other's, of times or of bytes: below 1 is less.
        aim: largest ratio that counts as reached; None without an aim.
        spread: smallest and largest ratio of the rounds.
        figures: absolute values, as text.
    """

    what: str
    against: str
    ratio: float
    aim: float | None = None
    spread: tuple[float, float] | None = None
    figures: str = ""

    def cells(self) -> list[str]:
        spread = "" if self.spread is None else f" ({self.spread[0]:.2f}-{self.spread[1]:.2f})"
        reached = "" if self.aim is None else "yes" if self.ratio <= self.aim else "**no**"
        aim = "" if self.aim is None else f"{self.aim:.2f}"
        return [self.what, self.against, f"{self.ratio:.2f}{spread}", aim, reached, self.figures]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown."""
    head = ["what", "against", "ratio", "aim", "reached", "figures"]
    lines = [head, ["---", "---", "--:", "--:", "---", "---"], *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def in_turn(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return name -> its value in each round; measured in turn, so that a round has the same conditions for all."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(way())
    return taken


def per_call(call: Callable[[], object], calls: int) -> float:
    """Return the mean seconds of one of ``calls`` calls in a row."""
    begun = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begun) / calls


def seconds(words: Sequence[str], **environment: str) -> float:
    """Return the wall time of a command in an empty folder, with one thread a process for equal conditions."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        done = subprocess.run([*words], cwd=folder, env=env, capture_output=True, text=True)
        taken = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{words} failed: {done.stderr[-2000:]}")
    return taken


def middle(values: Sequence[float]) -> float:
    """Return the middle one of the measured values (of an even number, the upper one)."""
    return sorted(values)[len(values) // 2]


def compared(
    what: str,
    other: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    aim: float | None = None,
    figures: str = "",
) -> Row:
    """Return the row of two ways that were measured in turn."""
    ratio, spread = against(ours, theirs)
    return Row(what, other, ratio, aim, spread, figures)


def command(about: str | None, rows: Callable[..., Sequence[Row]], **options: int) -> None:
    """Measure the rows and print them; the command line has ``options``, such as ``--rounds 3``."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in options.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    print(table(rows(**vars(parser.parse_args()))))


def against(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the median of the ratios of the rounds, and the smallest and the largest ratio."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return median(ratios), (min(ratios), max(ratios))

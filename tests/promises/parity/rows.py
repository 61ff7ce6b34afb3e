"""A row: a schedule of another library, its formula, and the overrides that say it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["CLOSE", "Peer", "Row", "cosine", "formula", "phases", "product", "shaped", "table", "warmed"]

#: The largest difference of two equal curves, as a share of the base rate: both are computed in float64.
CLOSE = 1e-12

Curve = Callable[[float], float]


@dataclass(frozen=True)
class Row:
    """A schedule as its own library writes it, and as lrkit does.

    Args:
        call: the schedule in the words of the library.
        lrkit: the overrides, as in a shell; empty for a schedule that lrkit cannot say, which ``UNSAID`` explains.
        theirs: the multiplier of the base rate at an optimizer step.
        steps: the optimizer steps of the run.
        epoch: the optimizer steps of an epoch, where a duration counts in epochs.
        compared: the number of steps to compare; ``None``: the run, and the step after it.
        convention: where the two differ on purpose, and which choice each one takes.
        difference: the largest difference, measured, as a share of the base rate; 0 for equal curves.
    """

    call: str
    lrkit: str
    theirs: Curve
    steps: int = 60
    epoch: int | None = None
    compared: int | None = None
    convention: str = ""
    difference: float = 0.0


@dataclass(frozen=True)
class Peer:
    """A library: its name, the version and file that the formulas were read from, and its rows."""

    name: str
    source: str
    rows: Sequence[Row]


def cosine(u: float) -> float:
    """Half a cosine, from 1 at ``u = 0`` to 0 at ``u = 1``."""
    return 0.5 * (1 + math.cos(math.pi * u))


def warmed(steps: int, first: float, after: Curve, *, own_clock: bool = True) -> Curve:
    """A straight line from ``first`` to 1 in ``steps`` steps, and then ``after``, whose clock starts there or at 0."""
    return lambda t: first + t * (1 - first) / steps if t < steps else after(t - steps if own_clock else t)


def phases(*parts: str) -> str:
    """The overrides of schedules one after the other, each as its name and its keys: ``linear, length: 10``."""
    return f"schedule=piecewise 'schedule.phases=[{_listed(parts)}]'"


def product(*factors: str) -> str:
    """The overrides of a product of schedules."""
    return f"schedule=product 'schedule.factors=[{_listed(factors)}]'"


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(f"{{name: {part}}}" if "," in part else part for part in parts)


def table(*rows: tuple[int, float], interpolate: str = "previous") -> str:
    """The overrides of a table: steps and values, stairs between them."""
    listed = ", ".join(f"[{step}, {value}]" for step, value in rows)
    return f"schedule=table 'schedule.table=[{listed}]' schedule.interpolate={interpolate}"


def shaped(name: str, keys: str) -> str:
    """The override of the decay of ``wsd``, by an option of ``cooldown`` and its keys."""
    return f"'schedule.shape={{name: {name}, {keys}}}'"


def formula(text: str) -> str:
    """The overrides of a formula of the step ``s``."""
    return f"schedule=formula 'schedule.formula=\"{text}\"'"

"""A fixed learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lrkit.schedules.shapes.schedule import Endless, number

__all__ = ["Constant", "Plateau"]


@dataclass(frozen=True)
class Constant(Endless):
    """The same value at each step: a fixed learning rate.

        m = start

    >>> Constant()(7, 10)
    1.0
    """

    start: float = number(1.0, low=0)

    def value(self, s: int, n: int) -> float:
        return self.start


@dataclass(frozen=True)
class Plateau(Constant):
    """A fixed rate that falls when the monitored metric stops improving: ``Constant`` with ``plateau=reduce``.

    The curve itself is constant; the reductions are the factor ``gain`` (see ``lrkit.planning.plateau``).
    """

    needs_plateau: ClassVar[bool] = True

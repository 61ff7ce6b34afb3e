"""The learning-rate range test as a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from lrkit.base.errors import ConfigError
from lrkit.base.validation import one_of
from lrkit.schedules.shapes.decays import Exponential
from lrkit.schedules.shapes.schedule import Schedule, blend, number

__all__ = ["RangeTest"]


@dataclass(frozen=True)
class RangeTest(Schedule):
    """The learning-rate range test as a schedule: the rate only rises, so that the loss shows the usable rates.

        m = start * (end / start) ** u        exponential: equally many steps in each factor of ten
        m = start * (1 - u) + end * u         linear, as in the paper

    ``lrkit find`` runs it, analyses the loss and stops early; as a schedule of a training, its last rate is
    ``optimizer.lr``.

    Args:
        start: first value, > 0.
        end: value at the end of the phase, > start.
        shape: ``exponential`` or ``linear``.

    Reference: Smith 2017, arXiv:1506.01186, section 3.3.

    >>> [round(RangeTest(start=1e-4)(s, 4), 9) for s in (0, 1, 2, 4)]
    [0.0001, 0.001, 0.01, 1.0]
    """

    start: float = number(1e-6, over=0)
    end: float = number(1.0, over=0)
    shape: Literal["exponential", "linear"] = "exponential"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("exponential", "linear").check("shape", self.shape)
        if self.start >= self.end:
            raise ConfigError("start", f"must be below end ({self.end})", self.start)

    def value(self, s: int, n: int) -> float:
        if self.shape == "linear":
            return blend(self.start, self.end, s / n)
        return self._rising(s, n)

    @cached_property
    def _rising(self) -> Exponential:
        return Exponential(gamma=None, start=self.start, end=self.end)

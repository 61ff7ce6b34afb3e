"""A phase: a schedule with a length in optimizer steps; and an excerpt: a part of a schedule as a phase."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lrkit.schedules.shapes import Schedule

__all__ = ["DELAY", "ENDLESS", "MEETS", "Excerpt", "Phase"]

DELAY = "delay"  #: the name of the phase in which a delayed curve is 0
ENDLESS = 2**53  # longer than any run, and exact as a float
MEETS = 1e-6  # the relative error of a computed value that must be 1


@dataclass(frozen=True)
class Phase:
    """A resolved schedule and its length in optimizer steps; ``None``: the end of the run is not known.

    ``scale`` multiplies the values: a warmup, which ends at 1, is scaled to the schedule's first value.
    """

    name: str
    schedule: Schedule
    length: int | None
    scale: float = 1.0

    def __call__(self, s: int) -> float:
        value = self.schedule(s, ENDLESS if self.length is None else self.length)
        return value if self.scale == 1.0 else value * self.scale

    @property
    def final(self) -> float:
        """The value at the end of this phase."""
        if self.length is None:
            return self(ENDLESS)
        value = self.schedule.final(self.length)
        return value if self.scale == 1.0 else value * self.scale


@dataclass(frozen=True, kw_only=True)
class Excerpt(Schedule):
    """A part of another schedule, from its step ``first`` to its step ``last``, in as many steps as the phase has.

    It represents a schedule after a warmup that overlaps it, and the two parts of a curve of a run that is resumed with
    another length: the part before the checkpoint, unchanged, and the part after it, stretched.
    """

    shape: Schedule
    of: int
    first: int
    last: int

    def value(self, s: int, n: int) -> float:
        if self.last - self.first == n:
            return self.shape(self.first + s, self.of)
        # A stretched shape is evaluated between its steps; a jump is then at the next step.
        return self.shape(self.first + s * (self.last - self.first) / n, self.of)  # type: ignore[arg-type]

    def end_value(self, n: int) -> float:
        return self.shape.final(self.of) if self.last == self.of else self.shape(self.last, self.of)

    def turns(self, n: int) -> list[int]:
        share = n / (self.last - self.first)
        inner = {math.ceil((e - self.first) * share) for e in self.shape.edges(self.of) if self.first < e < self.last}
        return sorted(e for e in inner if 0 < e < n)

    def describe(self) -> str:
        return f"part of {self.shape.describe()}"

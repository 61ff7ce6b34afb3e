"""A published expectation: the values that a library's own test asserts, and the overrides that give them in lrkit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Published", "Source"]

Values = Sequence[float]


@dataclass(frozen=True)
class Published:
    """A test of another library.

    Args:
        test: its name, and the case.
        lrkit: the overrides, as in a shell; empty for what lrkit cannot say.
        rates: the asserted learning rates: a sequence for each parameter group, the first one ``default``.
        momentum: the asserted momenta, in the same way.
        at: the optimizer steps of the values; empty: 0, 1, 2, ...
        steps: the optimizer steps of the run; 0: as many as there are values.
        epoch: the optimizer steps of an epoch.
        metrics: the metric after each step, for reduce-on-plateau; the values are those after it.
        within: the largest difference; ``None`` is that of the source.
        convention: where the two differ on purpose.
        difference: the largest difference, measured; 0 for equal values.
    """

    test: str
    lrkit: str
    rates: Sequence[Values] = ()
    momentum: Sequence[Values] = ()
    at: Sequence[int] = ()
    steps: int = 0
    epoch: int | None = None
    metrics: Values = ()
    within: float | None = None
    convention: str = ""
    difference: float = 0.0

    @property
    def sequences(self) -> int:
        """How many sequences of values it has."""
        return len(self.rates) + len(self.momentum)


@dataclass(frozen=True)
class Source:
    """A file of tests: the library, the file and its commit, how close its values are, and the rows."""

    name: str
    file: str
    within: float
    rows: Sequence[Published]

"""A schedule that is the product of other schedules."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from lrkit.base.errors import ConfigError
from lrkit.schedules.shapes.phases import Piecewise, check_schedules, resolve_schedules
from lrkit.schedules.shapes.schedule import Schedule

if TYPE_CHECKING:
    from lrkit.schedules.horizon import Horizon

__all__ = ["Product"]


@dataclass(frozen=True)
class Product(Schedule):
    """The product of schedules, which all begin at the first step of the phase.

        m = factors[0](s, n) * factors[1](s, n) * ...

    A factor with its own ``length`` keeps its end value after it. At most one factor may have its own momentum
    (``OneCycle``, ``Cyclic``).

    >>> from lrkit.schedules import Linear, Step
    >>> both = Product(factors=[Linear(), Step(every=50, gamma=0.1)])
    >>> both(25, 100), both(50, 100), both.edges(100)
    (0.75, 0.05, [50])
    """

    factors: Sequence[Schedule] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "factors", check_schedules("factors", self.factors))

    @property
    def bounded(self) -> bool:
        return any(factor.length is None and factor.bounded for factor in self.factors)

    def resolved(self, horizon: Horizon) -> Self:
        factors = resolve_schedules("factors", self.factors, horizon)
        return dataclasses.replace(super().resolved(horizon), factors=factors)

    def value(self, s: int, n: int) -> float:
        return math.prod(_evaluate_factor(factor, s, n) for factor in self.factors)

    def end_value(self, n: int) -> float:
        return math.prod(factor.final(_get_length(factor, n)) for factor in self.factors)

    def momentum(self, base: float) -> Schedule | None:
        """Return the momentum of the factor that sets it; it keeps its end value after the factor's own length.

        Raises:
            ConfigError: several factors set momentum.
        """
        keys = self.momentum_keys()
        if len({key.partition("]")[0] for key in keys}) > 1:
            raise ConfigError(keys[0], f"and {keys[-1]} both drive momentum: set all but one factor's to null")
        for factor in self.factors:
            if (moved := factor.momentum(base)) is not None:
                return Piecewise(phases=[moved], length=self.length, skip=self.skip, update_every=self.update_every)
        return None

    def momentum_keys(self) -> list[str]:
        return [f"factors[{i}].{key}" for i, factor in enumerate(self.factors) for key in factor.momentum_keys()]

    def turns(self, n: int) -> list[int]:
        edges: set[int] = set()
        for i, factor in enumerate(self.factors):
            length = _get_length(factor, n)
            if not 1 <= length <= n:
                raise ConfigError(f"factors[{i}].length", f"must be in [1, {n}], the steps of the schedule", length)
            try:
                edges |= {length, *factor.edges(length)}
            except ConfigError as error:
                raise error.under(f"factors[{i}]") from None
        return sorted(e for e in edges if 0 < e < n)


def _get_length(factor: Schedule, n: int) -> int:
    """Return the steps of a factor: its own length, or those of the phase."""
    return n if factor.length is None else int(factor.length)


def _evaluate_factor(factor: Schedule, s: int, n: int) -> float:
    """Return the value of a factor at step ``s``; after its own length, its end value."""
    length = _get_length(factor, n)
    return factor(s, length) if factor.length is None or s < length else factor.final(length)

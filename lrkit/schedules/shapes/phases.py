"""A schedule that consists of several schedules in sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from lrkit.base.errors import ConfigError
from lrkit.schedules.shapes.constant import Constant
from lrkit.schedules.shapes.schedule import Schedule

if TYPE_CHECKING:
    from lrkit.schedules.horizon import Horizon

__all__ = ["Piecewise"]


def check_schedules(key: str, schedules: object, each: str = "") -> tuple[Schedule, ...]:
    """Return the schedules of a list, as a tuple.

    Raises:
        ConfigError: not a list, an empty list, or a member that is not a schedule or has an ``overlap``.
    """
    if not isinstance(schedules, list | tuple) or not schedules:
        raise ConfigError(key, f"must be a list of schedules{each}", schedules)
    for i, schedule in enumerate(schedules):
        if not isinstance(schedule, Schedule):
            raise ConfigError(f"{key}[{i}]", "must be a schedule, such as {name: linear, end: 0.1}", schedule)
        schedule.refuse_overlap(f"{key}[{i}]")
    return tuple(schedules)


def resolve_schedules(
    key: str, schedules: Sequence[Schedule], horizon: Horizon, in_turn: bool = False
) -> tuple[Schedule, ...]:
    """Return the schedules of a list with their durations in steps; an error names the member.

    ``in_turn``: each schedule begins at the end of the one before it; else all begin together.
    """
    resolved = []
    for i, schedule in enumerate(schedules):
        try:
            resolved.append(schedule.resolved(horizon))
        except ConfigError as error:
            raise error.under(f"{key}[{i}]") from None
        if in_turn and horizon.origin is not None:
            horizon = horizon.counted_from(horizon.origin + int(resolved[-1].length or 0))
    return tuple(resolved)


@dataclass(frozen=True)
class Piecewise(Schedule):
    """Schedules in sequence, each with its own ``length``; the last one may have the rest of the steps.

        m = phases[i](s - first_i, length_i)

    A phase with its own momentum (``OneCycle``, ``Cyclic``) sets momentum during the phase; in other phases momentum is
    the optimizer's.

    >>> from lrkit.schedules import Constant, Linear
    >>> halves = Piecewise(phases=[Linear(start=0.0, end=1.0, length=10), Constant()])
    >>> halves(5, 20), halves(10, 20)
    (0.5, 1.0)
    """

    phases: Sequence[Schedule] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        phases = check_schedules("phases", self.phases, ", each with a length")
        for i, phase in enumerate(phases[:-1]):
            if phase.length is None:
                raise ConfigError(f"phases[{i}].length", "must be set: only the last phase may take the rest", None)
        object.__setattr__(self, "phases", phases)

    @property
    def bounded(self) -> bool:
        return self.phases[-1].length is None and self.phases[-1].bounded

    def resolved(self, horizon: Horizon) -> Self:
        phases = resolve_schedules("phases", self.phases, horizon, in_turn=True)
        return dataclasses.replace(super().resolved(horizon), phases=phases)

    def _list_spans(self, n: int) -> list[tuple[int, int, Schedule]]:
        """Return the first step, the length and the schedule of each phase."""
        spans, first = [], 0
        for i, phase in enumerate(self.phases):
            length = n - first if phase.length is None else int(phase.length)
            if length < 1 or first + length > n:
                raise ConfigError(f"phases[{i}].length", f"must fit: {n - first} of {n} steps are left", length)
            spans.append((first, length, phase))
            first += length
        return spans

    def value(self, s: int, n: int) -> float:
        first, length, phase = next(span for span in reversed(self._list_spans(n)) if span[0] <= s)
        return phase(s - first, length) if s < first + length else phase.final(length)

    def end_value(self, n: int) -> float:
        _, length, phase = self._list_spans(n)[-1]
        return phase.final(length)

    def momentum(self, base: float) -> Schedule | None:
        """Return the momentum of each phase; ``base`` in a phase that does not set momentum."""
        if not self.momentum_keys():
            return None
        parts = [phase.momentum(base) or Constant(start=base, length=phase.length) for phase in self.phases]
        return Piecewise(phases=parts, length=self.length, skip=self.skip, update_every=self.update_every)

    def momentum_keys(self) -> list[str]:
        return [f"phases[{i}].{key}" for i, phase in enumerate(self.phases) for key in phase.momentum_keys()]

    def turns(self, n: int) -> list[int]:
        edges: set[int] = set()
        for i, (first, length, phase) in enumerate(self._list_spans(n)):
            try:
                edges |= {first, first + length, *(first + inner for inner in phase.edges(length))}
            except ConfigError as error:
                raise error.under(f"phases[{i}]") from None
        return sorted(e for e in edges if 0 < e < n)

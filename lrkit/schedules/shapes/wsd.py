"""Warmup-stable-decay, with one decay at the end or with several."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from lrkit.base.errors import ConfigError
from lrkit.schedules.durations import Length
from lrkit.schedules.shapes.decay_shape import Shaped
from lrkit.schedules.shapes.schedule import Schedule, check_places, duration, number, resolve_places

if TYPE_CHECKING:
    from lrkit.schedules.horizon import Horizon

__all__ = ["Wsd"]


@dataclass(frozen=True)
class Wsd(Shaped):
    """Warmup-stable-decay: a constant rate, then a short decay (the warmup is the group ``warmup``).

        m = start                                     before the decay
        m = shape from start to end                   during the last ``decay`` of the phase

    WSD-S decays before each milestone too, and continues at ``start`` after it: one run gives several decayed
    checkpoints.

    Args:
        decay: length of a decay.
        shape: ``sqrt`` (1 - sqrt), ``linear``, ``cosine``, ``exponential``, ``logarithmic``, ``polynomial``, ``rex`` or
            ``tanh``; or a schedule with its own options, such as ``Polynomial(power=1, k=2)`` (1-square).
        milestones: increasing durations from the beginning of the schedule, at which an earlier decay reaches ``end``.
            For decays of different lengths use ``Piecewise`` with several ``Wsd``.

    Reference: Hu et al. 2024, MiniCPM, arXiv:2404.06395, section 4; Hägele et al. 2024, arXiv:2405.18392. WSD-S: Wen et
    al. 2024, arXiv:2410.05192.

    >>> [Wsd(decay=20, shape="linear")(s, 100) for s in (0, 80, 90)]
    [1.0, 1.0, 0.5]
    >>> [Wsd(decay=20, shape="linear", milestones=[50])(s, 100) for s in (30, 40, 50, 90)]
    [1.0, 0.5, 1.0, 0.5]
    """

    decay: Length = duration("20%")
    shape: str | Schedule = "sqrt"
    milestones: Sequence[Length] | None = None
    start: float = number(1.0, low=0)
    end: float = number(0.0, low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.milestones is not None:
            object.__setattr__(self, "milestones", check_places(self.milestones, "for one decay use null"))

    def resolved(self, horizon: Horizon) -> Self:
        made = super().resolved(horizon)
        if self.milestones is None:
            return made
        return dataclasses.replace(made, milestones=resolve_places(self.milestones, horizon))

    @cached_property
    def _decay_shape(self) -> Schedule:
        return self.decay_between(self.start, self.end)

    def _list_decays(self, n: int) -> list[tuple[int, int]]:
        """Return the first step of each decay, and the step at which it reaches ``end``."""
        milestones, decay = [int(milestone) for milestone in self.milestones or ()], int(self.decay)
        if milestones and milestones[-1] >= n:
            raise ConfigError("milestones", f"must lie before the end of the schedule, which has {n} steps", milestones)
        for before, arrival in pairwise([0, *milestones, n]):
            if decay > arrival - before:
                between = f"the {arrival - before} steps between step {before} and step {arrival}"
                parts = between if milestones else f"the phase, which has {n} steps"
                raise ConfigError("decay", f"must not be longer than {parts}", decay)
        return [(arrival - decay, arrival) for arrival in [*milestones, n]]

    def value(self, s: int, n: int) -> float:
        first, arrival = next(decay for decay in self._list_decays(n) if s < decay[1] or decay[1] == n)
        return self.start if s < first else self._decay_shape(s - first, arrival - first)

    def end_value(self, n: int) -> float:
        first, arrival = self._list_decays(n)[-1]
        return self._decay_shape.final(arrival - first)

    def turns(self, n: int) -> list[int]:
        return sorted({step for decay in self._list_decays(n) for step in decay if 0 < step < n})

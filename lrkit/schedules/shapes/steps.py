"""Step decay: the rate falls in steps, at equal distances or at milestones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from lrkit.base.errors import ConfigError
from lrkit.schedules.durations import Length
from lrkit.schedules.shapes.schedule import Endless, check_places, counted, duration, number, resolve_places

if TYPE_CHECKING:
    from lrkit.schedules.horizon import Horizon

__all__ = ["Multistep", "Step"]


@dataclass(frozen=True)
class Step(Endless):
    """Step decay: the rate is multiplied by ``gamma`` after each ``every``.

        m = start * gamma ** floor(s / every)

    Args:
        every: time between two drops.
        gamma: factor of a drop, > 0; above 1 the rate grows.
        start: first value.

    Equals ``torch.optim.lr_scheduler.StepLR``.

    >>> [round(Step(every=30, gamma=0.1)(s, 90), 9) for s in (0, 29, 30, 60)]
    [1.0, 1.0, 0.1, 0.01]
    """

    every: Length = duration("30%")
    gamma: float = number(0.1, over=0)
    start: float = number(1.0, low=0)

    def value(self, s: int, n: int) -> float:
        return float(self.start * float(self.gamma) ** (s // int(self.every)))

    def end_value(self, n: int) -> float:
        return self.value(n - 1, n)

    def turns(self, n: int) -> list[int]:
        counted("every", (n - 1) // int(self.every))
        return list(range(int(self.every), n, int(self.every)))

    def warnings(self, edges: Sequence[int], n: int) -> list[str]:
        if edges:
            return []
        return [f"the rate never drops: schedule.every ({self.every}) is not shorter than the schedule"]


@dataclass(frozen=True)
class Multistep(Endless):
    """Step decay at milestones.

        m = start * gamma ** (number of milestones <= s)

    Args:
        milestones: increasing durations from the beginning of the schedule; if the warmup overlaps the schedule
            (``warmup.overlap``), this is the beginning of the run.
        gamma: factor of a drop, > 0; above 1 the rate grows.
        start: first value.

    Equals ``torch.optim.lr_scheduler.MultiStepLR``.

    >>> [round(Multistep(milestones=[50, 75], gamma=0.1)(s, 100), 9) for s in (49, 50, 75)]
    [1.0, 0.1, 0.01]
    """

    milestones: Sequence[Length] = ("50%", "75%")
    gamma: float = number(0.1, over=0)
    start: float = number(1.0, low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        places = check_places(self.milestones, "for no drops use schedule=constant")
        object.__setattr__(self, "milestones", places)

    def resolved(self, horizon: Horizon) -> Self:
        places = resolve_places(self.milestones, horizon)
        return dataclasses.replace(super().resolved(horizon), milestones=places)

    def value(self, s: int, n: int) -> float:
        return float(self.start * float(self.gamma) ** sum(int(m) <= s for m in self.milestones))

    def end_value(self, n: int) -> float:
        return self.value(n - 1, n)

    def turns(self, n: int) -> list[int]:
        reached = [int(milestone) for milestone in self.milestones if int(milestone) < n]
        if not reached:
            must = f"must lie before the end of the schedule, which has {n} steps: the rate would never drop"
            raise ConfigError("milestones", must, list(self.milestones))
        return reached

    def warnings(self, edges: Sequence[int], n: int) -> list[str]:
        if len(edges) == len(self.milestones):
            return []
        late = self.milestones[len(edges)]
        return [f"milestone {late} is never reached: the schedule has {n} steps after the warmup"]

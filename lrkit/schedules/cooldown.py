"""The phase of a cooldown, which begins at the schedule's last value."""

from __future__ import annotations

import math

from lrkit.base.errors import ConfigError
from lrkit.schedules.phase import MEETS, Phase
from lrkit.schedules.shapes import Schedule

__all__ = ["build_cooldown_phase"]


def build_cooldown_phase(cooldown: Schedule, steps: int, arrived: float) -> Phase:
    """Return the phase of a cooldown from the value ``arrived``, its ``start``, or the factor of a shape without one.

    Args:
        cooldown: the resolved cooldown; its own ``start`` is not used.
        steps: the length of the cooldown.
        arrived: the last value of the schedule.

    Raises:
        ConfigError: a shape that needs more steps, or a shape without ``start`` that does not begin at 1, or rises.
    """
    if "start" in cooldown.ends:
        return Phase("cooldown", cooldown.with_ends(start=arrived), steps)
    cooldown.edges(steps)  # refuses a shape that needs more steps
    first, last = cooldown(0, steps), cooldown.final(steps)
    if not math.isclose(first, 1.0, rel_tol=MEETS):
        raise ConfigError("", f"must begin at 1, which is the schedule's last value; its first value is {first:g}")
    if last > 1.0:
        raise ConfigError("", f"must not end above 1, where it begins; after its {steps} steps it is {last:g}")
    return Phase("cooldown", cooldown, steps, arrived)

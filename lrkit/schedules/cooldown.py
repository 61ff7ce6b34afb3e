"""How a cooldown begins where the schedule has arrived."""

from __future__ import annotations

import math

from lrkit.base.errors import ConfigError
from lrkit.schedules.phase import MEETS, Phase
from lrkit.schedules.shapes import Schedule

__all__ = ["lay_cooldown"]


def lay_cooldown(cooldown: Schedule, steps: int, arrived: float) -> Phase:
    """The phase of a cooldown that begins at ``arrived``: its start, or the factor of a shape without ``start``.

    Args:
        cooldown: resolved; its ``start`` is not used.

    Raises:
        ConfigError: a shape that does not fit, or one without ``start`` that does not begin at 1, or rises.
    """
    if "start" in cooldown.ends:
        return Phase("cooldown", cooldown.with_ends(start=arrived), steps)
    cooldown.edges(steps)  # refuses a shape that does not fit
    first, last = cooldown(0, steps), cooldown.final(steps)
    if not math.isclose(first, 1.0, rel_tol=MEETS):
        raise ConfigError("", f"must begin at 1, where the schedule arrived; its first value is {first:g}")
    if last > 1.0:
        raise ConfigError("", f"must not end above 1, where it begins; after its {steps} steps it is {last:g}")
    return Phase("cooldown", cooldown, steps, arrived)

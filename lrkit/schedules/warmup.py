"""The phases of a warmup and the schedule after it, or below it if the warmup overlaps the schedule.

    overlap    the warmup of w steps                                                     afterwards
    none       from start * schedule(0) to schedule(0)                                   schedule(s - w)
    join       from start * schedule(0) to schedule(w)                                   schedule(s)
    peak       from start * schedule(0) to schedule(0); the rate then jumps              schedule(s)
    multiply   from start to 1, times schedule(s)                                        schedule(s)

``s`` counts from the beginning of the run, and ``start`` is ``warmup.start``. ``join`` is detectron2's
``WarmupParamScheduler``; ``peak`` is the default of timm's cosine scheduler (``warmup_prefix=False``) and Composer's
``MultiStepWithWarmupScheduler``; ``multiply`` is torch's ``ChainedScheduler`` of a warmup and a schedule, and
MMEngine's list of both.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from lrkit.base.errors import ConfigError
from lrkit.schedules.phase import ENDLESS, MEETS, Excerpt, Phase
from lrkit.schedules.shapes import Constant, Schedule

__all__ = ["Rising", "build_warmup_phases", "check_slot", "moot_reason"]

#: For each slot of a curve, the options of a schedule that have no effect there, and the reason.
_MOOT = {
    "warmup": {
        "scale": "cannot be set: a warmup ends at a value of the schedule; set schedule.scale",
        "floor": "cannot be set: a warmup begins at its start, which is its lowest value; set warmup.start",
        "skip": "cannot be set: set warmup.start, the value at which the warmup begins",
    },
    "cooldown": {
        "scale": "cannot be set: a cooldown begins at the schedule's last value; set schedule.scale",
        "floor": "cannot be set: a cooldown ends at its end, which is its lowest value; set cooldown.end",
        "skip": "cannot be set: a cooldown begins at the schedule's last value",
    },
}


def check_slot(slot: str, part: Schedule | None) -> None:
    """Refuse an option without an effect in a slot of the curve: ``warmup``, ``cooldown``, or that of a schedule.

    Raises:
        ConfigError: with the option and the reason.
    """
    if part is None:
        return
    for name, value in part.set_options.items():
        if (reason := moot_reason(slot, name)) is not None:
            raise ConfigError(f"{slot}.{name}", reason, value)
    if slot in _MOOT and (keys := part.momentum_keys()):
        raise ConfigError(f"{slot}.{keys[0]}", f"must be null: a {slot} cannot set momentum", keys)
    if slot != "warmup":
        part.refuse_overlap(slot)


def moot_reason(slot: str, option: str) -> str | None:
    """Return the reason why an option of every schedule has no effect in a slot; None if it has one.

    >>> moot_reason("cooldown", "floor")
    'cannot be set: a cooldown ends at its end, which is its lowest value; set cooldown.end'
    """
    return _MOOT.get(slot, {}).get(option)


@dataclass(frozen=True, kw_only=True)
class Rising(Schedule):
    """A warmup times the schedule that it overlaps.

    m = rise(s, n) * shape(s, of)
    """

    rise: Schedule
    shape: Schedule
    of: int

    def value(self, s: int, n: int) -> float:
        return self.rise(s, n) * self.shape(s, self.of)

    def end_value(self, n: int) -> float:
        return self.rise.final(n) * self.shape(n, self.of)

    def turns(self, n: int) -> list[int]:
        return sorted({*self.rise.edges(n), *(e for e in self.shape.edges(self.of) if e < n)})

    def describe(self) -> str:
        return f"{self.rise.describe()} x {self.shape.describe()} overlap={self.overlap}"


def build_warmup_phases(warmup: Schedule, steps: int, middle: Phase) -> list[Phase]:
    """Return the phase of the warmup, of ``steps`` steps, and the phase of the schedule after it.

    Args:
        warmup: the resolved warmup; its own ``end`` is not used.
        steps: the length of the warmup.
        middle: the whole schedule. If the warmup overlaps it, the warmup has its first ``steps`` steps.

    Raises:
        ConfigError: a shape that needs more steps, or a shape without ``end`` that does not end at 1.
    """
    rise, schedule = warmup.with_ends(end=1.0), middle.schedule
    rise.edges(steps)  # refuses a shape that needs more steps
    meets = "end" in rise.ends or isinstance(rise, Constant)  # a constant warmup jumps to the schedule's value
    if not meets and not math.isclose(arrives := rise.bare().final(steps), 1.0, rel_tol=MEETS):
        must = f"must end at 1, which is the schedule's first value; after its {steps} steps it is {arrives:g}"
        raise ConfigError("", must)
    if warmup.overlap == "none":
        return [Phase("warmup", rise, steps, middle(0)), middle]
    of = ENDLESS + steps if middle.length is None else middle.length
    rest = Excerpt(shape=schedule, of=of, first=steps, last=of)
    after = dataclasses.replace(middle, schedule=rest, length=None if middle.length is None else of - steps)
    if warmup.overlap == "multiply":
        alone = dataclasses.replace(rise, overlap="none")
        beneath = Rising(rise=alone, shape=schedule, of=of, overlap="multiply")
        return [Phase("warmup", beneath, steps, middle.scale), after]
    if warmup.overlap == "join" and meets:
        ends = {"start": warmup.ends.get("start", 0.0) * middle(0), "end": middle(steps)}
        return [Phase("warmup", warmup.with_ends(**ends), steps), after]
    return [Phase("warmup", rise, steps, middle(steps if warmup.overlap == "join" else 0)), after]

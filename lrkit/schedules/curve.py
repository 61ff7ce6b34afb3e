"""The curve of a run: warmup, schedule and cooldown in sequence, ``curve(step) -> multiplier``.

Every boundary is a whole number of optimizer steps. The curve is a pure function: at the same step it returns the same
bits, in any order of the calls.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from lrkit.base.errors import ConfigError
from lrkit.base.line_chart import LineChart
from lrkit.schedules.cooldown import build_cooldown_phase
from lrkit.schedules.durations import Duration, Length
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.phase import DELAY, ENDLESS, Excerpt, Phase
from lrkit.schedules.shapes import Constant, Schedule
from lrkit.schedules.warmup import build_warmup_phases, check_slot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DELAY", "Curve", "Excerpt", "Phase", "depends_on_length"]

T = TypeVar("T")


_DRAWN_STEPS = 10_000  # steps that are drawn of a curve without an end


@dataclass(frozen=True)
class Curve:
    """Phases in sequence. After the last phase, the curve keeps its end value.

    >>> from lrkit.schedules.shapes import Cosine, Linear
    >>> curve = Curve.build(Cosine(), Horizon(110), warmup=Linear(start=0.0, length=10))
    >>> curve(0), curve(5), curve(10), curve(60), curve(110), curve(10_000)
    (0.0, 0.5, 1.0, 0.5, 0.0, 0.0)
    """

    phases: tuple[Phase, ...]

    @classmethod
    def build(
        cls,
        schedule: Schedule,
        horizon: Horizon,
        *,
        warmup: Schedule | None = None,
        cooldown: Schedule | None = None,
        delay: Length = 0,
        name: str = "schedule",
    ) -> Curve:
        """Build the curve of a run from warmup, schedule and cooldown.

        The warmup rises from ``warmup.start`` times the schedule's first value to exactly that value; with an
        ``overlap`` it has the same steps as the beginning of the schedule (see ``lrkit.schedules.warmup``). The
        cooldown falls from the schedule's last value to ``cooldown.end`` times the base value.

        Args:
            schedule: the shape between warmup and cooldown; it has the other steps, or its own length.
            horizon: the length of the run.
            warmup: a schedule with a length; its ``end`` is not used.
            cooldown: a schedule with a length; its ``start`` is not used.
            delay: a time with multiplier 0 before the other parts, which have the rest of the run.
            name: the name of the middle phase in errors and tables.

        Raises:
            ConfigError: the parts are longer than the run. lrkit never shortens a part.
        """
        still = Duration.parse(delay, "delay").steps(horizon.counted_from(0), "delay")
        for slot, part in ((name, schedule), ("warmup", warmup), ("cooldown", cooldown)):
            check_slot(slot, part)
        rising, falling = horizon.counted_from(still), horizon.counted_back()
        before, after = _resolve_length("warmup", warmup, rising), _resolve_length("cooldown", cooldown, falling)
        overlaps = warmup is not None and warmup.overlap != "none"
        begun = horizon.counted_from(still if overlaps else still + before)
        resolved = _call_under(name, lambda: schedule.resolved(begun))
        left = None if horizon.steps is None else horizon.steps - still - before - after
        if left is not None and left < 1:
            lengths = {"delay": still, "warmup.length": before, "cooldown.length": after}
            key = next(key for key, steps in lengths.items() if steps)
            parts = " + ".join(f"{part.partition('.')[0]} {steps}" for part, steps in lengths.items() if steps)
            raise ConfigError(key, f"leaves no step for the schedule: {parts} of {horizon.steps} optimizer steps")
        if left is not None and overlaps:
            left += before  # an overlapping warmup has steps of the schedule
        length = _resolve_schedule_length(name, schedule, resolved, left, horizon)
        if after and left is None:
            horizon.require("steps", "cooldown.length")

        if overlaps and length is not None and length <= before:
            must = f"must be longer than the warmup of {before} steps, which overlaps it"
            raise ConfigError(f"{name}.length", must, length)
        middle = Phase(name, resolved, length)
        # Each phase is evaluated once, so that a shape that needs more steps is refused before the run.
        _call_under(name, lambda: [] if length is None else resolved.edges(length))
        _call_under(name, lambda: middle(0))
        arrived = _call_under(name, lambda: middle.final)
        phases = [middle]
        if warmup is not None and before:
            phases = _call_under("warmup", lambda: build_warmup_phases(warmup.resolved(rising), before, middle))
        if still:
            phases.insert(0, Phase(DELAY, Constant(start=0.0), still))
        if cooldown is not None and after:
            if length is not None and left is not None and length < left:
                phases.append(Phase("hold", Constant(start=arrived), left - length))
            phases.append(_build_cooldown(cooldown, after, arrived, falling))
        return cls(tuple(phases))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first step of each phase."""
        starts, first = [], 0
        for phase in self.phases:
            starts.append(first)
            first += phase.length or 0
        return tuple(starts)

    @property
    def steps(self) -> int | None:
        """The length of all phases together; None if the last phase has no end."""
        last = self.phases[-1].length
        return None if last is None else self.starts[-1] + last

    def __call__(self, step: int) -> float:
        """Return the multiplier at optimizer step ``step``, counted from 0."""
        starts = self.starts
        i = 0 if len(starts) == 1 else bisect_right(starts, step) - 1  # most runs have one phase
        phase, s = self.phases[i], step - starts[i]
        try:
            return phase(s) if phase.length is None or s < phase.length else phase.final
        except ConfigError as error:  # at a step that was not checked before the run
            raise error.under(phase.name) from None

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """The steps at which a phase begins, or a shape jumps or turns; always with step 0."""
        edges = set(self.starts)
        for first, phase in zip(self.starts, self.phases, strict=True):
            if phase.length is not None:
                edges |= {first + e for e in phase.schedule.edges(phase.length)}
        return tuple(sorted(edges))

    def peak(self, phase: int) -> float:
        """Return the largest multiplier of a phase, at its ends, at both sides of its edges, and at 1000 steps."""
        return max(map(self, self.peak_places(phase)))

    def peak_places(self, phase: int) -> set[int]:
        """Return the steps that ``peak`` compares."""
        part, first = self.phases[phase], self.starts[phase]
        length = part.length or 10_000  # of a phase without an end, the first 10,000 steps
        edges = [] if part.length is None else part.schedule.edges(length)
        between = range(0, length, max(1, length // 1000))
        return {first + s for s in {*between, *edges, *(e - 1 for e in edges), length - 1}}

    def until(self, step: int) -> Curve:
        """Return the unchanged curve up to ``step``."""
        phases: list[Phase] = []
        for first, phase in zip(self.starts, self.phases, strict=True):
            if first >= step:
                break
            if phase.length is None or first + phase.length > step:
                of = ENDLESS if phase.length is None else phase.length
                done = Excerpt(shape=phase.schedule, of=of, first=0, last=step - first)
                phase = dataclasses.replace(phase, schedule=done, length=step - first)
            phases.append(phase)
        return Curve(tuple(phases))

    def stretched(self, step: int, end: int) -> Curve:
        """Return the same curve up to ``step``; its other steps are stretched to end at ``end``, without a jump.

        A delay or a warmup that is not over keeps its length: only the phases after it are stretched.
        """
        if self.steps is None:
            raise ConfigError("resume.policy=extend", "needs a curve with an end")
        for first, phase in zip(self.starts, self.phases, strict=True):
            if phase.name not in (DELAY, "warmup"):
                step = max(step, first)
                break
        if not step < self.steps:
            must = f"needs steps after the checkpoint, but the old curve ended at step {self.steps}: use override"
            raise ConfigError("resume.policy=extend", must)
        return self._stretch_phases(step, end)

    def within(self, steps: int) -> Curve:
        """Return the whole curve, with its warmup, in another number of steps.

        Every edge is at the step nearest to its share of the run, so a short phase may disappear. A curve without an
        end does not change.

        >>> from lrkit.schedules.shapes import Cosine, Linear
        >>> short = Curve.build(Cosine(), Horizon(110), warmup=Linear(start=0.0, length=10)).within(11)
        >>> short.starts, short(1), short(6)
        ((0, 1), 1.0, 0.5)
        """
        return self if self.steps is None else self._stretch_phases(0, steps)

    def _stretch_phases(self, step: int, end: int) -> Curve:
        """Return the phases after ``step``, stretched to end at ``end``."""
        assert self.steps is not None
        share = (end - step) / (self.steps - step)
        phases = list(self.until(step).phases)
        for first, phase in zip(self.starts, self.phases, strict=True):
            length = phase.length or 0
            begin = max(first, step)
            if first + length <= step:
                continue
            here, there = step + round((begin - step) * share), step + round((first + length - step) * share)
            if there > here:
                left = Excerpt(shape=phase.schedule, of=length, first=begin - first, last=length)
                phases.append(dataclasses.replace(phase, schedule=left, length=there - here))
        return Curve(tuple(phases))

    def then(self, step: int, falling: Schedule, steps: int) -> Curve:
        """Return the same curve up to ``step``, and then ``falling`` for ``steps`` steps."""
        check_slot("cooldown", falling)
        arrived = self(step)
        return Curve(
            (
                *self.until(step).phases,
                _call_under("cooldown", lambda: build_cooldown_phase(falling, steps, arrived)),
            )
        )

    def places(self, most: int = 2000) -> list[int]:
        """Return the steps at which to draw the curve: all, or some of a long run, with both sides of each edge.

        >>> from lrkit.schedules.shapes import Step
        >>> Curve.build(Step(every=50), Horizon(100)).places(4)
        [0, 25, 49, 50, 75, 99]
        """
        count = _DRAWN_STEPS if self.steps is None else self.steps
        edges = {step for edge in self.edges for step in (edge - 1, edge) if 0 <= step < count}
        return sorted({*range(0, count, -(-count // most)), *edges, count - 1})

    def chart(self) -> LineChart:
        """Return the curve as a chart: the multiplier over optimizer steps; without an end, over 10,000 steps."""
        steps = self.places()
        phases = " then ".join(f"{phase.name} ({phase.schedule.describe()})" for phase in self.phases)
        return LineChart(f"curve(t): {phases}", "optimizer step", "multiplier", {"curve": (steps, self.values(steps))})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the curve by matplotlib, into ``ax`` or a new figure.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        return self.chart().draw(ax)

    def _repr_html_(self) -> str:
        """Return the curve as HTML for a notebook."""
        return self.chart().html()

    def values(self, steps: Sequence[int] | None = None) -> list[float]:
        """Return the multipliers at ``steps``, by default at every step of the run.

        Raises:
            ConfigError: without ``steps``, for a curve without an end.
        """
        if steps is None:
            if self.steps is None:
                raise ConfigError("horizon.steps", "must be set to list a curve without an end")
            steps = range(self.steps)
        return [self(step) for step in steps]


def depends_on_length(error: ConfigError) -> bool:
    """Return whether a curve was refused for a value that cannot be computed; a shorter run may not have this value."""
    return isinstance(error.__cause__, ArithmeticError)


def _resolve_schedule_length(
    name: str, schedule: Schedule, resolved: Schedule, left: int | None, horizon: Horizon
) -> int | None:
    """Return the steps of the middle phase: its own length, or those beside warmup and cooldown; None: no end."""
    if resolved.length is None:
        if left is None and resolved.bounded:
            horizon.require("steps", f"{name}.end" if "end" in resolved.ends else name)
        return left
    length = int(resolved.length)
    if length < 1:
        raise ConfigError(f"{name}.length", "must be longer than 0", schedule.length)
    if left is not None and length > left:
        raise ConfigError(f"{name}.length", f"must be at most the {left} steps that are left", length)
    return length


def _build_cooldown(cooldown: Schedule, steps: int, arrived: float, horizon: Horizon) -> Phase:
    """Return the phase of the cooldown, which begins at ``arrived``, the schedule's last value."""
    end = cooldown.ends.get("end") or 0.0
    if end > arrived:
        raise ConfigError("cooldown.end", f"must not be above {arrived:g}, where the cooldown begins", end)
    return _call_under("cooldown", lambda: build_cooldown_phase(cooldown.resolved(horizon), steps, arrived))


def _resolve_length(name: str, part: Schedule | None, horizon: Horizon) -> int:
    if part is None:
        return 0
    if part.length is None:
        raise ConfigError(f"{name}.length", "must be set")
    steps = Duration.parse(part.length, f"{name}.length").steps(horizon, f"{name}.length")
    if horizon.steps is not None and steps >= horizon.steps:
        must = f"must leave steps for the schedule: it is {steps} of {horizon.steps} steps"
        alone = "; for a warmup alone use schedule=linear schedule.start=0 schedule.end=1" * (name == "warmup")
        raise ConfigError(f"{name}.length", f"{must}{alone}", part.length)
    return steps


def _call_under(name: str, make: Callable[[], T]) -> T:
    """Return the result of ``make``; its errors have keys below ``name``."""
    try:
        return make()
    except OverflowError as error:
        raise ConfigError(name, f"has values that cannot be computed: {error}") from error
    except ConfigError as error:
        raise error.under(name) from error.__cause__

"""The base class of all schedules: multipliers of a base value over the steps of a phase.

A schedule is a frozen description without an optimizer, state or torch. Called with a step ``s`` of its phase and the
length ``n`` of the phase, it returns the multiplier at this step,

    m = schedule(s, n),        u = s / n   the progress through the phase,

so the first step of a phase (``u = 0``) has exactly the first value, and the next phase begins at the value for
``u = 1``. ``schedule.final(n)`` is this value, as the limit from the left.

Lengths are durations (see ``lrkit.schedules.durations``), counted from the beginning of the schedule, which is the end
of the warmup. ``schedule.resolved(horizon)`` is the same schedule with every length as a whole number of optimizer
steps; only a resolved schedule can be called.

A subclass defines the bare shape: ``value(s, n)``, and, if they differ from the defaults, ``end_value(n)`` and
``turns(n)``. ``Schedule`` applies the options of every schedule to it: ``scale``, ``floor``, ``skip`` and
``update_every``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lrkit.base.errors import ConfigError
from lrkit.base.validation import is_finite, one_of
from lrkit.schedules.durations import Duration, Length

if TYPE_CHECKING:
    from lrkit.schedules.horizon import Horizon

__all__ = ["Endless", "Schedule"]

OVERLAPS = ("none", "join", "peak", "multiply")


def number(
    default: Any,
    *,
    over: float | None = None,
    low: float | None = None,
    high: float | None = None,
    shared: bool = False,
) -> Any:
    """Return a field for a finite number: ``over < x`` or ``low <= x``, and ``x <= high``."""
    metadata = {"number": (over, low, high), "optional": default is None, "shared": shared}
    return dataclasses.field(default=default, metadata=metadata)


def duration(default: Length | None, *, zero: bool = False, shared: bool = False) -> Any:
    """Return a field for a length, which must be at least one step, unless ``zero`` is accepted."""
    metadata = {"duration": True, "zero": zero, "optional": default is None, "shared": shared}
    return dataclasses.field(default=default, metadata=metadata)


#: The methods that apply the options -> the method that a subclass must define in their place.
_APPLYING = {"__call__": "value", "final": "end_value", "edges": "turns"}

MOST_EDGES = 10**6  # of a curve: more would need gigabytes; the check of a run of unknown length needs this many


def counted(key: str, edges: int) -> None:
    """Refuse a curve with more edges than a plan can have."""
    if edges > MOST_EDGES:
        raise ConfigError(key, f"must make at most {MOST_EDGES} turns in a run, and this makes {edges}")


def blend(a: float, b: float, w: float) -> float:
    """Return the value between ``a`` (``w = 0``) and ``b`` (``w = 1``): exact at both ends, and never outside."""
    if not 0.0 < w < 1.0:
        return a if w <= 0.0 else b
    mixed = a * (1.0 - w) + b * w
    if a <= b:  # rounding may overshoot an end by one ulp
        return a if mixed < a else b if mixed > b else mixed
    return b if mixed < b else a if mixed > a else mixed


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The common part of all schedules: a length, options for every shape, validation, and resolution to steps.

        m(s) = max(floor, scale * value(r, n + skip)),     r = s + skip, or floor((s + skip) / k) * k
                                                           with k = update_every

    Args:
        length: the length of the phase; ``None``: the rest of the run. A schedule shorter than the run keeps its end
            value.
        scale: factor of all values, > 0.
        floor: lowest value, >= 0.
        skip: duration of the first part of the shape, which is left out.
        update_every: duration between two changes of the value; ``None``: one step.
        overlap: for a warmup, whether it has the same steps as the beginning of the schedule, see
            ``lrkit.schedules.warmup``.

    >>> from lrkit.schedules import Linear
    >>> [Linear(scale=0.5, floor=0.2)(s, 100) for s in (0, 50, 90)]
    [0.5, 0.25, 0.2]
    >>> Linear(skip=50)(0, 50), Linear(update_every=10)(19, 100)
    (0.5, 0.9)
    """

    length: Length | None = duration(None, zero=True)
    scale: float = number(1.0, over=0, shared=True)
    floor: float = number(0.0, low=0, shared=True)
    skip: Length = duration(0, zero=True, shared=True)
    update_every: Length | None = duration(None, shared=True)
    overlap: str = dataclasses.field(default="none", metadata={"slot": True})

    #: Whether the shape needs reduce-on-plateau.
    needs_plateau: ClassVar[bool] = False

    @classmethod
    def named(cls, name: str) -> type[Schedule] | None:
        """Return the schedule class of this name, among the classes that are loaded; None if there is none."""
        classes: list[type[Schedule]] = [Schedule]
        found = None
        while classes:
            kind = classes.pop()
            found = kind if kind.__name__ == name else found
            classes += kind.__subclasses__()
        return found

    @property
    def bounded(self) -> bool:
        """Whether the shape depends on the length of its phase."""
        return True

    def value(self, s: int, n: int) -> float:
        """Return the value of the bare shape at step ``s`` of ``n``."""
        if type(self).__call__ is Schedule.__call__:
            raise NotImplementedError
        return self(s, n)  # for a class with its own `__call__`

    def end_value(self, n: int) -> float:
        """Return the value at the end of the bare shape of ``n`` steps: the limit of ``value(s, n)`` from the left."""
        return self.value(n, n)

    def turns(self, n: int) -> list[int]:
        """Return the steps inside the bare shape of ``n`` steps at which it jumps or turns."""
        return []

    def __call__(self, s: int, n: int) -> float:
        """Return the multiplier at step ``s`` of a phase of ``n`` steps."""
        options = self._options
        if options is None:
            return self.value(s, n)
        scale, floor, skip, every = options
        s += skip
        return max(floor, scale * self.value(s // every * every if every else s, n + skip))

    def final(self, n: int) -> float:
        """Return the value at the end of a phase of ``n`` steps: the limit of ``schedule(s, n)`` from the left."""
        if self._options is None:
            return self.end_value(n)
        scale, floor, skip, every = self._options
        return self(n - 1, n) if every else max(floor, scale * self.end_value(n + skip))

    def edges(self, n: int) -> list[int]:
        """Return the steps inside a phase of ``n`` steps at which the value jumps or turns, except at ``floor``."""
        if self._options is None:
            return self.turns(n)
        _, _, skip, every = self._options
        if not every:
            return [e - skip for e in self.turns(n + skip) if e > skip]
        self.turns(n + skip)  # refuses a shape that needs more steps
        counted("update_every", (n + skip - 1) // every)
        return [e - skip for e in range((skip // every + 1) * every, n + skip, every)]

    @property
    def set_options(self) -> dict[str, Any]:
        """The options of every schedule that do not have their defaults.

        Raises:
            ConfigError: the class has its own ``__call__``, ``final`` or ``edges``, which does not apply them.

        >>> from lrkit.schedules import Cosine
        >>> Cosine(end=0.1, floor=0.2).set_options
        {'floor': 0.2}
        """
        fields = [field for field in dataclasses.fields(self) if field.metadata.get("shared")]
        options = {f.name: getattr(self, f.name) for f in fields if getattr(self, f.name) != f.default}
        own = [name for name in _APPLYING if getattr(type(self), name) is not getattr(Schedule, name)]
        if options and own:
            name, cls = next(iter(options)), type(self).__name__
            must = f"cannot be set for {cls}, which has its own {own[0]}: rename it to {_APPLYING[own[0]]}"
            raise ConfigError(name, must, options[name])
        return options

    def refuse_overlap(self, key: str) -> None:
        """Refuse an ``overlap`` of a schedule that is not a warmup.

        Raises:
            ConfigError: with ``key`` before the name of the option.
        """
        if self.overlap != "none":
            raise ConfigError(f"{key}.overlap", "is an option of the warmup: set warmup.overlap", self.overlap)

    def describe(self) -> str:
        """Return the name of the shape, as the user types it, and the options of every schedule that are set.

        >>> from lrkit.schedules import Cosine, OneCycle
        >>> OneCycle().describe(), Cosine(scale=0.5, floor=0.2).describe()
        ('one_cycle', 'cosine scale=0.5 floor=0.2')
        """
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()
        options = self.set_options | ({} if self.overlap == "none" else {"overlap": self.overlap})
        return " ".join([name, *(f"{name}={value}" for name, value in options.items())])

    def bare(self) -> Self:
        """Return the same shape with the defaults of these options."""
        fields: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: fields[name] for name in self.set_options})

    @cached_property
    def _options(self) -> tuple[float, float, int, int] | None:
        """Scale, floor, skip and update_every (0: each step) in steps; None if all have their defaults."""
        options = self.set_options
        if not options:
            return None
        every, skip = int(options.get("update_every") or 0), int(options.get("skip", 0))
        return options.get("scale", 1.0), options.get("floor", 0.0), skip, 0 if every == 1 else every

    @property
    def ends(self) -> dict[str, Any]:
        """The fields ``start`` and ``end`` that the shape has.

        >>> from lrkit.schedules import Constant, Cosine
        >>> Cosine(end=0.1).ends, Constant(start=0.5).ends
        ({'start': 1.0, 'end': 0.1}, {'start': 0.5})
        """
        names = [field.name for field in dataclasses.fields(self) if field.name in ("start", "end")]
        return {name: getattr(self, name) for name in names}

    def with_ends(self, **ends: float) -> Self:
        """Return the same shape with other ends; an end that the shape does not have is left out."""
        changed: dict[str, Any] = {name: value for name, value in ends.items() if name in self.ends}
        return dataclasses.replace(self, **changed)

    def momentum(self, base: float) -> Schedule | None:
        """Return the curve of momentum of this shape, as plain values; None if it does not set momentum.

        Args:
            base: the optimizer's own momentum, for the parts of the phase in which the shape does not set momentum.
        """
        return None

    def momentum_keys(self) -> list[str]:
        """Return the keys by which the shape sets momentum; empty if it does not."""
        return [] if self.momentum(0.0) is None else ["momentum_start"]

    def warnings(self, edges: Sequence[int], n: int) -> list[str]:
        """Return warnings about a shape of ``n`` steps with these edges: valid but probably unintended settings."""
        return []

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.metadata.get("optional"):
                continue
            if "number" in field.metadata:
                check_number(field.name, value, *field.metadata["number"])
            elif "duration" in field.metadata:
                check_duration(field.name, value, zero=field.metadata["zero"])
        one_of(*OVERLAPS).check("overlap", self.overlap)
        _ = self.set_options  # refuses options that the class does not apply

    def resolved(self, horizon: Horizon) -> Self:
        """Return the same schedule with every duration as a whole number of optimizer steps."""
        steps: dict[str, Any] = {
            field.name: Duration.parse(value, field.name).steps(horizon, field.name, repeats=field.name != "length")
            for field in dataclasses.fields(self)
            if "duration" in field.metadata and (value := getattr(self, field.name)) is not None
        }
        return dataclasses.replace(self, **steps)


@dataclass(frozen=True)
class Endless(Schedule):
    """A shape that does not depend on the length of its phase; it needs no known end of the run."""

    @property
    def bounded(self) -> bool:
        return False


def check_number(name: str, value: Any, over: float | None, low: float | None, high: float | None) -> None:
    lower = f"({over:g}, " if over is not None else f"[{low:g}, " if low is not None else ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(name, "must be a number", value)
    inside = (
        is_finite(value)
        and (over is None or value > over)
        and (low is None or value >= low)
        and (high is None or value <= high)
    )
    if not inside:
        if high is not None and not lower:
            raise ConfigError(name, f"must be <= {high:g}", value)
        if high is not None:
            raise ConfigError(name, f"must be in {lower}{high:g}]", value)
        raise ConfigError(name, f"must be > {over:g}" if over is not None else f"must be >= {low:g}", value)


def check_duration(name: str, value: Any, *, zero: bool = False) -> None:
    if Duration.parse(value, name).value == 0 and not zero:
        raise ConfigError(name, "must be longer than 0", value)


def check_places(places: Any, instead: str) -> tuple[Length, ...]:
    """Return the milestones of a schedule, each longer than 0; ``instead`` is the advice for an empty list."""
    if isinstance(places, str) or not isinstance(places, Sequence):
        raise ConfigError("milestones", "must be a list of durations, such as [50%, 75%]", places)
    if not places:
        raise ConfigError("milestones", f"must not be empty: {instead}", places)
    for i, place in enumerate(places):
        check_duration(f"milestones[{i}]", place)
    return tuple(places)


def resolve_places(places: Sequence[Length], horizon: Horizon) -> tuple[int, ...]:
    """Return milestones as steps, which must increase."""
    steps = [Duration.parse(place, "milestones").steps(horizon, "milestones") for place in places]
    if sorted(set(steps)) != steps:
        raise ConfigError(f"milestones ({list(places)}, which is steps {steps})", "must be increasing")
    return tuple(steps)


def check_momentum(start: float | None, peak: float | None) -> None:
    """Refuse only one end of a cycle of momentum, and a momentum of 1."""
    if (start is None) != (peak is None):
        raise ConfigError("momentum_start", "and momentum_peak must be set together", start)
    for name, value in (("momentum_start", start), ("momentum_peak", peak)):
        if value == 1:
            raise ConfigError(name, "must be below 1: with 1 the average never forgets a gradient", value)

"""The shape of a decay inside a schedule: a name, or a schedule with its own options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from lrkit.base.errors import ConfigError
from lrkit.base.validation import Rule, one_of
from lrkit.schedules.shapes.decays import Cosine, Exponential, Linear, Logarithmic, Polynomial, Rex, Sqrt, Tanh
from lrkit.schedules.shapes.schedule import Schedule

if TYPE_CHECKING:
    from lrkit.schedules.horizon import Horizon

__all__: list[str] = []

#: The shapes with a name, for the decays of ``Wsd`` and ``Restarts``, and for the group ``cooldown``.
DECAYS: Mapping[str, Schedule] = MappingProxyType(
    {
        "sqrt": Sqrt(),
        "linear": Linear(),
        "cosine": Cosine(),
        "exponential": Exponential(end=0.0, ratio=0.1),
        "logarithmic": Logarithmic(),
        "polynomial": Polynomial(),
        "rex": Rex(),
        "tanh": Tanh(),
    }
)
_NAME = Rule(
    f"{one_of(*DECAYS).must}, or a schedule: {{name: polynomial, k: 2}}",
    lambda value: isinstance(value, str) and value in DECAYS,
)


class Shaped(Schedule):
    """A schedule with decays from ``start`` to ``end``, in a shape that the user chooses."""

    start: float
    end: float
    shape: str | Schedule

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.shape, Schedule):
            _NAME.check("shape", self.shape)
            return
        name, ends = type(self.shape).__name__, self.shape.ends
        if len(ends) < 2:
            raise ConfigError("shape", "must be a schedule from `start` to `end`, such as Polynomial", name)
        if self.shape.length is not None:
            raise ConfigError("shape.length", "must not be set: the decay has a length", self.shape.length)
        if ends["start"] != 1.0 or ends["end"] not in (0.0, None, self.end):
            raise ConfigError("shape", f"must leave out `start` and `end`, which {type(self).__name__} sets", ends)
        try:
            self.decay_between(self.start, self.end)
        except ConfigError as error:
            raise error.under("shape") from None

    def decay_between(self, start: float, end: float) -> Schedule:
        """Return the shape as a schedule with these ends."""
        shape = self.shape if isinstance(self.shape, Schedule) else DECAYS[self.shape]
        return shape.with_ends(start=start, end=end)

    def resolved(self, horizon: Horizon) -> Self:
        made = super().resolved(horizon)
        if not isinstance(self.shape, Schedule):
            return made
        for key in self.shape.momentum_keys():
            value = getattr(self.shape, key, None)
            raise ConfigError(
                f"shape.{key}", f"must be null: a decay of {type(self).__name__} leaves momentum alone", value
            )
        try:
            shape: dict[str, Any] = {"shape": self.shape.resolved(horizon.counted_from(None))}
            return dataclasses.replace(made, **shape)
        except ConfigError as error:
            raise error.under("shape") from None

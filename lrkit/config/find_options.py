"""The options of `lrkit find`: the node ``find``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.validation import FLAG, is_whole, one_of, whole
from lrkit.schedules.shapes import RangeTest
from lrkit.schedules.shapes.schedule import check_number

__all__ = ["AUTO", "Search"]

#: The value of ``optimizer.lr`` that starts a search for the rate.
AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Search:
    """The options of a range test, and of the search after it.

    Args:
        start, end: the base rates between which the range test rises, > 0.
        steps: optimizer steps of one range test; None: a sixth of the run, but at least 60 and at most 100.
        repeats: number of range tests, each with another seed.
        shape: ``exponential``, with equally many steps in each factor of ten, or ``linear``.
        loss: ``train``; or ``val``: validate after each step, which takes longer but also shows overfitting.
        confirm: whether short runs train at the candidates before one of them is suggested.

    >>> Search(start=1.0, end=0.1)
    Traceback (most recent call last):
    lrkit.base.errors.ConfigError: start must be below end (0.1). Received: 1.0
    """

    start: float = 1e-7
    end: float = 10.0
    steps: int | None = None
    repeats: int = 3
    shape: Literal["exponential", "linear"] = "exponential"
    loss: Literal["train", "val"] = "train"
    confirm: bool = True

    #: The smallest number of steps for a curve that can be analysed.
    least = 30

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            check_number(name, getattr(self, name), 0.0, None, None)
        if self.start >= self.end:
            raise ConfigError("start", f"must be below end ({self.end:g})", self.start)
        if self.steps is not None and not is_whole(self.steps, self.least):
            raise ConfigError("steps", f"must be a whole number >= {self.least}, or null", self.steps)
        whole(1).check("repeats", self.repeats)
        one_of("exponential", "linear").check("shape", self.shape)
        one_of("train", "val").check("loss", self.loss)
        FLAG.check("confirm", self.confirm)

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Search:
        """Return the options of the node ``find``, checked; errors have the keys that the user types."""
        known = [each.name for each in fields(cls)]
        for name in node:
            if name not in (*known, "interval", "origin"):  # the result of an earlier search, or of a translation
                raise ConfigError(f"find.{name}", f"is not a key. {did_you_mean(str(name), known)}")
        try:
            return cls(**{name: node[name] for name in known if name in node})
        except ConfigError as error:
            raise error.under("find") from None

    def schedule(self) -> RangeTest:
        """Return the schedule of the range test, in multiples of ``end``."""
        return RangeTest(start=self.start / self.end, shape=self.shape)

    def length(self, steps: int | None) -> int:
        """Return the optimizer steps of one range test, for a run of ``steps`` steps.

        >>> Search().length(10_000), Search().length(450), Search().length(90), Search(steps=200).length(450)
        (100, 75, 60, 200)
        """
        if self.steps is not None:
            return self.steps
        return 100 if steps is None else max(60, min(100, steps // 6))

"""The options of `lrkit find`: the node ``find``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.validation import FLAG, one_of, whole
from lrkit.schedules.durations import Duration, Length
from lrkit.schedules.horizon import Horizon
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
        steps: length of one range test; None: a sixth of the run, but at least 60 and at most 100 optimizer steps.
        repeats: number of range tests, each with another seed.
        shape: ``exponential``, with equally many steps in each factor of ten, or ``linear``.
        loss: ``train``; or ``val``: validate after each step, which takes longer but also shows overfitting.
        confirm: whether short runs train at the candidates before one of them is suggested.
        rounds: rounds of short runs, 2 or 3; the last round of three takes half of the run for each short run.
        full: whether each short run of the last round takes all steps of the run.

    >>> Search(start=1.0, end=0.1)
    Traceback (most recent call last):
    lrkit.base.errors.ConfigError: start must be below end (0.1). Received: 1.0
    """

    start: float = 1e-7
    end: float = 10.0
    steps: Length | None = None
    repeats: int = 3
    shape: Literal["exponential", "linear"] = "exponential"
    loss: Literal["train", "val"] = "train"
    confirm: bool = True
    rounds: Literal[2, 3] = 3
    full: bool = False

    #: The smallest number of steps for a curve that can be analysed.
    least = 30

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            check_number(name, getattr(self, name), 0.0, None, None)
        if self.start >= self.end:
            raise ConfigError("start", f"must be below end ({self.end:g})", self.start)
        if self.steps is not None:
            length = Duration.parse(self.steps, "steps")
            if length.unit == "steps":
                self._check_length(int(length.value), "steps")
        whole(1).check("repeats", self.repeats)
        one_of("exponential", "linear").check("shape", self.shape)
        one_of("train", "val").check("loss", self.loss)
        FLAG.check("confirm", self.confirm)
        whole(2, 3).check("rounds", self.rounds)
        FLAG.check("full", self.full)
        if self.full and not self.confirm:
            raise ConfigError("full", "must be false if confirm is: there are no short runs", self.full)

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

    def length(self, horizon: Horizon) -> int:
        """Return the optimizer steps of one range test of a run.

        >>> [Search().length(Horizon(steps)) for steps in (10_000, 450, 90)], Search(steps="20%").length(Horizon(450))
        ([100, 75, 60], 90)

        Raises:
            ConfigError: the test is too short for a curve that can be analysed.
        """
        if self.steps is None:
            return 100 if horizon.steps is None else max(60, min(100, horizon.steps // 6))
        steps = Duration.parse(self.steps).steps(horizon, "find.steps")
        self._check_length(steps, "find.steps")
        return steps

    def check_full(self, horizon: Horizon) -> None:
        """Refuse full runs in a search for a run without a known end.

        Raises:
            ConfigError: with the key.
        """
        if self.full and horizon.steps is None:
            raise ConfigError("find.full", "must be false for a run without a number of steps", self.full)

    def _check_length(self, steps: int, key: str) -> None:
        if steps < self.least:
            written = "" if str(self.steps) == str(steps) else f", and {self.steps} is {steps}"
            raise ConfigError(key, f"must be at least {self.least} optimizer steps{written}", self.steps)

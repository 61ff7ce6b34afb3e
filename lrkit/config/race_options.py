"""The options of a race between the settings of a sweep: the node ``sweep``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.validation import FLAG, is_list, is_number
from lrkit.schedules.durations import Duration

__all__ = ["KEY", "RaceOptions", "share_text"]

#: The key that makes a sweep a race.
KEY = "sweep.race"
_KEYS = ("race", "rungs", "keep")
_MOST = 10  # rungs


@dataclass(frozen=True)
class RaceOptions:
    """The rungs of a race.

    Args:
        rungs: lengths of the short copies, as shares of the run, rising.
        keep: share of the settings that a rung promotes.

    >>> RaceOptions.of({"race": True, "rungs": ["6.25%", 0.25], "keep": 0.25}).rungs
    (Fraction(1, 16), Fraction(1, 4))
    """

    rungs: tuple[Fraction, ...]
    keep: float

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> RaceOptions | None:
        """Return the checked options of the node ``sweep``; None for a sweep that is no race."""
        for name in node:
            if name not in _KEYS:
                raise ConfigError(f"sweep.{name}", f"is not a key. {did_you_mean(str(name), _KEYS)}")
        for name in _KEYS:
            if name not in node:
                raise ConfigError(f"sweep.{name}", "cannot be removed")
        race, rungs, keep = (node[name] for name in _KEYS)
        FLAG.check(KEY, race)
        if not is_list(rungs) or not 1 <= len(rungs) <= _MOST:
            raise ConfigError(
                "sweep.rungs", f"must be a list of 1 to {_MOST} shares of the run, such as [6.25%, 25%]", rungs
            )
        shares = tuple(_read_share(rung) for rung in rungs)
        if any(low >= high for low, high in pairwise(shares)):
            raise ConfigError("sweep.rungs", "must rise strictly: each rung trains longer copies", rungs)
        if not is_number(keep) or not 0.0 < keep < 1.0:
            raise ConfigError("sweep.keep", "must be a number in (0, 1)", keep)
        return cls(shares, float(keep)) if race else None


def _read_share(written: Any) -> Fraction:
    share = Duration.parse(written, "sweep.rungs")
    if share.unit != "share" or not 0 < share.value < 1:
        raise ConfigError("sweep.rungs", "must be shares of the run between 0 and 100%, such as 6.25%", written)
    return share.value


def share_text(share: Fraction) -> str:
    """Return a share as a duration is written.

    >>> share_text(Fraction(1, 16))
    '6.25%'
    """
    return f"{float(share) * 100:g}%"

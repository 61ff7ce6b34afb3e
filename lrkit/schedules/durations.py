"""Durations: lengths in the notation of the config, and their numbers of optimizer steps.

    500         500 optimizer steps
    "5%", 0.05  a share of the whole run
    "2ep"       2 epochs
    "64000sp"   64,000 training samples; "6.4e4sp" is the same
    "5e6tok"    5,000,000 tokens, if the number of tokens in a sample is known

Every key with a length or a position on the curve uses this parser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from lrkit.base.errors import ConfigError

if TYPE_CHECKING:
    from lrkit.schedules.horizon import Horizon

__all__ = ["Duration", "Length", "round_half_up"]

Unit = Literal["steps", "share", "epochs", "samples", "tokens"]
Length: TypeAlias = int | float | str

_ACCEPTED = (
    "500 (optimizer steps), 5% or 0.05 (a share of the run), 2ep (epochs), 64000sp or 6.4e4sp (samples),"
    " or 5e6tok (tokens)"
)
# Only the large units accept an exponent: 1e4 without a unit is a float in YAML, and floats are shares of the run.
_TEXT = re.compile(
    r"\s*(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:(?P<power>e\+?[0-9]{1,2})?\s*(?P<large>sp|tok)|\s*(?P<unit>%|ep))?\s*"
)
_LONGEST = 400  # characters
_SUFFIX: dict[str, Unit] = {"%": "share", "ep": "epochs", "sp": "samples", "tok": "tokens"}


@dataclass(frozen=True)
class Duration:
    """A length with its unit. ``value`` is exact, so boundaries do not depend on float rounding.

    >>> Duration.parse("5%"), Duration.parse(500)
    (Duration(value=Fraction(1, 20), unit='share'), Duration(value=Fraction(500, 1), unit='steps'))
    """

    value: Fraction
    unit: Unit

    @classmethod
    def parse(cls, written: Any, key: str = "length") -> Duration:
        """Parse a length.

        Raises:
            ConfigError: with ``key``: the text is not a length; or it is ``1.0``, which could mean the whole run or one
                step.
        """
        if isinstance(written, Duration):
            return written
        if isinstance(written, bool) or not isinstance(written, int | float | str):
            raise ConfigError(key, f"must be a length: {_ACCEPTED}", written)
        if isinstance(written, int):
            if written < 0:
                raise ConfigError(key, "must not be negative", written)
            return cls(Fraction(written), "steps")
        if isinstance(written, float):
            return cls._parse_share(written, key)
        match = _TEXT.fullmatch(written) if len(written) <= _LONGEST else None
        if match is None:
            raise ConfigError(key, f"must be a length: {_ACCEPTED}", written)
        number, suffix = match["number"], match["large"] or match["unit"]
        if suffix is None:
            return cls.parse(float(number) if "." in number else int(number), key)
        unit = _SUFFIX[suffix]
        exact = Fraction(number + (match["power"] or ""))
        value = exact / 100 if unit == "share" else exact
        if unit == "share" and value > 1:
            raise ConfigError(key, "must be at most 100% of the run", written)
        return cls(value, unit)

    @classmethod
    def _parse_share(cls, written: float, key: str) -> Duration:
        if written == 1.0:
            raise ConfigError(key, "must be 1 for one step, or 100% for the whole run", written)
        if not 0.0 < written < 1.0:  # also refuses nan
            raise ConfigError(
                key, f"must be a whole number of steps, or a share strictly between 0 and 1; or {_ACCEPTED}", written
            )
        # Exactly the written decimal, not the nearest float: 0.1 is one tenth.
        return cls(Fraction(repr(written)), "share")

    def steps(self, horizon: Horizon, key: str = "length", *, repeats: bool = False) -> int:
        """Return the number of optimizer steps, rounded to the nearest (halves up); only a written 0 gives 0.

        Args:
            horizon: the length of the run.
            key: of the length.
            repeats: whether the length is that of a period, which comes again and again.

        >>> from lrkit.schedules.horizon import Horizon
        >>> [Duration.parse(d).steps(Horizon(1000, 100, 64)) for d in (30, "5%", "2ep", "6400sp", "0.01%")]
        [30, 50, 200, 100, 1]
        >>> Duration.parse("5e6tok").steps(Horizon(1000, 100, 64, tokens_per_sample=1024))
        76

        Raises:
            ConfigError: the horizon lacks a number that the unit needs; with the key to set.
        """
        if self.unit in ("epochs", "samples", "tokens") and horizon.batch_sizes is not None:
            return horizon.measure(self, key, repeats)
        per_unit: int | Fraction = 1
        if self.unit == "share":
            per_unit = horizon.require("steps", key)
        elif self.unit == "epochs":
            per_unit = horizon.require("steps_per_epoch", key)
        elif self.unit == "samples":
            per_unit = Fraction(1, horizon.require("batch_size", key))
        elif self.unit == "tokens":
            sample = horizon.require("tokens_per_sample", key)
            per_unit = Fraction(1, horizon.require("batch_size", key) * sample)
        exact = self.value * per_unit
        return max(round_half_up(exact), 1 if exact > 0 else 0)

    def __str__(self) -> str:
        if self.unit == "share":
            return f"{_format_decimal(self.value * 100)}%"
        return _format_decimal(self.value) + {"steps": "", "epochs": "ep", "samples": "sp", "tokens": "tok"}[self.unit]


def round_half_up(exact: Fraction) -> int:
    """The nearest whole number; of two, the higher one."""
    return (2 * exact.numerator + exact.denominator) // (2 * exact.denominator)


def _format_decimal(value: Fraction) -> str:
    return f"{Decimal(value.numerator) / Decimal(value.denominator):f}"

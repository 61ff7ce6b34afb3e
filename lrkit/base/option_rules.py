"""What the value of an option may be: a sentence that says it, and whether a value is that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lrkit.base.errors import ConfigError

__all__ = ["SWITCH", "Rule", "choice", "is_number", "is_whole", "listed", "number", "optional", "text", "whole"]


_TOO_LARGE = 10**18


class Rule(NamedTuple):
    """What an option must be, and how to tell."""

    must: str
    holds: Callable[[Any], bool]

    def check(self, key: str, value: Any) -> None:
        """Refuse a value.

        Raises:
            ConfigError: naming the key.

        >>> whole(1).check("data.batch_size", 0)
        Traceback (most recent call last):
        lrkit.base.errors.ConfigError: data.batch_size must be a whole number >= 1. Received: 0
        """
        if not self.holds(value):
            huge = "whole number" in self.must and isinstance(value, int) and value >= _TOO_LARGE
            raise ConfigError(key, f"{self.must}, of 18 digits at most" if huge else self.must, value)


def is_whole(value: Any, least: int) -> bool:
    """Whether a value is a whole number of at least ``least``, of 18 digits at most: not ``True``, not ``8.0``."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < _TOO_LARGE


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold; nan is none.

    >>> is_number(0.5), is_number(float("inf")), is_number(float("nan")), is_number(10**400), is_number("0.5")
    (True, True, False, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return not math.isnan(float(value))
    except OverflowError:
        return False


def whole(least: int) -> Rule:
    """A whole number of at least ``least``."""
    return Rule(f"must be a whole number >= {least}", lambda value: is_whole(value, least))


def number(said: str, holds: Callable[[float], bool]) -> Rule:
    """A number in a range, and how the range is said: ``number("in [0, 1)", lambda x: 0 <= x < 1)``."""
    return Rule(f"must be a number {said}", lambda value: is_number(value) and holds(value))


def choice(*choices: str) -> Rule:
    """One of some words."""
    return Rule(f"must be {', '.join(choices[:-1])} or {choices[-1]}", lambda value: value in choices)


def text(said: str) -> Rule:
    """Some text that is not empty, and what it is."""
    return Rule(f"must be {said}", lambda value: isinstance(value, str) and value != "")


def listed(said: str, entry: Rule) -> Rule:
    """A list of what the rule ``entry`` allows, and how that is said."""
    return Rule(f"must be {said}", lambda value: is_list(value) and all(map(entry.holds, value)))


def optional(rule: Rule) -> Rule:
    """The same, or null."""
    return Rule(f"{rule.must}, or null", lambda value: value is None or rule.holds(value))


def is_list(value: Any) -> bool:
    """Whether a value is a list, as YAML has it, and no text or group of keys."""
    return isinstance(value, Sequence) and not isinstance(value, str | Mapping)


SWITCH = Rule("must be true or false", lambda value: isinstance(value, bool))

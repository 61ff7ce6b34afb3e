"""Rules: what a value must be, a test of it, and an error that names the key. No torch.

A ``Rule`` says in words what a value must be. Options of the command line, keys of a YAML file, arguments of a
constructor and plain data from a file (JSON, a checkpoint) are checked by the same rules:

>>> whole(1).check("data.batch_size", 0)
Traceback (most recent call last):
lrkit.base.errors.ConfigError: data.batch_size must be a whole number >= 1. Received: 0

Rules for lists and mappings are made of other rules, and name the member at fault:

>>> plan = record({"steps": whole(1), "name": text()}, {"rates": listed(number(0))})
>>> plan.check("plan", {"steps": 3, "name": "a", "rates": [0.1]})
>>> plan.check("plan", {"steps": 3, "name": "a", "rates": [0.1, -1]})
Traceback (most recent call last):
lrkit.base.errors.ConfigError: plan.rates[1] must be a finite number >= 0. Received: -1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean

__all__ = [
    "FLAG", "MOST", "PLAIN_DATA", "Check", "Rule", "check_by", "either", "is_finite", "is_list", "is_number",
    "is_whole", "listed", "mapping", "number", "one_of", "optional", "record", "text", "value_error", "whole",
]  # fmt: skip

#: Raises a ``ConfigError`` that names the key, where the value breaks a rule: ``check(key, value)``.
Check = Callable[[str, Any], None]

MOST = 2**53  #: the largest whole number up to which a float is exact
_LONGEST = 2**16  # characters of a text
_VALUES = 10**6  # of a list
_NODES, _DEEPEST = 10**5, 64  # of plain data


class Rule:
    """What a value must be, and a test of it.

    Args:
        must: the rule in words, such as ``must be a whole number >= 1``.
        holds: whether a value obeys the rule.
    """

    def __init__(self, must: str, holds: Callable[[Any], bool]) -> None:
        self.must = must
        self.holds = holds

    def check(self, key: str, value: Any) -> None:
        """Refuse a value that breaks the rule.

        Raises:
            ConfigError: naming the key, the rule and the value.
        """
        if not self.holds(value):
            raise value_error(key, self.must, value)


class _Composed(Rule):
    """A rule made of a check, which raises the error itself: at the member of a container that is at fault."""

    def __init__(self, must: str, check: Check) -> None:
        super().__init__(must, self._passes)
        self._check = check

    def _passes(self, value: Any) -> bool:
        try:
            self._check("", value)
        except ConfigError:
            return False
        return True

    def check(self, key: str, value: Any) -> None:
        self._check(key, value)


def check_by(check: Check, must: str = "") -> Rule:
    """A rule made of a function ``check(key, value)`` that raises ``ConfigError``."""
    return _Composed(must, check)


class _Described:
    """A container as an error shows it: written out, one that is large or shared could take forever."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        kind = f"a {type(self.value).__name__}"
        if hasattr(self.value, "shape"):
            return f"{kind} of shape {tuple(self.value.shape)}"
        return f"{kind} of {len(self.value)} values" if isinstance(self.value, Collection) else kind


def value_error(key: str, must: str, value: Any) -> ConfigError:
    """The error for a value that breaks a rule; a container in it is described in a few words."""
    members = [value]
    if isinstance(value, list | tuple | dict) and len(value) <= 10:
        members = [*value, *(value.values() if isinstance(value, dict) else ())]
    written_out = all(member is None or isinstance(member, bool | int | float | str) for member in members)
    return ConfigError(key, must, value if written_out else _Described(value))


def is_whole(value: Any, low: int = 0, high: int = MOST) -> bool:
    """Whether a value is a whole number from ``low`` to ``high``: not ``True``, not ``8.0``."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold, infinity included; nan is none.

    >>> is_number(0.5), is_number(float("inf")), is_number(float("nan")), is_number(10**400), is_number("0.5")
    (True, True, False, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return not math.isnan(float(value))
    except OverflowError:
        return False


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold."""
    return is_number(value) and math.isfinite(value)


def is_list(value: Any) -> bool:
    """Whether a value is a list as YAML has it: no text, no mapping."""
    return isinstance(value, Sequence) and not isinstance(value, str | Mapping)


#: True or false.
FLAG = Rule("must be true or false", lambda value: isinstance(value, bool))


def whole(low: int = 0, high: int = MOST) -> Rule:
    """A whole number from ``low`` to ``high``."""
    limited = f"must be a whole number in [{low}, {high}]"
    must = f"must be a whole number >= {low}" if high == MOST else limited

    def check(key: str, value: Any) -> None:
        if not is_whole(value, low, high):
            raise value_error(key, limited if is_whole(value, MOST, value) else must, value)

    return check_by(check, must)


def number(low: float = -math.inf, high: float = math.inf, *, finite: bool = True, above: float | None = None) -> Rule:
    """A number from ``low`` to ``high``, and greater than ``above``; a measurement need not be finite."""
    limits = [f" >= {low:g}"] * (low > -math.inf) + [f" <= {high:g}"] * (high < math.inf)
    must = f"must be a {'finite ' * finite}number{' and'.join(limits)}"

    def holds(value: Any) -> bool:
        if finite and not is_finite(value):
            return False
        return isinstance(value, int | float) and not isinstance(value, bool) and not (value < low or value > high)

    return Rule(must, holds)


def text(longest: int = _LONGEST, *, meaning: str = "") -> Rule:
    """A text of at most ``longest`` characters; with a ``meaning``, such as ``a folder``, it is not empty."""
    must = f"must be {meaning}" if meaning else f"must be a text of at most {longest} characters"
    return Rule(must, lambda value: isinstance(value, str) and len(value) <= longest and not (meaning and value == ""))


def one_of(*choices: str) -> Rule:
    """One of some texts."""
    must = f"must be {' or '.join(choices)}" if len(choices) == 2 else f"must be one of {', '.join(choices)}"
    return Rule(must, lambda value: isinstance(value, str) and value in choices)


def optional(rule: Rule) -> Rule:
    """The rule, or null."""

    def check(key: str, value: Any) -> None:
        if value is not None:
            rule.check(key, value)

    return check_by(check, rule.must)


def either(*rules: Rule) -> Rule:
    """One of some rules; the error is that of the last one."""

    def check(key: str, value: Any) -> None:
        if not any(rule.holds(value) for rule in rules[:-1]):
            rules[-1].check(key, value)

    return check_by(check, rules[-1].must)


def listed(rule: Rule, most: int = _VALUES, least: int = 0, *, meaning: str = "") -> Rule:
    """A list of ``least`` to ``most`` values that each obey a rule.

    Args:
        meaning: what the list is; the error then says that of the whole list, and names no member.
    """
    many = f"{least}" if least == most else f"{least} to {most}"
    must = f"must be {meaning}" if meaning else f"must be a list of {many} values"

    def check(key: str, value: Any) -> None:
        if not is_list(value) or not least <= len(value) <= most:
            raise value_error(key, must, value)
        if meaning:
            if not all(map(rule.holds, value)):
                raise ConfigError(key, must, value)
            return
        for i, member in enumerate(value):
            rule.check(f"{key}[{i}]", member)

    return check_by(check, must)


def mapping(rule: Rule, most: int = _VALUES) -> Rule:
    """A mapping from texts to values that each obey a rule."""
    must = f"must be a mapping of at most {most} keys"

    def check(key: str, value: Any) -> None:
        if not isinstance(value, Mapping) or len(value) > most:
            raise value_error(key, must, value)
        for name, member in value.items():
            if not isinstance(name, str):
                raise value_error(key, "must have texts for keys", name)
            rule.check(f"{key}.{name}", member)

    return check_by(check, must)


def record(needed: Mapping[str, Rule], possible: Mapping[str, Rule] | None = None, *, others: bool = False) -> Rule:
    """A mapping with known keys.

    Args:
        needed: the keys that the mapping must have.
        possible: the keys that it may have.
        others: whether it may have further keys, which are not checked.
    """
    known = {**needed, **(possible or {})}
    must = f"must be a mapping with {', '.join(needed)}"

    def check(key: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise value_error(key, must, value)
        for name in needed:
            if name not in value:
                raise ConfigError(f"{key}.{name}", "must be there")
        for name, member in value.items():
            if name in known:
                known[name].check(f"{key}.{name}", member)
            elif not others:
                raise ConfigError(f"{key}.{name}", f"is not a key. {did_you_mean(str(name), known)}")

    return check_by(check, must)


def _check_plain_data(key: str, value: Any) -> None:
    left = _NODES

    def walk(node: Any, at: str, depth: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConfigError(key, f"must not have more than {_NODES} values")
        if depth > _DEEPEST:
            raise ConfigError(key, f"must not be nested deeper than {_DEEPEST}")
        if isinstance(node, Mapping):
            for name, inner in node.items():
                if not isinstance(name, str):
                    raise value_error(at, "must have texts for keys", name)
                walk(inner, f"{at}.{name}", depth + 1)
        elif isinstance(node, list | tuple):
            for i, inner in enumerate(node):
                walk(inner, f"{at}[{i}]", depth + 1)
        elif node is not None and not isinstance(node, bool | int | float | str):
            raise value_error(at, "must be a text, a number, a list or a mapping", node)

    walk(value, key, 0)


#: Texts, numbers, lists and mappings from texts, not too many and not too deep.
PLAIN_DATA = check_by(_check_plain_data, "must be plain data")

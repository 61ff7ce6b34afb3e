"""What plain data from a file must be: kinds, limits and names, said once and checked by one function.

A schema is a function of a value and of its key, which raises ``ConfigError`` with the key at which the value is
another one. JSON and checkpoints of somebody else are checked by it before anything is made of them.

>>> plan = record({"steps": whole(1), "name": text()}, {"rates": listed(number(0))})
>>> plan({"steps": 3, "name": "a", "rates": [0.1]}, "plan")
>>> try:
...     plan({"steps": 3, "name": "a", "rates": [0.1, -1]}, "plan")
... except ConfigError as error:
...     print(error)
plan.rates[1] must be a finite number >= 0. Received: -1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean

__all__ = [
    "MOST", "Schema", "anything", "either", "fits", "flag", "listed", "mapping", "number", "one_of", "optional",
    "record", "text", "whole", "wrong",
]  # fmt: skip

Schema = Callable[[Any, str], None]

MOST = 2**53  #: a whole number up to which a float is exact
_LONGEST = 2**16  # characters of a text
_VALUES = 10**6  # of a list
_NODES, _DEEPEST = 10**5, 64  # of plain data of any kind


class _Described:
    """Stands for a container in an error: to write out one that is large, or shared, could take for ever."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        kind = f"a {type(self.value).__name__}"
        if hasattr(self.value, "shape"):
            return f"{kind} of shape {tuple(self.value.shape)}"
        return f"{kind} of {len(self.value)} values" if isinstance(self.value, Collection) else kind


def wrong(key: str, must: str, value: Any) -> ConfigError:
    """The error that a value at ``key`` is another one."""
    plain = value is None or isinstance(value, bool | int | float | str)
    return ConfigError(key, must, value if plain else _Described(value))


def fits(schema: Schema, value: Any) -> bool:
    """Whether a value is what a schema says."""
    try:
        schema(value, "")
    except ConfigError:
        return False
    return True


def whole(low: int = 0, high: int = MOST) -> Schema:
    """A whole number."""

    def check(value: Any, key: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            most = "" if high == MOST else f" and <= {high}"
            raise wrong(key, f"must be a whole number >= {low}{most}", value)

    return check


def number(low: float = -math.inf, high: float = math.inf, *, finite: bool = True) -> Schema:
    """A number, from ``low`` to ``high``; of a measurement also one that is not finite."""

    def check(value: Any, key: str) -> None:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or (finite and not _is_finite(value)) or value < low or value > high:
            limits = f" >= {low:g}" * (low > -math.inf) + " and" * (low > -math.inf and high < math.inf)
            limits += f" <= {high:g}" * (high < math.inf)
            raise wrong(key, f"must be a {'finite ' * finite}number{limits}", value)

    return check


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of more digits than a float has
        return False


def flag(value: Any, key: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise wrong(key, "must be true or false", value)


def text(longest: int = _LONGEST) -> Schema:
    """A text."""

    def check(value: Any, key: str) -> None:
        if not isinstance(value, str) or len(value) > longest:
            raise wrong(key, f"must be a text of at most {longest} characters", value)

    return check


def one_of(*choices: str) -> Schema:
    """One of some texts."""

    def check(value: Any, key: str) -> None:
        if not isinstance(value, str) or value not in choices:
            raise wrong(key, f"must be one of {', '.join(choices)}", value)

    return check


def optional(schema: Schema) -> Schema:
    """That, or null."""

    def check(value: Any, key: str) -> None:
        if value is not None:
            schema(value, key)

    return check


def either(*schemas: Schema) -> Schema:
    """What one of them says; the last one tells what is wrong."""

    def check(value: Any, key: str) -> None:
        if not any(fits(schema, value) for schema in schemas[:-1]):
            schemas[-1](value, key)

    return check


def listed(schema: Schema, most: int = _VALUES, least: int = 0) -> Schema:
    """A list, each value of which is that."""

    def check(value: Any, key: str) -> None:
        if not isinstance(value, list | tuple) or not least <= len(value) <= most:
            many = f"{least}" if least == most else f"{least} to {most}"
            raise wrong(key, f"must be a list of {many} values", value)
        for i, each in enumerate(value):
            schema(each, f"{key}[{i}]")

    return check


def mapping(schema: Schema, most: int = _VALUES) -> Schema:
    """A mapping from any texts, each value of which is that."""

    def check(value: Any, key: str) -> None:
        if not isinstance(value, Mapping) or len(value) > most:
            raise wrong(key, f"must be a mapping of at most {most} keys", value)
        for name, each in value.items():
            if not isinstance(name, str):
                raise wrong(key, "must have texts for keys", name)
            schema(each, f"{key}.{name}")

    return check


def record(fields: Mapping[str, Schema], more: Mapping[str, Schema] | None = None, *, others: bool = False) -> Schema:
    """A mapping with known keys.

    Args:
        fields: the keys that must be there.
        more: those that may.
        others: whether there may be further ones, which are not looked at.
    """
    known = {**fields, **(more or {})}

    def check(value: Any, key: str) -> None:
        if not isinstance(value, Mapping):
            raise wrong(key, f"must be a mapping with {', '.join(fields)}", value)
        for name in fields:
            if name not in value:
                raise ConfigError(f"{key}.{name}", "must be there")
        for name, each in value.items():
            if name in known:
                known[name](each, f"{key}.{name}")
            elif not others:
                raise ConfigError(f"{key}.{name}", f"is not a key. {did_you_mean(str(name), known)}")

    return check


def anything(value: Any, key: str) -> None:
    """Plain data of any kind: texts, numbers, lists and mappings from texts, not too many and not too deep."""
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
                    raise wrong(at, "must have texts for keys", name)
                walk(inner, f"{at}.{name}", depth + 1)
        elif isinstance(node, list | tuple):
            for i, inner in enumerate(node):
                walk(inner, f"{at}[{i}]", depth + 1)
        elif node is not None and not isinstance(node, bool | int | float | str):
            raise wrong(at, "must be a text, a number, a list or a mapping", node)

    walk(value, key, 0)

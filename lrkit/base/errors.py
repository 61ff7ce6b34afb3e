"""The errors of lrkit: ``ConfigError`` for bad input, and errors for a failed search, a diverged and a failed run."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["ConfigError", "Diverged", "RunError", "SearchError", "did_you_mean", "name_some"]

_MANY = 32  # names that still make a readable list; one more schedule must not change what the README shows


class ConfigError(ValueError):
    """A value of the user's breaks a rule. The command prints this sentence in one line and exits with code 2.

    Args:
        key: dotted path of the key, as the user types it.
        must: the rule, as a predicate of the key.
        received: the user's value; left out if there is none.

    >>> print(ConfigError("schedule.gamma", "must be in (0, 1]", 1.5))
    schedule.gamma must be in (0, 1]. Received: 1.5
    >>> print(ConfigError("gamma", "must be in (0, 1]", 1.5).under("schedule"))
    schedule.gamma must be in (0, 1]. Received: 1.5
    >>> print(ConfigError("trainer.max_epochs", "must be set: a schedule needs a length"))
    trainer.max_epochs must be set: a schedule needs a length.
    >>> print(ConfigError("model.foo", f"is not a key. {did_you_mean('foo', [])}"))
    model.foo is not a key.
    """

    _nothing = object()
    details: str = ""  #: a table to print above the sentence
    told: bool = False  #: whether another process reports this error

    def __init__(self, key: str, must: str, received: Any = _nothing) -> None:
        must = must.rstrip()  # a hint at its end may be empty
        self.key, self.must, self.received = key, must, received
        stop = "" if must.endswith((".", "?", "!")) else "."
        tail = "" if received is self._nothing else f" Received: {_format_value(received)}"
        super().__init__(" ".join(f"{key} {must}{stop}{tail}".split("\n")))

    def under(self, prefix: str) -> ConfigError:
        """Return the same error with a prefix before its key: ``gamma`` becomes ``schedule.gamma``."""
        return ConfigError(f"{prefix}.{self.key}" if self.key else prefix, self.must, self.received)


class SearchError(RuntimeError):
    """A search without a result, with valid input. The command prints the reason and exits with code 1."""


class Diverged(RuntimeError):
    """The divergence guard stopped a run. This is not a failure of the program: the exit code is 3."""


class RunError(RuntimeError):
    """A run that cannot continue: a full disk, a dead process. The command prints the reason and exits with code 1."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return a hint for a misspelt name: the closest choice if there is one, and the accepted choices.

    >>> did_you_mean("cosin", ["cosine", "step"])
    "Did you mean 'cosine'? Accepted: cosine, step"
    >>> did_you_mean("zzz", ["cosine", "step"])
    'Accepted: cosine, step'
    """
    options = sorted(choices)
    by_folded = {option.lower(): option for option in options}
    near = difflib.get_close_matches(name.lower(), list(by_folded), n=1, cutoff=0.6)
    hint = f"Did you mean {by_folded[near[0]]!r}? " if near else ""
    if near and len(options) > _MANY:
        return f"{hint}There are {len(options)}"
    return f"{hint}Accepted: {', '.join(options)}" if options else hint.rstrip()


def name_some(names: Sequence[str], most: int = 4) -> str:
    """The first ``most`` of some names, and the number of the others.

    >>> name_some(["a", "b", "c"], 2), name_some(["a"])
    ('a, b and 1 more', 'a')
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _format_value(value: Any, limit: int = 120) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print an integer with thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= limit else text[: limit - 3] + "..."

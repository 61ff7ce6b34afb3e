"""The error that bad input raises, and the sentence it says; and how else a command may end."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = ["ConfigError", "Diverged", "RunError", "SearchError", "did_you_mean"]

_MANY = 24  # names that still make one readable line


class ConfigError(ValueError):
    """Something the user wrote cannot mean what it says.

    ``key`` is the dotted path of the key as the user would type it, so that the sentence can be
    acted upon; the command prints the sentence alone and exits with code 2.

    >>> print(ConfigError("schedule.gamma", "must be in (0, 1]", 1.5))
    schedule.gamma must be in (0, 1]. Received: 1.5
    >>> print(ConfigError("gamma", "must be in (0, 1]", 1.5).under("schedule"))
    schedule.gamma must be in (0, 1]. Received: 1.5
    >>> print(ConfigError("trainer.max_epochs", "must be set: a schedule needs a length"))
    trainer.max_epochs must be set: a schedule needs a length.
    """

    _nothing = object()
    details: str = ""  #: a table to print above the sentence
    told: bool = False  #: whether another process says it

    def __init__(self, key: str, must: str, received: Any = _nothing) -> None:
        self.key, self.must, self.received = key, must, received
        stop = "" if must.endswith((".", "?", "!")) else "."
        tail = "" if received is self._nothing else f" Received: {_short(received)}"
        super().__init__(" ".join(f"{key} {must}{stop}{tail}".split("\n")))

    def under(self, prefix: str) -> ConfigError:
        """The same error, seen from one level further up: ``gamma`` becomes ``schedule.gamma``."""
        return ConfigError(f"{prefix}.{self.key}" if self.key else prefix, self.must, self.received)


class SearchError(RuntimeError):
    """A search that came to nothing. Nobody wrote anything wrong: the command says why, and exits with code 1."""


class Diverged(RuntimeError):
    """The divergence guard ended a training. Not a failure of the program: the exit code is 3."""


class RunError(RuntimeError):
    """A run that could not go on: a full disk, a process that died. The command says why, and exits with code 1."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A hint for a misspelt name: the nearest choice where one is near, else all of them.

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


def _short(value: Any, limit: int = 120) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes out no number of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= limit else text[: limit - 3] + "..."

"""Overrides in the form that Hydra reads: formulas in quotes, and ``++`` before the keys of the user's own classes."""

from __future__ import annotations

from collections.abc import Iterable

from lrkit.base.command_line import CONFIG_FILE

__all__ = ["GROUPS_OF_SCHEDULES", "quote_formula", "split_values", "with_added_keys"]

#: The groups whose class the user may replace by ``_target_``.
GROUPS_OF_SCHEDULES = ("schedule", "warmup", "cooldown")
_KEY = "formula"
_CLOSING = {"(": ")", "[": "]", "{": "}"}
#: The beginnings of values that must stay as they are: quotes, null, and sweeps.
_LEFT = ("'", '"', "null", "choice(", "range(", "glob(", "interval(", "shuffle(", "sort(", "tag(", "???")


def quote_formula(text: str) -> str:
    """Return an override with quotes around each formula of a schedule; return other overrides unchanged.

    >>> quote_formula("schedule.formula=0.5*(1+cos(pi*u))"), quote_formula("schedule.formula=max(u, 0.1),1-u")
    ("schedule.formula='0.5*(1+cos(pi*u))'", "schedule.formula='max(u, 0.1)','1-u'")
    >>> quote_formula("warmup.formula='u**2'"), quote_formula("schedule.end=0.1")
    ("warmup.formula='u**2'", 'schedule.end=0.1')
    """
    key, equals, value = text.partition("=")
    if not equals or key.rpartition(".")[2] != _KEY or "." not in key or not value.strip():
        return text
    if value.startswith(_LEFT) or "${" in value or "'" in value or "\\" in value:
        return text
    return f"{key}={','.join(repr(each) for each in split_values(value))}"


def split_values(text: str) -> list[str]:
    """Split values at the commas outside of quotes and brackets.

    >>> split_values("(0.1,[1,2]), ('a,b',3)")
    ['(0.1,[1,2])', "('a,b',3)"]
    """
    values, open_brackets, quote, begin = [], [], "", 0
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote and text[i - 1] != "\\" else quote
        elif c in "'\"":
            quote = c
        elif c in _CLOSING:
            open_brackets.append(_CLOSING[c])
        elif open_brackets and c == open_brackets[-1]:
            open_brackets.pop()
        elif c == "," and not open_brackets:
            values.append(text[begin:i].strip())
            begin = i + 1
    return [*values, text[begin:].strip()]


def with_added_keys(overrides: Iterable[str]) -> list[str]:
    """Return overrides without the file of ``--config``, and with ``++`` before the keys of a schedule of the user's.

    A class that an override sets by ``_target_`` may have other keys than the option, and Hydra would refuse them. The
    keys of a sweep may be written as its presets are, with ``+``.

    >>> with_added_keys(["schedule._target_=mycode.Tanh", "schedule.gamma=2", "warmup.length=5%"])
    ['++schedule._target_=mycode.Tanh', '++schedule.gamma=2', 'warmup.length=5%']
    >>> with_added_keys(["+sweep=schedules", "+sweep.race=true"])
    ['+sweep=schedules', 'sweep.race=true']
    """
    listed = [
        text.removeprefix("+") if text.startswith("+sweep.") else text
        for text in overrides
        if text.partition("=")[0] != CONFIG_FILE
    ]
    named = {text.partition("=")[0].lstrip("+") for text in listed}
    own = tuple(f"{group}." for group in GROUPS_OF_SCHEDULES if f"{group}._target_" in named)
    return [f"++{word}" if own and (word := text.lstrip("+")).startswith(own) else text for text in listed]

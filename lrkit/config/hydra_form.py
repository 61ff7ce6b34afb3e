"""Overrides in the form that Hydra reads: formulas in quotes, and ``++`` before the keys of a class of the user."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["GROUPS_OF_SCHEDULES", "quote_formula", "with_added_keys"]

#: The groups whose class the user may replace by ``_target_``.
GROUPS_OF_SCHEDULES = ("schedule", "warmup", "cooldown")
_KEY = "formula"
#: The beginnings of values that Hydra must read as they are: quotes, null, and what sweeps.
_LEFT = ("'", '"', "null", "choice(", "range(", "glob(", "interval(", "shuffle(", "sort(", "tag(", "???")


def quote_formula(text: str) -> str:
    """An override with quotes around the formula of a schedule, or around each one of a sweep; others stay.

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
    return f"{key}={','.join(repr(each) for each in _split_formulas(value))}"


def _split_formulas(text: str) -> list[str]:
    """The formulas between the commas that are in no parentheses."""
    formulas, depth, begin = [], 0, 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            formulas.append(text[begin:i])
            begin = i + 1
    return [*formulas, text[begin:]]


def with_added_keys(overrides: Iterable[str]) -> list[str]:
    """Overrides with ``++`` before the keys of a schedule whose class is named by ``_target_``: it has keys of its own.

    >>> with_added_keys(["schedule._target_=mycode.Tanh", "schedule.gamma=2", "warmup.length=5%"])
    ['++schedule._target_=mycode.Tanh', '++schedule.gamma=2', 'warmup.length=5%']
    """
    listed = list(overrides)
    named = {text.partition("=")[0].lstrip("+") for text in listed}
    own = tuple(f"{group}." for group in GROUPS_OF_SCHEDULES if f"{group}._target_" in named)
    return [f"++{word}" if own and (word := text.lstrip("+")).startswith(own) else text for text in listed]

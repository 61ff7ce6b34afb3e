"""A number and its noun."""

from __future__ import annotations

__all__ = ["plural"]


def plural(count: int, noun: str) -> str:
    """Return the number with its noun, which has an ``s`` unless it is one.

    >>> plural(1, "run"), plural(2, "run"), plural(0, "run")
    ('1 run', '2 runs', '0 runs')
    """
    return f"{count} {noun}{'s' * (count != 1)}"

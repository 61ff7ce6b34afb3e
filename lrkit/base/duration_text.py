"""A time as text."""

from __future__ import annotations

__all__ = ["format_duration"]


def format_duration(seconds: float | None) -> str:
    """Return a time in seconds, minutes or hours.

    >>> format_duration(5.94), format_duration(75), format_duration(7384), format_duration(None)
    ('5.9 s', '1 min 15 s', '2 h 03 min', '')
    """
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"

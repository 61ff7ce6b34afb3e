"""Values in the JSON and YAML of a run's folder, which may be untrusted: escaped texts, and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrkit.base.escaping import escape_terminal
from lrkit.base.validation import number, text

__all__ = ["escape_text", "read_numbers", "text_mapping", "text_or_none"]

_MAX_LENGTH = 1000  # characters of a name, a key or a value
_MEASURED, _TEXT = number(finite=False), text()


def text_mapping(node: Any) -> dict[str, Any]:
    """A mapping with escaped texts as keys; an empty one for any other value."""
    return {escape_text(str(key)): value for key, value in node.items()} if isinstance(node, Mapping) else {}


def read_numbers(node: Any) -> dict[str, float]:
    """The numbers of a mapping, by name; values of other types are left out."""
    return {key: float(value) for key, value in text_mapping(node).items() if _MEASURED.holds(value)}


def text_or_none(value: Any) -> str | None:
    """An escaped text; None for an empty one, or for any other value."""
    return escape_text(value) if value and _TEXT.holds(value) else None


def escape_text(text: str) -> str:
    """Untrusted text, escaped for a table in the terminal and cut to a maximal length."""
    return escape_terminal(text, _MAX_LENGTH)

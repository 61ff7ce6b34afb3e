"""Escapes for untrusted text (names of folders, keys, tags, messages) on a terminal, in CSV and in Markdown."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["escape_csv", "escape_markdown", "escape_terminal"]


def escape_terminal(text: str, longest: int | None = None) -> str:
    r"""Return text in one line for a terminal, with escapes in place of unprintable characters.

    Args:
        longest: number of characters after which the text is cut; None for no limit.

    >>> escape_terminal("a\n  b"), escape_terminal("a\x1b[0m")
    ('a b', 'a\\x1b[0m')
    """
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]}..."
    text = " ".join(line.strip() for line in text.splitlines() if line.strip()) if "\n" in text else text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def escape_csv(value: Any) -> Any:
    """Return a cell of a CSV file: text that a spreadsheet would read as a formula gets a leading quote.

    >>> escape_csv("=1+1"), escape_csv("-0.5"), escape_csv("@cmd"), escape_csv(-0.5)
    ("'=1+1", '-0.5', "'@cmd", -0.5)
    """
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def escape_markdown(text: str) -> str:
    r"""Return text for Markdown, escaped so that it is no markup, HTML, link or new cell of a table.

    >>> escape_markdown("<b>[x](http://y)|*z*")
    '&lt;b>\\[x\\](http://y)\\|\\*z\\*'
    >>> escape_markdown("optimizer.weight_decay=0.1")
    'optimizer.weight_decay=0.1'
    """
    return re.sub(r"([\\`*\[\]|])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))

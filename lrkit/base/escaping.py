"""Text from elsewhere, made safe for where it is shown: names of folders, keys, tags, messages may be a stranger's."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["csv_cell", "markdown", "one_line"]


def one_line(text: str, longest: int | None = None) -> str:
    r"""For a terminal: without line breaks, and with what cannot be printed written out.

    Args:
        longest: characters after which it is cut.

    >>> one_line("a\n  b"), one_line("a\x1b[0m")
    ('a b', 'a\\x1b[0m')
    """
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]}..."
    text = " ".join(line.strip() for line in text.splitlines() if line.strip()) if "\n" in text else text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def csv_cell(value: Any) -> Any:
    """For a table that a spreadsheet may open: text that it would take for a formula is marked as text.

    >>> csv_cell("=1+1"), csv_cell("-0.5"), csv_cell("@cmd"), csv_cell(-0.5)
    ("'=1+1", '-0.5', "'@cmd", -0.5)
    """
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def markdown(text: str) -> str:
    r"""For Markdown: no markup of its own, no HTML, no link, no further cell of a table.

    >>> markdown("<b>[x](http://y)|*z*")
    '&lt;b>\\[x\\](http://y)\\|\\*z\\*'
    >>> markdown("optimizer.weight_decay=0.1")
    'optimizer.weight_decay=0.1'
    """
    return re.sub(r"([\\`*\[\]|])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))

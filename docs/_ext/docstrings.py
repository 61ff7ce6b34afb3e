"""Formulas in docstrings are indented blocks; here they become literal blocks, as they are in a terminal."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["setup", "with_literal_formulas"]

#: Sections of a docstring, whose indented lines are not formulas.
SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Example|Examples):$")


def with_literal_formulas(lines: list[str]) -> list[str]:
    """The lines of a docstring, with ``::`` before each indented block that follows a paragraph.

    >>> with_literal_formulas(["Half a cosine.", "", "    m = (1 + cos(pi * u)) / 2", "", "Args:", "    u: progress."])
    ['Half a cosine.', '', '::', '', '    m = (1 + cos(pi * u)) / 2', '', 'Args:', '    u: progress.']
    """
    out: list[str] = []
    within = False  # a section or a literal block
    for i, line in enumerate(lines):
        indented = line.startswith("    ")
        if line and not indented:
            within = bool(SECTION.match(line)) or line.endswith("::")
        elif indented and not within and i and not lines[i - 1]:
            out += ["::", ""]
            within = True
        out.append(line)
    return out


def _write_formulas(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = with_literal_formulas(lines)


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _write_formulas, priority=100)  # before napoleon reads the sections
    return {"parallel_read_safe": True}

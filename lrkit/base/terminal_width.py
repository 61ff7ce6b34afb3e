"""The width of a terminal, and lines that fit it: a long line breaks between words, with a hanging indent.

A pipe and a file have no width: a line stays whole there, so that ``grep`` finds it.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TextIO

__all__ = ["find_width", "measure_text", "print_line", "wrap_command", "wrap_text"]

_COMMAND = re.compile(r": (lrkit [a-z]+ .*)$")
_USUAL, _LEAST = 80, 20  # columns of a terminal that does not say its size; the narrowest one that lines are broken for


def find_width(stream: TextIO | None = None) -> int | None:
    """Return the columns of the terminal that ``stream`` writes to; None for a pipe or a file, which have no limit.

    The environment variable ``COLUMNS`` takes precedence over the terminal's own answer.

    Args:
        stream: standard output by default.
    """
    stream = sys.stdout if stream is None else stream
    try:
        if not stream.isatty():
            return None
        columns = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # closed, without a descriptor, or COLUMNS is not a number
        return None if stream.closed else _USUAL
    return max(columns, _LEAST) if columns > 0 else _USUAL


def measure_text(text: str) -> int:
    """Return the columns that a text takes in a terminal: two for a wide character, such as a Chinese one.

    >>> measure_text("rate"), measure_text("学习率"), measure_text("é")
    (4, 6, 1)
    """
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def wrap_text(text: str, width: int | None, indent: int = 2) -> str:
    """Return the lines of ``text``, each broken between words where it is longer than ``width`` columns.

    A word that is longer than a line, such as a path, stays whole, so that it can be copied. So does a command at the
    end of a line: it gets lines of its own, which the shell reads as one (see ``wrap_command``).

    Args:
        text: one line or several.
        width: columns; None: no line is broken.
        indent: columns by which the further lines are indented, beyond the first one.

    >>> print(wrap_text("note: the run ends before the schedule", 20))
    note: the run ends
      before the
      schedule
    """
    if width is None:
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        if measure_text(line) <= width:
            lines.append(line)
        elif command := _COMMAND.search(line):
            lines += [*_break_line(line[: command.start() + 1], width, indent), wrap_command(command[1], width)]
        else:
            lines += _break_line(line, width, indent)
    return "\n".join(lines)


def _break_line(line: str, width: int, indent: int) -> Iterator[str]:
    first = line[: len(line) - len(line.lstrip(" "))]
    chunks = re.split(r"( +)", line[len(first) :])
    return _fill_lines(chunks[0::2], ["", *chunks[1::2]], first, first + " " * indent, width)


def _fill_lines(words: Iterable[str], gaps: Iterable[str], first: str, further: str, width: int) -> Iterator[str]:
    """Fill lines with words. ``first`` and ``further`` are the indents, ``gaps`` the spaces before each word."""
    line, used = first, measure_text(first)
    empty = True
    for gap, word in zip(gaps, words, strict=True):
        more = measure_text(gap) + measure_text(word)
        if not empty and word and used + more > width:
            yield line
            line, used = further + word, measure_text(further + word)
        elif word or empty:
            line, used = line + gap + word, used + more
        empty = False
    yield line


def wrap_command(command: str, width: int | None, indent: int = 2) -> str:
    """Return a command line to copy: indented, and broken between arguments with the shell's sign for it.

    >>> print(wrap_command("lrkit train schedule=cosine 'a={b: 1, c: 2}'", 34))
      lrkit train schedule=cosine \\
          'a={b: 1, c: 2}'
    """
    begin, further = " " * indent, " " * (indent + 4)
    if width is None or measure_text(begin + command) <= width:
        return begin + command
    words = re.findall(r"(?:'[^']*'|\"(?:\\.|[^\"])*\"|\\.|[^\s'\"])+", command)
    gaps = ["", *(" " for _ in words[1:])]
    return " \\\n".join(_fill_lines(words, gaps, begin, further, width - 2))


def print_line(text: str = "", stream: TextIO | None = None, *, style: str = "", indent: int = 2) -> None:
    """Print text in the width of ``stream``, and flush it.

    Args:
        text: one line or several.
        stream: standard output by default.
        style: a style of rich, such as ``yellow``, for a terminal that has colours.
        indent: as in ``wrap_text``.
    """
    stream = sys.stdout if stream is None else stream
    width = find_width(stream)
    wrapped = wrap_text(text, width, indent)
    if style and width is not None:
        from rich.console import Console
        from rich.text import Text

        Console(file=stream, soft_wrap=True).print(Text(wrapped, style))
    else:
        print(wrapped, file=stream)
    stream.flush()

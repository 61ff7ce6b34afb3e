"""A table as lines of text that fit a width: wide cells break between words."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import zip_longest

from lrkit.base.terminal_width import measure_text, wrap_text

__all__ = ["format_table"]

_GAP = 2  # columns between two columns of the table


def format_table(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None = None,
    left: Collection[str] = (),
    keys: int = 1,
) -> str:
    """Return a table with a line of names.

    If it is wider than ``width``, the widest columns get narrower, down to their longest words. If that is not enough,
    the table continues below with the columns that are left, each part with the first ``keys`` columns.

    Args:
        names: names of the columns.
        rows: cells.
        width: columns of the terminal; None: no limit.
        left: names of the columns of words, which are aligned left; the others are numbers.
        keys: number of the first columns, which say what a row is.

    >>> print(format_table(["phase", "shape", "first"], [["warmup", "linear 0.1", "0.01"]], left={"phase", "shape"}))
    phase   shape       first
    warmup  linear 0.1   0.01
    >>> print(format_table(["phase", "shape", "first"], [["warmup", "linear 0.1", "0.01"]], 21, {"phase", "shape"}))
    phase   shape   first
    warmup  linear   0.01
            0.1
    """
    columns = [[name, *(row[i] for row in rows)] for i, name in enumerate(names)]
    parts = [
        _format_part([names[i] for i in part], [columns[i] for i in part], width, left)
        for part in _divide_columns(columns, width, keys)
    ]
    return "\n\n".join(parts)


def _divide_columns(columns: Sequence[Sequence[str]], width: int | None, keys: int) -> Iterator[list[int]]:
    """The columns of each part of the table: as many as fit, at the widths of their longest words."""
    key, part = [*range(min(keys, len(columns)))], [*range(min(keys, len(columns)))]
    least = [_longest_word(column) for column in columns]
    for i in range(len(key), len(columns)):
        if width is not None and part != key and sum(least[j] + _GAP for j in part) + least[i] > width:
            yield part
            part = [*key]
        part.append(i)
    yield part


def _format_part(
    names: Sequence[str], columns: Sequence[Sequence[str]], width: int | None, left: Collection[str]
) -> str:
    widths = _fit_widths(columns, width)
    lines = []
    for row in zip(*columns, strict=True):
        broken = [wrap_text(cell, size, 0).split("\n") for cell, size in zip(row, widths, strict=True)]
        for pieces in zip_longest(*broken, fillvalue=""):
            cells = [
                _pad_cell(piece, size, name in left) for piece, size, name in zip(pieces, widths, names, strict=True)
            ]
            lines.append((" " * _GAP).join(cells).rstrip())
    return "\n".join(lines)


def _fit_widths(columns: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """The width of each column; the widest one gives way first."""
    widths = [max(measure_text(cell) for cell in column) for column in columns]
    least = [_longest_word(column) for column in columns]
    while width is not None and sum(widths) + _GAP * (len(widths) - 1) > width:
        loose = [i for i, size in enumerate(widths) if size > least[i]]
        if not loose:
            break
        widths[max(loose, key=lambda i: widths[i])] -= 1
    return widths


def _longest_word(column: Sequence[str]) -> int:
    return max((measure_text(word) for cell in column for word in cell.split()), default=0)


def _pad_cell(text: str, width: int, left: bool) -> str:
    space = " " * (width - measure_text(text))
    return text + space if left else space + text

"""The page docs/faults.md: the tests of faults write its rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

#: (fault, tries, survived, lost, what the user sees)
Row = Callable[[str, int, int, int, str], None]

ROWS: list[str] = []

#: The page around the rows; a test that calls ``row`` adds one.
PAGE = """\
# Faults: what a run survives

This page shows the effect of a fault in the process, the disk, the machine or the code of a run.
`tests/promises/test_faults.py` and `tests/promises/test_sweep_faults.py` measure it and write this page. *Survived*
counts the tries after which the run could be resumed with all that it had saved. *Lost* counts the tries after which a
finished checkpoint or result was unreadable, missing, or full of nan.

| fault | tries | survived | lost | what the user sees |
|---|--:|--:|--:|---|
{rows}

The control saves checkpoints by Lightning's own code: it shows that these tests can find a loss. All tests ran on a CPU
under Linux, with one process unless the row names another number. `tests/lightning/test_preemption.py` proves, with two
processes, that all processes end at the same step. A power failure was not tried; lrkit flushes each file and its
folder to the disk (`fsync`). [going_on.md](going_on.md) says for which data loaders "to the bit" holds.
"""


def merge_rows(old: list[str], new: list[str]) -> list[str]:
    """The rows of a page, of which those with the fault of a new row are replaced; other faults are added at the end.

    >>> merge_rows(["| a | 1 |", "| b | 1 |"], ["| b | 2 |", "| c | 2 |"])
    ['| a | 1 |', '| b | 2 |', '| c | 2 |']
    """
    return [*({row.split(" | ")[0]: row for row in (*old, *new)}.values())]


def rows() -> Iterator[Row]:
    """A module's fixture: a function that adds a row; the page is written after the module's last test.

    A part of the tests writes its rows alone: those of the others stay on the page as they are.
    """

    def add(fault: str, tries: int, survived: int, lost: int, seen: str) -> None:
        ROWS.append(f"| {fault} | {tries} | {survived} | {lost} | {seen} |")

    yield add
    if target := os.environ.get("LRKIT_FAULTS"):
        page = Path(target)
        old = [line for line in page.read_text().splitlines()[9:] if line.startswith("| ")] if page.exists() else []
        page.write_text(PAGE.format(rows="\n".join(merge_rows(old, ROWS))))

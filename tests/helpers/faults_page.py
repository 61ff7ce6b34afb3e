"""The page docs/faults.md, row by row as the tests of faults measure it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

#: (fault, tries, survived, lost, what the user sees)
Row = Callable[[str, int, int, int, str], None]

ROWS: list[str] = []

#: The page around the rows; a test that calls ``row`` adds one.
PAGE = """\
# Faults, and what is left after them

What happens to a run when its process, its disk, its machine or its code fails. Measured by
`tests/promises/test_faults.py` and `tests/promises/test_sweep_faults.py`, which write this page: *survived* counts the
tries after which the run could be gone on with from all that it had saved, *lost* those after which a finished
checkpoint or result was unreadable, missing, or full of nan.

| fault | tries | survived | lost | what the user sees |
|---|--:|--:|--:|---|
{rows}

`kill -9` by Lightning's own way of saving is the control: it shows that these tests can tell. Everything ran on a CPU
under Linux, with one process where no other number is said; that several end at the same step is proved with two in
`tests/lightning/test_preemption.py`. A power failure was not tried: each file and its folder are flushed to the disk
(`fsync`).
What "to the bit" holds for, loader by loader: [going_on.md](going_on.md).
"""


def rows() -> Iterator[Row]:
    """A fixture of a module: what adds a row; at the module's end the page is written."""

    def add(fault: str, tries: int, survived: int, lost: int, seen: str) -> None:
        ROWS.append(f"| {fault} | {tries} | {survived} | {lost} | {seen} |")

    yield add
    if target := os.environ.get("LRKIT_FAULTS"):
        Path(target).write_text(PAGE.format(rows="\n".join(ROWS)))

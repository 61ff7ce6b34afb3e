"""Reads scalars from the ``metrics.csv`` of Lightning's CSV logger, also of a run that was resumed."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lrkit.base.files import read_file
from lrkit.runs.event_reader import Series

__all__ = ["read_csv_series"]

_FILE = "metrics.csv"


def read_csv_series(folder: Path) -> dict[str, Series]:
    """Return the columns of a run's ``metrics.csv``; none if there is no such file, or it cannot be read.

    A resumed run has a further file in ``from_step_N/``, which replaces the values from its first step on.
    """
    found: dict[str, Series] = {}
    parts = [path for path in folder.glob(f"from_step_*/{_FILE}") if path.parent.name[10:].isdigit()]
    for file in [folder / _FILE, *sorted(parts, key=lambda path: int(path.parent.name[10:]))]:
        try:
            lines = read_file(file).decode(errors="replace").splitlines()
        except OSError:
            continue
        columns: dict[str, dict[int, float]] = {}
        with suppress(csv.Error):  # of a damaged file: the rows before it count
            for row in csv.DictReader(lines):
                _add_row(row, columns)
        for name, values in columns.items():
            later = Series(*map(list, zip(*sorted(values.items()), strict=True)))
            found.setdefault(name, Series()).join(later)
    return found


def _add_row(row: Mapping[str | None, object], columns: dict[str, dict[int, float]]) -> None:
    """Add the cells of a row to their columns; a row without a step has none."""
    step = _read_number(row.get("step"))
    for name, cell in row.items() if math.isfinite(step) else ():
        if name and name != "step" and isinstance(cell, str) and cell:
            columns.setdefault(name, {})[int(step)] = _read_number(cell)


def _read_number(cell: object) -> float:
    try:
        return float(str(cell))
    except ValueError:
        return math.nan

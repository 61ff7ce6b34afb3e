"""The rows of a table of values: checked, and read from a CSV or JSON file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.files import parse_json, read_file
from lrkit.base.validation import is_finite, is_list
from lrkit.schedules.durations import Duration

__all__ = ["MOST_ROWS", "check_rows", "read_table"]

#: Rows of a table: a plan holds them all.
MOST_ROWS = 10_000
_LARGEST = 2**22  # bytes of a file
#: The beginning of a column's name in `lrkit show format=csv`.
_RATES = "lr/"

Row = tuple[Any, float]


def check_rows(rows: Any, keys: Sequence[str] = ()) -> tuple[Row, ...]:
    """Return the rows of a table, each a place and a value.

    Args:
        rows: a list of pairs: a duration, and a number >= 0. Places of one unit must increase.
        keys: the name of each row in an error; by default ``table[0]``, ``table[1]``, ...

    Raises:
        ConfigError: with the name of the row.

    >>> check_rows([[0, 1.0], ["50%", 0.1]])
    ((0, 1.0), ('50%', 0.1))
    """
    if not is_list(rows) or not rows:
        raise ConfigError("table", "must be a .csv or .json file, or a list such as [[0, 1.0], [50%, 0.1]]", rows)
    if len(rows) > MOST_ROWS:
        raise ConfigError("table", f"must have at most {MOST_ROWS} rows, and has {len(rows)}")
    checked: list[Row] = []
    places: list[Duration] = []
    for i, row in enumerate(rows):
        key = keys[i] if keys else f"table[{i}]"
        if not is_list(row) or len(row) != 2:
            raise ConfigError(key, "must be a place and a value, such as [50%, 0.1]", row)
        place, value = row
        places.append(Duration.parse(place, key))
        if isinstance(value, bool) or not is_finite(value) or value < 0:
            raise ConfigError(key, "must have a value >= 0, a multiplier of the base learning rate", list(row))
        checked.append((place, float(value)))
    for i, (one, other) in enumerate(pairwise(places), start=1):
        if one.unit == other.unit and one.value >= other.value:
            must = f"must have a place after {checked[i - 1][0]}, that of the row before"
            raise ConfigError(keys[i] if keys else f"table[{i}]", must, list(checked[i]))
    return tuple(checked)


def read_table(path: str, column: str | None = None, *, rates: bool = False) -> tuple[Row, ...]:
    """Read the rows of a file, and return them as ``check_rows`` does.

    A CSV file has the places in its first column. It may begin with a row of names; then ``column`` chooses one of
    several columns of values. A JSON file has a list of pairs.

    Args:
        path: the path of a regular file that ends in .csv or .json, relative to the working folder.
        column: the name of the column with the values.
        rates: whether the values may be learning rates, as in the output of ``lrkit show format=csv``.

    Raises:
        ConfigError: the file cannot be read, or has an invalid row; the key is ``table``, with the line, or ``column``.
    """
    kind = Path(path).suffix.lower()
    if kind not in (".csv", ".json"):
        raise ConfigError("table", "must be a .csv or .json file, or a list such as [[0, 1.0], [50%, 0.1]]", path)
    if kind == ".json" and column is not None:
        raise ConfigError("column", "must be null for a .json file, whose values have no names", column)
    try:
        text = read_file(Path(path), _LARGEST).decode("utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path with a null character
        why = getattr(error, "strerror", None) or error
        raise ConfigError("table", f"must be a file that can be read ({why})", path) from None
    if kind == ".csv":
        return _parse_csv(text, path, column, rates=rates)
    try:
        rows = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError("table", f"must be a JSON file ({error})", path) from None
    if not isinstance(rows, list):
        raise ConfigError("table", 'must be a JSON list of pairs, such as [[0, 1.0], ["50%", 0.1]]', path)
    return check_rows(rows, [f"table ({path}, row {i})" for i in range(1, len(rows) + 1)])


def _parse_csv(text: str, path: str, column: str | None, *, rates: bool) -> tuple[Row, ...]:
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise ConfigError("table", f"must be a CSV file ({error})", path) from None
    if not lines:
        raise ConfigError("table", "must have at least one row", path)
    keys = [f"table ({path}, line {number})" for number, _ in lines]
    rows = [row for _, row in lines]
    index, width = 1, len(rows[0])
    if width < 2:
        raise ConfigError(keys[0], "must have two columns: place,value", rows[0])
    if not any(map(_is_number, rows[0][1:])):
        index = _find_column(rows[0], column, path, rates=rates)
        keys, rows = keys[1:], rows[1:]
    elif column is not None or width > 2:
        must = "must begin with a row of names, from which column is chosen, or have two columns: place,value"
        raise ConfigError(keys[0], must, rows[0])
    for key, row in zip(keys, rows, strict=True):
        if len(row) != width or not _is_number(row[index]):
            raise ConfigError(key, f"must have {width} cells, and a number in cell {index + 1}", row)
    return check_rows([(_parse_place(row[0]), float(row[index])) for row in rows], keys)


def _find_column(names: list[str], column: str | None, path: str, *, rates: bool) -> int:
    """The index of the column with the values."""
    if column is not None and column not in names[1:]:
        raise ConfigError("column", f"is not in {path}. {did_you_mean(column, names[1:])}", column)
    if column is None and len(names) > 2:
        raise ConfigError("column", f"must be set: {path} has the columns {', '.join(names[1:])}")
    index = 1 if column is None else names.index(column, 1)
    if names[index].startswith(_RATES) and not rates:
        must = f"has learning rates in {names[index]}, and must have multipliers: set normalise=peak or normalise=first"
        raise ConfigError("table", must, path)
    return index


def _parse_place(cell: str) -> int | float | str:
    """A place, as it would be read from YAML."""
    for kind in (int, float):
        try:
            return kind(cell) if len(cell) <= 30 else cell
        except ValueError:
            continue
    return cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True

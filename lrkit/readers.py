"""From files to numbers: npz, csv and text, and the cache of what was generated."""

from __future__ import annotations

import csv
import math
import os
import sysconfig
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrkit.errors import ConfigError, did_you_mean

__all__ = ["cache_folder", "read_cache", "read_csv", "read_npz", "read_text", "standard_library", "write_cache"]

Array = NDArray[Any]


def read_npz(path: Path) -> dict[str, tuple[Array, Array]]:
    try:
        # Opened here: given a path, np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
            arrays = dict(loaded)
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, AttributeError) as error:
        raise ConfigError("data.path", f"must be an .npz of plain arrays: {error}", str(path)) from error
    suffixes = {"train": "" if "x" in arrays else "_train", "val": "_val", "test": "_test"}
    parts = {}
    for part, suffix in suffixes.items():
        names = f"x{suffix}", f"y{suffix}"
        if part == "train" or names[0] in arrays or names[1] in arrays:
            for name in names:
                if name not in arrays:
                    must = f"must hold the arrays {names[0]} and {names[1]}"
                    raise ConfigError("data.path", must, sorted(arrays))
            parts[part] = arrays[names[0]], arrays[names[1]]
    return parts


def read_csv(path: Path, target: str | None) -> dict[str, tuple[Array, Array]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError("data.path", f"must be a table in UTF-8: {error}", str(path)) from error
    if len(rows) < 2:
        raise ConfigError("data.path", "must have at least two lines", len(rows))
    width = len(rows[0])
    for number, row in enumerate(rows, start=1):
        if len(row) != width:
            raise ConfigError("data.path", f"must have {width} columns in each line: line {number} has", len(row))
    if width < 2:
        raise ConfigError("data.path", "must have a column of targets and at least one of inputs", width)
    # A name above a number makes the first line one of names; a class may be a string, but has strings below.
    header = any(not _is(float, first) and _is(float, below) for first, below in zip(*rows[:2], strict=True))
    if header and any(_is(float, cell) for cell in rows[0]):
        raise ConfigError("data.path", "must have a first line of names or of values, not of both", rows[0])
    names = rows[0] if header else [str(column) for column in range(width)]
    if target is not None and target not in names:
        raise ConfigError("data.target", f"must be a column. {did_you_mean(str(target), names)}", target)
    at = width - 1 if target is None else names.index(target)
    body = rows[header:]
    if doubled := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ConfigError("data.path", "must not have two columns of one name", doubled[0])
    for number, row in enumerate(body, start=1 + header):
        for column, cell in enumerate(row):
            if column != at and not _is_number(cell):
                must = f"must hold numbers: line {number}, column {names[column]} has none"
                raise ConfigError("data.path", must, cell)
    _check_targets([row[at] for row in body], names[at], 1 + header)
    x = np.array([[float(cell) for column, cell in enumerate(row) if column != at] for row in body])
    kind = next(kind for kind in (int, float, str) if all(_is(kind, row[at]) for row in body))
    return {"train": (x, np.array([kind(row[at]) for row in body]))}


def _check_targets(cells: Sequence[str], name: str, first: int) -> None:
    """Refuse a column of targets that is neither of numbers nor of classes: what is missing would become a class."""
    numbers = [_is_number(cell) for cell in cells]
    if all(numbers):
        return
    wrong = [i for i, cell in enumerate(cells) if not cell or (any(numbers) and not numbers[i])]
    if wrong:
        more = f", and {len(wrong) - 1} more lines" if len(wrong) > 1 else ""
        must = f"must have a number or a class in each line: line {first + wrong[0]}, column {name} has none{more}"
        raise ConfigError("data.path", must, cells[wrong[0]])


def _is_number(cell: str) -> bool:
    """A finite one: ``nan`` and ``inf`` are how tables say that there is none."""
    return _is(float, cell) and math.isfinite(float(cell))


def _is(kind: Callable[[str], object], cell: str) -> bool:
    try:
        kind(cell)
    except ValueError:
        return False
    return True


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("data.path", f"must be a text in UTF-8: {error}", str(path)) from error
    except OSError as error:
        raise ConfigError("data.path", f"must be a readable file: {error.strerror}", str(path)) from error


def standard_library(size: int = 1_500_000) -> str:
    """Modules of Python's standard library, in the order of their names, up to ``size`` ASCII characters."""
    text = ""
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text += file.read_bytes().decode("ascii", "replace").replace("\ufffd", "?")
        if len(text) >= size:
            return text[:size]
    raise ConfigError("data.path", "must be a text file: this Python has no source of its standard library")


def read_cache(file: Path) -> tuple[Array, Array] | None:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return arrays["x"], arrays["y"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None  # not there, or damaged: made again


def write_cache(file: Path, arrays: tuple[Array, Array]) -> tuple[Array, Array]:
    """Keeps the arrays where that is possible; another process sees the whole file or none."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
            np.savez(part, x=arrays[0], y=arrays[1])
        os.replace(part.name, file)
    except OSError:
        pass  # a read-only home costs time, not the run
    return arrays


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lrkit"

"""From files to numbers: npz, csv and text, and the cache of what was generated."""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import sysconfig
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrkit.base.archives import find_defect, list_members
from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.files import open_regular_file
from lrkit.base.memory import check_fits
from lrkit.config.missing_values import is_missing

__all__ = [
    "Table",
    "cache_folder",
    "open_data",
    "read_cache",
    "read_csv",
    "read_npz",
    "read_text",
    "standard_library",
    "unzipped",
    "write_cache",
]

Array = NDArray[Any]


class Table(NamedTuple):
    """What was read: inputs and targets of each part, the name of the targets, and how many samples were dropped."""

    parts: dict[str, tuple[Array, Array]]
    target: str
    dropped: int = 0


def read_npz(path: Path, missing: str = "refuse") -> Table:
    """Arrays by their names: ``x`` and ``y``, or ``x_train``, ``y_train`` and so on.

    Args:
        path: the file.
        missing: what to do with samples that have a nan, or a class that says that it is missing: see
            ``lrkit.config.missing_values``.
    """
    try:
        # Opened here: given a path, np.load leaves a damaged file open.
        with open_data(path) as file:
            _check_arrays(path, file)
            with np.load(file, allow_pickle=False) as loaded:
                arrays = dict(loaded)
    except ConfigError:
        raise
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, AttributeError, NotImplementedError) as error:
        raise ConfigError("data.path", f"must be an .npz of plain arrays: {error}", str(path)) from error
    suffixes = {"train": "" if "x" in arrays else "_train", "val": "_val", "test": "_test"}
    parts, dropped = {}, 0
    for part, suffix in suffixes.items():
        names = f"x{suffix}", f"y{suffix}"
        if part == "train" or names[0] in arrays or names[1] in arrays:
            for name in names:
                if name not in arrays:
                    must = f"must hold the arrays {names[0]} and {names[1]}"
                    raise ConfigError("data.path", must, sorted(arrays))
            x, y = arrays[names[0]], arrays[names[1]]
            for name, array in zip(names, (x, y), strict=True):
                if array.ndim and array.size == 0:
                    raise ConfigError("data.path", f"must have samples: the array {name} is empty", array.shape)
            if x.ndim and y.ndim and len(x) == len(y):
                there = _there(names, x, y, missing)
                x, y, dropped = x[there], y[there], dropped + int((~there).sum())
            parts[part] = x, y
    return Table(parts, f"y{suffixes['train']}", dropped)


def _check_arrays(path: Path, file: BinaryIO) -> None:
    """Refuse arrays whose headers say that they are larger than the file has them, or than the memory that is left."""
    members = list_members(file)
    if wrong := find_defect(members, os.fstat(file.fileno()).st_size, stored=False):
        raise ConfigError("data.path", f"must be an .npz of plain arrays: {wrong}", str(path))
    check_fits(sum(member.file_size for member in members), "data.path", path)
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        for member in members:
            with archive.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(stream)
                size, there = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
            if not dtype.hasobject and size != there:
                must = (
                    f"must hold whole arrays: the header of {member.filename} says {size} bytes, and there are {there}"
                )
                raise ConfigError("data.path", must, str(path))
    file.seek(0)


def open_data(path: Path) -> BinaryIO:
    """A file of data, open to be read.

    Raises:
        ConfigError: it is not there, no regular file, or larger than the memory that is left.
    """
    try:
        stream = open_regular_file(path)
    except OSError as error:
        raise ConfigError("data.path", f"must be a readable file: {error.strerror}", str(path)) from error
    try:
        check_fits(os.fstat(stream.fileno()).st_size, "data.path", path)
    except ConfigError:
        stream.close()
        raise
    return stream


def unzipped(path: Path, most: int) -> bytes:
    """The content of a file, unpacked where it is gzipped, and of that ``most`` bytes at the most.

    Raises:
        OSError, EOFError, zlib.error: it cannot be unpacked.
    """
    with open_data(path) as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            return file.read(most)
        with gzip.GzipFile(fileobj=file) as stream:
            return stream.read(most)


def _there(names: tuple[str, str], x: Array, y: Array, missing: str) -> NDArray[np.bool_]:
    """Which samples miss no value."""
    there: NDArray[np.bool_] = np.ones(len(x), dtype=bool)
    for name, array in zip(names, (x, y), strict=True):
        rows = array.reshape(len(array), -1)
        if array.dtype.kind == "f":
            lost = np.isnan(rows)
        elif array.dtype.kind == "U" and missing != "keep":
            values, codes = np.unique(rows, return_inverse=True)
            lost = np.array([is_missing(str(value)) for value in values], dtype=bool)[codes.reshape(rows.shape)]
        else:
            continue
        in_sample: NDArray[np.bool_] = np.asarray(lost.any(axis=1))
        if in_sample.any() and missing != "drop":
            first = int(in_sample.argmax())
            value = str(rows[first][np.isnan(rows[first])][0]) if array.dtype.kind == "f" else str(rows[first][0])
            raise _misses(f"sample {first} of {name}", int(in_sample.sum()), len(rows), "samples", value)
        there &= ~in_sample
    return there


def read_csv(path: Path, target: str | None, kind: str = "auto", missing: str = "refuse") -> Table:
    """A table, whose first line may be one of names.

    Args:
        path: the file.
        target: the column to predict; None: the last.
        kind: whether that is ``classes`` or ``numbers``. auto: whole numbers and words are classes, numbers with a
            point are numbers, and both together are refused.
        missing: what to do with lines in which a cell says that it is missing: see ``lrkit.config.missing_values``.
    """
    try:
        with io.TextIOWrapper(open_data(path), encoding="utf-8-sig", newline="") as file:
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
    below = [next((row[i] for row in rows[1:] if not is_missing(row[i])), "") for i in range(width)]
    header = any(not _is(float, first) and _is(float, cell) for first, cell in zip(rows[0], below, strict=True))
    if header and any(_is(float, cell) for cell in rows[0]):
        raise ConfigError("data.path", "must have a first line of names or of values, not of both", rows[0])
    names = rows[0] if header else [str(column) for column in range(width)]
    if doubled := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ConfigError("data.path", "must not have two columns of one name", doubled[0])
    if target is not None and target not in names:
        raise ConfigError("data.target", f"must be a column. {did_you_mean(str(target), names)}", target)
    at = width - 1 if target is None else names.index(target)
    lines = [*enumerate(rows, start=1)][header:]
    lost = [(number, i) for number, row in lines for i in range(width)
            if is_missing(row[i]) and not (i == at and missing == "keep" and row[i])]  # fmt: skip
    if lost and missing != "drop":
        number, i = lost[0]
        place = f"line {number}, column {names[i]}"
        count = len({number for number, _ in lost})
        raise _misses(place, count, len(lines), "lines", rows[number - 1][i])
    incomplete = {number for number, _ in lost}
    kept = [(number, row) for number, row in lines if number not in incomplete]
    if not kept:
        raise ConfigError("data.missing", f"leaves none of the {len(lines)} lines of {path.name}", missing)
    for number, row in kept:
        for column, cell in enumerate(row):
            if column != at and not _is(float, cell):
                must = f"must hold numbers: line {number}, column {names[column]} has none"
                raise ConfigError("data.path", must, cell)
    x = np.array([[float(cell) for column, cell in enumerate(row) if column != at] for _, row in kept])
    y = _targets([(number, row[at]) for number, row in kept], names[at], kind)
    return Table({"train": (x, y)}, f"column {names[at]}", len(incomplete))


def _misses(place: str, count: int, of: int, unit: str, value: str) -> ConfigError:
    """The error for a value that is missing: where, how often, and what can be done."""
    more = f" (as do {count} of {of} {unit})" if count > 1 else ""
    way = f"data.missing=drop leaves such {unit} out, and keep takes words for names of classes"
    return ConfigError("data.path", f"must miss no value, and {place} does{more}; {way}", value)


def _targets(cells: Sequence[tuple[int, str]], column: str, kind: str) -> Array:
    """A column as whole numbers, as numbers, or as words."""
    values = [cell for _, cell in cells]
    numbers = [_is(float, cell) for cell in values]
    if all(numbers):
        if all(_is(int, cell) for cell in values):
            return np.array([int(cell) for cell in values])
        return np.array([float(cell) for cell in values])
    if kind == "numbers" or (kind == "auto" and any(numbers)):
        # The odd one: the first word, or where most are words, the first number.
        odd = kind == "auto" and 2 * sum(numbers) < len(numbers)
        number, cell = next(pair for pair, is_number in zip(cells, numbers, strict=True) if is_number is odd)
        must = f"must hold numbers alone or names alone as targets: line {number}, column {column} is another sort"
        way = "data.targets=classes takes each spelling for a class"
        raise ConfigError("data.path", f"{must}; {way}" if kind == "auto" else must, cell)
    return np.array(values)


def _is(kind: Callable[[str], object], cell: str) -> bool:
    try:
        kind(cell)
    except ValueError:
        return False
    return True


def read_text(path: Path) -> str:
    try:
        with io.TextIOWrapper(open_data(path), encoding="utf-8") as file:
            return file.read()
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
        with open_regular_file(file) as stream:
            _check_arrays(file, stream)
            with np.load(stream, allow_pickle=False) as arrays:
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

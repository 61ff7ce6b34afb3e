"""Reads npz, csv and text files, and the cache of generated data."""

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

from lrkit.base.available_memory import check_fits
from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.files import open_regular_file
from lrkit.base.zip_archives import find_defect, list_members
from lrkit.config.missing_value_spellings import is_missing

__all__ = [
    "Table",
    "cache_folder",
    "open_data",
    "read_cache",
    "read_csv",
    "read_npz",
    "read_standard_library",
    "read_text",
    "read_unzipped",
    "write_cache",
]

Array = NDArray[Any]


class Table(NamedTuple):
    """The content of a file: inputs and targets of each part, the targets' name, the number of dropped samples."""

    parts: dict[str, tuple[Array, Array]]
    target: str
    dropped: int = 0


def read_npz(path: Path, missing: str = "refuse") -> Table:
    """The arrays of an npz file, by their names: ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_val`` and so on.

    Args:
        path: the file.
        missing: how samples with a nan, or with a word for a missing value as their class, are handled: see
            ``lrkit.config.missing_value_spellings``.

    Raises:
        ConfigError: the file is damaged, has no such arrays, no samples, or missing values that are refused.
    """
    try:
        # np.load would leave a damaged file open if it were given the path.
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
                    must = f"must have the arrays {names[0]} and {names[1]}"
                    raise ConfigError("data.path", must, sorted(arrays))
            x, y = arrays[names[0]], arrays[names[1]]
            for name, array in zip(names, (x, y), strict=True):
                if array.ndim and array.size == 0:
                    raise ConfigError("data.path", f"must have samples: the array {name} is empty", array.shape)
            if x.ndim and y.ndim and len(x) == len(y):
                complete = _find_complete(names, x, y, missing)
                x, y, dropped = x[complete], y[complete], dropped + int((~complete).sum())
            parts[part] = x, y
    return Table(parts, f"y{suffixes['train']}", dropped)


def _check_arrays(path: Path, file: BinaryIO) -> None:
    """Refuse arrays whose headers give another size than the file has, or that need more than the free memory."""
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
                declared, actual = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
            if not dtype.hasobject and declared != actual:
                must = f"must have complete arrays: {member.filename} has {actual} bytes, its header says {declared}"
                raise ConfigError("data.path", must, str(path))
    file.seek(0)


def open_data(path: Path) -> BinaryIO:
    """A data file, opened for reading.

    Raises:
        ConfigError: it does not exist, is no regular file, or is larger than the free memory.
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


def read_unzipped(path: Path, most: int) -> bytes:
    """The first ``most`` bytes of a file's content; a gzipped file is decompressed.

    Raises:
        OSError, EOFError, zlib.error: it cannot be decompressed.
    """
    with open_data(path) as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            return file.read(most)
        with gzip.GzipFile(fileobj=file) as stream:
            return stream.read(most)


def _find_complete(names: tuple[str, str], x: Array, y: Array, missing: str) -> NDArray[np.bool_]:
    """For each sample, whether it has all its values."""
    complete: NDArray[np.bool_] = np.ones(len(x), dtype=bool)
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
            raise missing_value_error(f"sample {first} of {name}", int(in_sample.sum()), len(rows), "samples", value)
        complete &= ~in_sample
    return complete


def read_csv(path: Path, target: str | None, kind: str = "auto", missing: str = "refuse") -> Table:
    """The columns of a csv file, whose first line may be a header.

    Args:
        path: the file.
        target: the column to predict; None: the last.
        kind: ``classes`` or ``numbers``. auto: whole numbers and words are classes, numbers with a decimal point are
            numbers, and a mixture of numbers and words is refused.
        missing: how lines with a missing value are handled: see ``lrkit.config.missing_value_spellings``.

    Raises:
        ConfigError: the file is no table of numbers with a column of targets.
    """
    rows = _read_rows(path)
    width = len(rows[0])
    names, header = _read_header(rows)
    if doubled := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ConfigError("data.path", "must not have two columns with the same name", doubled[0])
    if target is not None and target not in names:
        raise ConfigError("data.target", f"must be a column of data.path. {did_you_mean(str(target), names)}", target)
    at = width - 1 if target is None else names.index(target)
    lines = [*enumerate(rows, start=1)][header:]
    lost = [(number, i) for number, row in lines for i in range(width)
            if is_missing(row[i]) and not (i == at and missing == "keep" and row[i])]  # fmt: skip
    if lost and missing != "drop":
        number, i = lost[0]
        place = f"line {number}, column {names[i]}"
        count = len({number for number, _ in lost})
        raise missing_value_error(place, count, len(lines), "lines", rows[number - 1][i])
    incomplete = {number for number, _ in lost}
    complete = [(number, row) for number, row in lines if number not in incomplete]
    if not complete:
        raise ConfigError(
            "data.missing",
            f"must leave at least one line: all {len(lines)} lines of {path.name} have a missing value",
            missing,
        )
    for number, row in complete:
        for column, cell in enumerate(row):
            if column != at and not _is_parsed_by(float, cell):
                must = f"must have numbers as inputs: line {number}, column {names[column]}"
                raise ConfigError("data.path", must, cell)
    x = np.array([[float(cell) for column, cell in enumerate(row) if column != at] for _, row in complete])
    y = _read_targets([(number, row[at]) for number, row in complete], names[at], kind)
    return Table({"train": (x, y)}, f"column {names[at]}", len(incomplete))


def _read_rows(path: Path) -> list[list[str]]:
    """The lines of a csv file, each with the same number of cells, two or more."""
    try:
        with io.TextIOWrapper(open_data(path), encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError("data.path", f"must be a csv file in UTF-8: {error}", str(path)) from error
    if len(rows) < 2:
        raise ConfigError("data.path", "must have at least two lines", len(rows))
    width = len(rows[0])
    for number, row in enumerate(rows, start=1):
        if len(row) != width:
            raise ConfigError(
                "data.path", f"must have {width} columns in each line: line {number} has another number", len(row)
            )
    if width < 2:
        raise ConfigError("data.path", "must have a column of targets and at least one column of inputs", width)
    return rows


def _read_header(rows: list[list[str]]) -> tuple[list[str], bool]:
    """The names of the columns, and whether the first line has them; without them they are numbers."""
    width = len(rows[0])
    # The first line is a header if a name is above a number. A column of classes has strings in every line.
    below = [next((row[i] for row in rows[1:] if not is_missing(row[i])), "") for i in range(width)]
    header = any(
        not _is_parsed_by(float, first) and _is_parsed_by(float, cell)
        for first, cell in zip(rows[0], below, strict=True)
    )
    if header and any(_is_parsed_by(float, cell) for cell in rows[0]):
        raise ConfigError("data.path", "must have names or values in its first line, not both", rows[0])
    if header:
        return rows[0], True
    return [str(column) for column in range(width)], False


def missing_value_error(place: str, count: int, of: int, unit: str, value: str) -> ConfigError:
    """The error for a missing value: its place, how many there are, and the options."""
    more = f" ({count} of {of} {unit} have one)" if count > 1 else ""
    options = f"data.missing=drop drops such {unit}, data.missing=keep takes words for names of classes"
    return ConfigError("data.path", f"must have no missing value: {place}{more}; {options}", value)


def _read_targets(cells: Sequence[tuple[int, str]], column: str, kind: str) -> Array:
    """The cells of a column as integers, as floats, or as strings.

    Args:
        cells: the line number and the text of each.
    """
    values = [cell for _, cell in cells]
    numbers = [_is_parsed_by(float, cell) for cell in values]
    if all(numbers):
        if all(_is_parsed_by(int, cell) for cell in values):
            return np.array([int(cell) for cell in values])
        return np.array([float(cell) for cell in values])
    if kind == "numbers" or (kind == "auto" and any(numbers)):
        # The message shows a cell of the rarer sort: the first word, or the first number if most cells are words.
        odd = kind == "auto" and 2 * sum(numbers) < len(numbers)
        number, cell = next(pair for pair, is_number in zip(cells, numbers, strict=True) if is_number is odd)
        must = f"must have only numbers or only names as targets: line {number}, column {column} differs"
        option = "data.targets=classes makes each spelling a class"
        raise ConfigError("data.path", f"{must}; {option}" if kind == "auto" else must, cell)
    return np.array(values)


def _is_parsed_by(parse: Callable[[str], object], cell: str) -> bool:
    try:
        parse(cell)
    except ValueError:
        return False
    return True


def read_text(path: Path) -> str:
    """The content of a text file in UTF-8."""
    try:
        with io.TextIOWrapper(open_data(path), encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ConfigError("data.path", f"must be a text file in UTF-8: {error}", str(path)) from error
    except OSError as error:
        raise ConfigError("data.path", f"must be a readable file: {error.strerror}", str(path)) from error


def read_standard_library(size: int = 1_500_000) -> str:
    """The first ``size`` characters of the modules of Python's standard library, by name, as ASCII."""
    text = ""
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text += file.read_bytes().decode("ascii", "replace").replace("\ufffd", "?")
        if len(text) >= size:
            return text[:size]
    raise ConfigError("data.path", "must be set to a text file: this Python has no source code of its standard library")


def read_cache(file: Path) -> tuple[Array, Array] | None:
    """The arrays of a cache file; None if it does not exist or is damaged: the caller generates them again."""
    try:
        with open_regular_file(file) as stream:
            _check_arrays(file, stream)
            with np.load(stream, allow_pickle=False) as arrays:
                return arrays["x"], arrays["y"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def write_cache(file: Path, arrays: tuple[Array, Array]) -> tuple[Array, Array]:
    """The arrays, written to a cache file if the folder is writable. Another process sees the complete file or none."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
            np.savez(part, x=arrays[0], y=arrays[1])
        os.replace(part.name, file)
    except OSError:
        pass  # with a read-only home folder the next run generates them again
    return arrays


def cache_folder() -> Path:
    """The folder for generated and downloaded data: ``$XDG_CACHE_HOME/lrkit``, or ``~/.cache/lrkit``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lrkit"

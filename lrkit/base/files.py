"""Atomic files: a reader sees the old content or the new content, and a write never follows a link.

The content goes into a temporary file in the same folder, which then replaces the target (``os.replace``). If the
target is a link, the link is replaced, and the file that it leads to stays unchanged. All results of lrkit are written
by this module, except checkpoints (``lrkit.checkpoint.durable_io``), which are large.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from lrkit.base.errors import RunError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "TEMPORARY_SUFFIX",
    "choose_temporary_name",
    "create_temporary_file",
    "find_leftovers",
    "open_regular_file",
    "open_to_append",
    "parse_json",
    "read_file",
    "read_json",
    "shorten_path",
    "write_figure",
    "write_file",
    "write_json",
]  # fmt: skip

#: Suffix of a temporary file.
TEMPORARY_SUFFIX = ".new"
#: The names that ``choose_temporary_name`` returns.
_TEMPORARY_NAME = re.compile(rf"\.(.+)\.[0-9a-f]{{8}}{re.escape(TEMPORARY_SUFFIX)}")
#: Windows has no such flag; there an ordinary user cannot create links.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
#: With this flag, opening a pipe without a writer does not block, so that the type of the file can be checked.
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
#: Default limit for the size of a text file, in bytes.
LARGEST = 2**26


def open_regular_file(file: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: the file cannot be read, or is not a regular file: a pipe would block, and a device has no end.
    """
    number = os.open(file, os.O_RDONLY | _NO_WAIT)
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(file))
        return os.fdopen(number, "rb")
    except OSError:
        os.close(number)
        raise


def read_file(file: Path, largest: int = LARGEST) -> bytes:
    """Return the content of a regular file of at most ``largest`` bytes.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is larger.
    """
    with open_regular_file(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = stream.read(largest + 1) if size <= largest else b""  # read nothing of a sparse file
    if size > largest or len(content) > largest:
        raise OSError(errno.EFBIG, f"it is larger than {largest} bytes", str(file))
    return content


def read_json(file: Path) -> Any:
    """Return the content of a JSON file; None if the file is missing, truncated or not JSON."""
    try:
        return parse_json(read_file(file))
    except (OSError, ValueError, RecursionError):
        return None


def parse_json(text: str | bytes) -> Any:
    """Return the content of a text in JSON. An integer of more than 19 characters is read as a float.

    Raises:
        ValueError: the text is not JSON.
        RecursionError: the content is nested too deeply.
    """
    return json.loads(text, parse_int=_parse_integer)


def _parse_integer(text: str) -> int | float:
    return int(text) if len(text) <= 19 else float(text)


def write_json(file: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Replace ``file`` by ``content`` as JSON; see ``write_file``."""
    write_file(file, json.dumps(content, indent=2, default=str) + "\n")


def write_figure(file: Path, figure: Figure) -> None:
    """Replace ``file`` by a figure in the format of its suffix; see ``write_file``."""
    picture = io.BytesIO()
    figure.savefig(picture, format=file.suffix[1:])
    write_file(file, picture.getvalue())


def write_file(file: Path, content: str | bytes) -> None:
    """Replace the content of ``file`` atomically.

    Raises:
        RunError: the file cannot be written; its old content stays.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        beside, number = create_temporary_file(file)
        try:
            with os.fdopen(number, "wb") as stream:
                stream.write(data)
            os.replace(beside, file)
        except OSError:
            with suppress(OSError):  # the folder may be gone or read-only
                beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RunError(f"{file} cannot be written ({error.strerror or error})") from None


def create_temporary_file(file: Path) -> tuple[Path, int]:
    """Create a temporary file in the folder of ``file``; return its path and its descriptor, open for writing."""
    beside = choose_temporary_name(file)
    return beside, os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o666)


def choose_temporary_name(file: Path) -> Path:
    """Return a path in the folder of ``file`` with a random name, which no other user can predict."""
    return file.with_name(f".{file.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def open_to_append(file: Path) -> TextIO:
    """Open ``file`` for appending, line-buffered.

    Raises:
        RunError: the file cannot be opened, or is a link.
    """
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_LINK | _NO_WAIT, 0o666)
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise OSError(errno.EINVAL, "it is not a regular file")
    except OSError as error:
        raise RunError(f"{file} cannot be written ({error.strerror or error})") from None
    return os.fdopen(number, "a", buffering=1)


def find_leftovers(folder: Path, ending: str) -> list[Path]:
    """Return the temporary files in a folder whose target has this ending, left by a write that did not finish."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = _TEMPORARY_NAME.fullmatch(entry.name)
            if name is not None and name[1].endswith(ending) and entry.is_file(follow_symlinks=False):
                found.append(folder / entry.name)
    return found


def shorten_path(path: Path) -> str:
    """Return a path relative to the current folder if it is inside, else the whole path.

    >>> shorten_path(Path.cwd() / "outputs"), shorten_path(Path("/dev/null"))
    ('outputs', '/dev/null')
    """
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)

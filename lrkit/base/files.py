"""The files that lrkit leaves: each is there as a whole or not at all, and none is written through a link.

A result is written into a new file beside its place, which then takes that place. So whoever reads it sees the old
content or the new one, never half of it; and where its name was a link to somebody's file, the link is replaced and
the file is left. All of lrkit writes its results by this module (checkpoints, which are large, by
``lrkit.checkpoint.io``).
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
    "NEW",
    "create_beside",
    "left_behind",
    "name_beside",
    "open_to_append",
    "opened",
    "parsed",
    "read_file",
    "read_json",
    "write_figure",
    "write_file",
    "write_json",
]  # fmt: skip

#: The end of the name of a file that is being written.
NEW = ".new"
#: What ``name_beside`` says.
_CREATED = re.compile(rf"\.(.+)\.[0-9a-f]{{8}}{re.escape(NEW)}")
#: Windows has no such flag, and no links that a user without rights could make.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
#: A pipe that nobody writes to is opened all the same, and then seen to be one.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
#: Bytes of a file of text, where nothing else is said.
LARGEST = 2**26


def opened(file: Path) -> BinaryIO:
    """A regular file, open to be read.

    Raises:
        OSError: it cannot be read, or is no regular file: a pipe would be waited for, and a device has no end.
    """
    number = os.open(file, os.O_RDONLY | _AT_ONCE)
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(file))
        return os.fdopen(number, "rb")
    except OSError:
        os.close(number)
        raise


def read_file(file: Path, largest: int = LARGEST) -> bytes:
    """The content of a regular file of at most ``largest`` bytes.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger.
    """
    with opened(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = stream.read(largest + 1) if size <= largest else b""  # of a file with holes, not one byte
    if size > largest or len(content) > largest:
        raise OSError(errno.EFBIG, f"it is larger than {largest} bytes", str(file))
    return content


def read_json(file: Path) -> Any:
    """What ``file`` says; None where it is missing, cut off, or nothing that JSON could be."""
    try:
        return parsed(read_file(file))
    except (OSError, ValueError, RecursionError):
        return None


def parsed(text: str | bytes) -> Any:
    """What a text of JSON says.

    A number of more digits than a computer counts with is one that is not finite, or not exact.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deep.
    """
    return json.loads(text, parse_int=_number)


def _number(text: str) -> int | float:
    return int(text) if len(text) <= 19 else float(text)


def write_json(file: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Replace ``file`` by ``content`` as JSON; see ``write_file``."""
    write_file(file, json.dumps(content, indent=2, default=str) + "\n")


def write_figure(file: Path, figure: Figure) -> None:
    """Replace ``file`` by a figure in the format that its ending says; see ``write_file``."""
    picture = io.BytesIO()
    figure.savefig(picture, format=file.suffix[1:])
    write_file(file, picture.getvalue())


def write_file(file: Path, content: str | bytes) -> None:
    """Replace ``file`` in one piece.

    Raises:
        RunError: it cannot be written; what was there before is left.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        beside, number = create_beside(file)
        try:
            with os.fdopen(number, "wb") as stream:
                stream.write(data)
            os.replace(beside, file)
        except OSError:
            with suppress(OSError):  # in a folder that is gone or read-only there is nothing to tidy
                beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RunError(f"{file} cannot be written ({error.strerror or error})") from None


def create_beside(file: Path) -> tuple[Path, int]:
    """A new file beside ``file``, under a name that was free, and the number by which it is open for writing."""
    beside = name_beside(file)
    return beside, os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o666)


def name_beside(file: Path) -> Path:
    """A name in the folder of ``file`` that nobody can have known before."""
    return file.with_name(f".{file.name}.{secrets.token_hex(4)}{NEW}")


def open_to_append(file: Path) -> TextIO:
    """``file``, open to be written to at its end, line by line.

    Raises:
        RunError: it cannot be opened, or is a link.
    """
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_LINK | _AT_ONCE, 0o666)
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise OSError(errno.EINVAL, "it is no regular file")
    except OSError as error:
        raise RunError(f"{file} cannot be written ({error.strerror or error})") from None
    return os.fdopen(number, "a", buffering=1)


def left_behind(folder: Path, ending: str) -> list[Path]:
    """The files that ``create_beside`` made in a folder for names with this ending, and that were left there."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = _CREATED.fullmatch(entry.name)
            if name is not None and name[1].endswith(ending) and entry.is_file(follow_symlinks=False):
                found.append(folder / entry.name)
    return found

"""Zip archives, looked at before they are read: what they would take in memory, and that no byte is there twice.

A member of an archive says how large it becomes, and a thousand members may all be made of the same few bytes. So a
file of some megabytes can stand for terabytes. This module reads the list of an archive alone, and that only where it
is short.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from typing import BinaryIO

__all__ = ["MOST", "listed", "unsound"]

MOST = 200_000  #: members of an archive
_LARGEST_LIST = 2**26  # bytes
_LOCAL = 30  # bytes before the name of a member, at the least
_END = struct.Struct("<4s4H2LH")
_FAR_END = struct.Struct("<4sQ2H2L4Q")


def listed(stream: BinaryIO) -> list[zipfile.ZipInfo]:
    """The members of an archive.

    Raises:
        zipfile.BadZipFile: it is none, it is cut off, or its list is longer than any that is honest.
    """
    if _size_of_list(stream) > _LARGEST_LIST:
        raise zipfile.BadZipFile("its list of members is too long")
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
    if len(members) > MOST:
        raise zipfile.BadZipFile(f"it has more than {MOST} members")
    return members


def _size_of_list(stream: BinaryIO) -> int:
    """The bytes of an archive's list, as its end says: ``zipfile`` would read and keep all of it."""
    stream.seek(0)
    if stream.read(4) != b"PK\x03\x04":
        raise zipfile.BadZipFile("it does not begin as an archive")
    end = stream.seek(0, 2)
    stream.seek(max(0, end - _END.size))
    found = stream.read()
    if len(found) != _END.size or not found.startswith(b"PK\x05\x06"):
        raise zipfile.BadZipFile("it does not end as an archive")
    size: int = _END.unpack(found)[5]
    stream.seek(max(0, end - _END.size - 20 - _FAR_END.size))
    far = stream.read(_FAR_END.size)  # of a long archive
    return int(_FAR_END.unpack(far)[8]) if far.startswith(b"PK\x06\x06") and len(far) == _FAR_END.size else size


def unsound(members: Sequence[zipfile.ZipInfo], size: int, *, stored: bool) -> str:
    """What is wrong with the members of an archive of ``size`` bytes; an empty string where nothing is.

    Args:
        stored: whether each must be in the file as it is, as torch writes them; what is compressed may expand.
    """
    names = {member.filename for member in members}
    if len(names) < len(members):
        return "two of its members have one name"
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.flag_bits & 1:
            return f"its member {member.filename} is encrypted"
        if stored and (member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size):
            return f"its member {member.filename} is compressed: {member.compress_size} bytes for {member.file_size}"
        if member.header_offset < end:
            return f"its members overlap, at {member.filename}"
        end = member.header_offset + _LOCAL + len(member.filename.encode()) + member.compress_size
    return "it is cut off" if end > size else ""

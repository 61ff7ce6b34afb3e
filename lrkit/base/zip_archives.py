"""Checks of a zip archive before its members are read: their sizes in memory, and that no two of them overlap.

A compressed member may expand a thousandfold, and many members may share the same bytes: a file of megabytes can
expand to terabytes. This module reads only the archive's central directory (its list of members), and only a short one.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from typing import BinaryIO

__all__ = ["MOST", "find_defect", "list_members"]

MOST = 200_000  #: members of an archive
_LARGEST_LIST = 2**26  # bytes
_LOCAL = 30  # bytes of a local header before the name of a member
_END = struct.Struct("<4s4H2LH")
_FAR_END = struct.Struct("<4sQ2H2L4Q")


def list_members(stream: BinaryIO) -> list[zipfile.ZipInfo]:
    """Return the members of an archive.

    Raises:
        zipfile.BadZipFile: the file is no archive, is truncated, or has an implausibly long list of members.
    """
    if _read_directory_size(stream) > _LARGEST_LIST:
        raise zipfile.BadZipFile("its list of members is too long")
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
    if len(members) > MOST:
        raise zipfile.BadZipFile(f"it has more than {MOST} members")
    return members


def _read_directory_size(stream: BinaryIO) -> int:
    """Return the bytes of the list of members, as the archive's last record says: ``zipfile`` would load them all."""
    stream.seek(0)
    if stream.read(4) != b"PK\x03\x04":
        raise zipfile.BadZipFile("it does not begin with a zip header")
    end = stream.seek(0, 2)
    stream.seek(max(0, end - _END.size))
    found = stream.read()
    if len(found) != _END.size or not found.startswith(b"PK\x05\x06"):
        raise zipfile.BadZipFile("it does not end with a zip directory")
    size: int = _END.unpack(found)[5]
    stream.seek(max(0, end - _END.size - 20 - _FAR_END.size))
    far = stream.read(_FAR_END.size)  # the zip64 record of a large archive
    return int(_FAR_END.unpack(far)[8]) if far.startswith(b"PK\x06\x06") and len(far) == _FAR_END.size else size


def find_defect(members: Sequence[zipfile.ZipInfo], size: int, *, stored: bool) -> str:
    """Return a defect in the members of an archive of ``size`` bytes; an empty string if there is none.

    Args:
        stored: whether each member must be uncompressed, as torch writes it, so that it cannot expand.
    """
    names = {member.filename for member in members}
    if len(names) < len(members):
        return "two of its members have the same name"
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.flag_bits & 1:
            return f"its member {member.filename} is encrypted"
        if stored and (member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size):
            return f"its member {member.filename} is compressed: {member.compress_size} bytes for {member.file_size}"
        if member.header_offset < end:
            return f"its members overlap, at {member.filename}"
        end = member.header_offset + _LOCAL + len(member.filename.encode()) + member.compress_size
    return "it is truncated" if end > size else ""

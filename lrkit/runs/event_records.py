"""The records that an event file is a row of, and where the first damage is.

    length (8 bytes) | crc of the length (4) | data (length) | crc of the data (4)

little-endian; a crc is a masked CRC-32C (tensorflow/core/lib/io/record_writer.h, tensorflow/core/lib/hash/crc32c.h).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["record_spans"]

_CHECKED = 512  # bytes; longer records hold no scalars but images and graphs, and their crc is not looked at
_HEADER = struct.Struct("<QI")


def record_spans(content: bytes) -> tuple[list[tuple[int, int]], str]:
    """Where the data of each record begins and ends, up to the first damage; and that damage as a sentence's end."""
    spans: list[tuple[int, int]] = []
    lengths: dict[bytes, int] = {}  # a length comes again and again, and its crc with it
    at, size, damage = 0, len(content), ""
    while at < size:
        header = content[at : at + 12]
        if header not in lengths:
            if len(header) < 12:
                damage = "ends in the middle of a record"
                break
            length, crc = _HEADER.unpack(header)
            if _masked(_crc(header[:8])) != crc:
                damage = f"is damaged at byte {at}" if at else "is not an event file"
                break
            lengths[header] = length
        start = at + 12
        end = start + lengths[header]
        at = end + 4
        if at > size:
            damage = "ends in the middle of a record"
            break
        spans.append((start, end))
    wrong = _first_wrong(content, spans)
    if wrong is None:
        return spans, damage
    return spans[:wrong], f"is damaged at byte {spans[wrong][0]}"


def _first_wrong(content: bytes, spans: Sequence[tuple[int, int]]) -> int | None:
    """The first record whose crc is not that of its data; all records at once.

    A CRC without its start and end values is linear: it is the sum (xor) of what each byte contributes by its value
    and its distance from the end. So the records are laid out with their ends aligned, and looked up in one table.
    """
    import numpy as np

    if not spans:
        return None
    raw, ends = np.frombuffer(content, np.uint8), np.array([end for _, end in spans])
    lengths = ends - np.array([start for start, _ in spans])
    wrong = np.zeros(len(spans), bool)
    for low, high in ((4, 64), (64, _CHECKED)):
        chosen = np.flatnonzero((lengths >= low) & (lengths < high))
        for some in np.array_split(chosen, len(chosen) // 4096 + 1):
            if not len(some):
                continue
            length = lengths[some]
            width = int(length.max())
            before = width - np.arange(width)  # how far from the end
            bytes_ = raw[np.maximum(ends[some, None] - before, 0)]
            bytes_[before > length[:, None]] = 0
            table = _tables()
            crc = np.bitwise_xor.reduce(table[before - 1, bytes_], axis=1)
            start = np.bitwise_xor.reduce(table[length[:, None] - np.arange(1, 5), 255], axis=1)
            crc ^= start ^ np.uint32(0xFFFFFFFF)
            written = raw[ends[some, None] + np.arange(4)].copy().view("<u4")[:, 0]
            wrong[some] = ((crc >> 15 | crc << 17) + np.uint32(0xA282EAD8)) != written
    return int(np.argmax(wrong)) if wrong.any() else None


@cache
def _tables() -> NDArray[np.uint32]:
    """``[distance from the end, byte] -> contribution`` to a CRC-32C, whose polynomial is 0x1EDC6F41 (RFC 3720)."""
    import numpy as np

    single = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        single = np.where(single & 1, single >> 1 ^ np.uint32(0x82F63B78), single >> 1)  # the polynomial, reversed
    rows = [single]
    for _ in range(_CHECKED - 1):
        rows.append(rows[-1] >> 8 ^ single[rows[-1] & 0xFF])
    return np.stack(rows)


def _crc(data: bytes) -> int:
    single, crc = _tables()[0], 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ int(single[(crc ^ byte) & 0xFF])
    return crc ^ 0xFFFFFFFF


def _masked(crc: int) -> int:
    """As it is written: a CRC of data that holds CRCs would be a weak one."""
    return (((crc >> 15 | crc << 17) & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF

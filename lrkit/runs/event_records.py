"""The records of an event file, and the position of the first damage.

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

_CHECKED = 512  # bytes; longer records hold images and graphs, no scalars, and their crc is not checked
_HEADER = struct.Struct("<QI")


def record_spans(content: bytes) -> tuple[list[tuple[int, int]], str]:
    """``(start, end)`` of the data of each record before the first damage, and a phrase for the damage, or ""."""
    spans: list[tuple[int, int]] = []
    lengths: dict[bytes, int] = {}  # the lengths by their headers: most records have one of a few lengths
    at, size, damage = 0, len(content), ""
    while at < size:
        header = content[at : at + 12]
        if header not in lengths:
            if len(header) < 12:
                damage = "ends in the middle of a record"
                break
            length, crc = _HEADER.unpack(header)
            if _mask_crc(_crc32c(header[:8])) != crc:
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
    wrong = _find_wrong_crc(content, spans)
    if wrong is None:
        return spans, damage
    return spans[:wrong], f"is damaged at byte {spans[wrong][0]}"


def _find_wrong_crc(content: bytes, spans: Sequence[tuple[int, int]]) -> int | None:
    """The index of the first record with a wrong crc; None for none. All records are computed at once.

    A CRC without its start and end values is linear: it is the sum (xor) of what each byte contributes by its value
    and its distance from the end. So the records are aligned at their ends, and one table has all contributions.
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
            before = width - np.arange(width)  # distance from the end
            bytes_ = raw[np.maximum(ends[some, None] - before, 0)]
            bytes_[before > length[:, None]] = 0
            table = _crc_tables()
            crc = np.bitwise_xor.reduce(table[before - 1, bytes_], axis=1)
            start = np.bitwise_xor.reduce(table[length[:, None] - np.arange(1, 5), 255], axis=1)
            crc ^= start ^ np.uint32(0xFFFFFFFF)
            written = raw[ends[some, None] + np.arange(4)].copy().view("<u4")[:, 0]
            wrong[some] = ((crc >> 15 | crc << 17) + np.uint32(0xA282EAD8)) != written
    return int(np.argmax(wrong)) if wrong.any() else None


@cache
def _crc_tables() -> NDArray[np.uint32]:
    """``[distance from the end, byte] -> contribution`` to a CRC-32C, whose polynomial is 0x1EDC6F41 (RFC 3720)."""
    import numpy as np

    single = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        single = np.where(single & 1, single >> 1 ^ np.uint32(0x82F63B78), single >> 1)  # the polynomial, reversed
    rows = [single]
    for _ in range(_CHECKED - 1):
        rows.append(rows[-1] >> 8 ^ single[rows[-1] & 0xFF])
    return np.stack(rows)


def _crc32c(data: bytes) -> int:
    """The CRC-32C of some bytes."""
    single, crc = _crc_tables()[0], 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ int(single[(crc ^ byte) & 0xFF])
    return crc ^ 0xFFFFFFFF


def _mask_crc(crc: int) -> int:
    """The crc as an event file stores it: masked, because a CRC of data that contains CRCs is weak."""
    return (((crc >> 15 | crc << 17) & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF

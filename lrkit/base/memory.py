"""The memory that is left, and whether what a file promises fits into it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from lrkit.base.errors import ConfigError

__all__ = ["available", "check_fits"]


def available() -> int:
    """Bytes that can be used without swapping, as the operating system says; where it does not, all there are."""
    with suppress(OSError, ValueError):
        found = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
        if found is not None:
            return int(found[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 2**40


def check_fits(size: int, key: str, path: Path) -> None:
    """Refuse to read what is larger than the memory that is left.

    Raises:
        ConfigError: it is.
    """
    if size > (left := available()):
        must = f"must fit into memory: {path.name} stands for {_told(size)}, and {_told(left)} are left"
        raise ConfigError(key, must, str(path))


def _told(size: int) -> str:
    """A number of bytes in words.

    >>> _told(3 * 2**20), _told(29 * 2**40)
    ('3 MiB', '29 TiB')
    """
    power = min((size.bit_length() - 1) // 10, 4) if size else 0
    return f"{size / 2 ** (10 * power):.4g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"

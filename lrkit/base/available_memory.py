"""The available memory, and the check that the content of a file fits into it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from lrkit.base.errors import ConfigError

__all__ = ["available_memory", "check_fits"]


def available_memory() -> int:
    """Return the bytes available without swapping (Linux), else all physical memory, else 1 TiB if unknown."""
    with suppress(OSError, ValueError):
        found = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(encoding="utf-8"), re.MULTILINE)
        if found is not None:
            return int(found[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 2**40


def check_fits(size: int, key: str, path: Path) -> None:
    """Refuse content of ``size`` bytes if it is larger than the available memory.

    Raises:
        ConfigError: with ``key``, the file and both sizes.
    """
    if size > (left := available_memory()):
        must = f"must fit into memory: {path.name} needs {_format_bytes(size)}, and {_format_bytes(left)} are available"
        raise ConfigError(key, must, str(path))


def _format_bytes(size: int) -> str:
    """Return a number of bytes with a binary unit.

    >>> _format_bytes(3 * 2**20), _format_bytes(29 * 2**40)
    ('3 MiB', '29 TiB')
    """
    power = min((size.bit_length() - 1) // 10, 4) if size else 0
    return f"{size / 2 ** (10 * power):.4g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"

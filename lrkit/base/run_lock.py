"""The lock of the folder of a run or a sweep: a second process is refused before it changes a file.

It is a lock of the operating system, which releases it when the process ends, even by a crash.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError

__all__ = ["FILE", "hold_lock"]

FILE = ".lock"

#: The lock files of this process. Closing a second handle of the same file would release its lock.
_held: dict[Path, int] = {}


@contextmanager
def hold_lock(folder: Path, key: str) -> Iterator[None]:
    """Within this context, only this process writes into ``folder``. It may hold the same lock several times.

    Args:
        folder: an existing folder.
        key: key by which the user named the folder.

    Raises:
        ConfigError: another process holds the lock.
    """
    file = folder.resolve() / FILE
    if file in _held:
        yield
        return
    while True:
        handle = _open_lock_file(file)
        if handle is None:  # a folder without write permission is refused elsewhere
            yield
            return
        if not _try_lock(handle):
            os.close(handle)
            must = "must be a folder without a running process, and another process is writing to it"
            raise ConfigError(key, must, str(folder))
        if _is_same_file(file, handle):
            break
        os.close(handle)  # the previous holder has removed the file since
    _held[file] = handle
    try:
        yield
    finally:
        del _held[file]
        with suppress(OSError):
            file.unlink()  # while locked: a process that has opened it meanwhile then opens a new one
        os.close(handle)


def _open_lock_file(file: Path) -> int | None:
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except OSError:
        return None


def _is_same_file(file: Path, handle: int) -> bool:
    """Return whether the open file is still the file at this path."""
    try:
        return os.path.samestat(os.stat(file, follow_symlinks=False), os.fstat(handle))
    except OSError:
        return False


def _try_lock(handle: int) -> bool:
    """Lock a file without waiting; return False if another process holds it. True if the system has no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            locking: Any = msvcrt.locking
            locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            # Not flock: data loader processes would inherit the lock, and could hold it after this process ends.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return True
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True

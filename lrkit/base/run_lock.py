"""One process writes into the folder of a run or a sweep; a second one is refused, before it changes anything.

The lock is the operating system's: it ends with the process that holds it, however that ends.
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

#: The handles of this process. Opening the file a second time, and closing it, would give its lock away.
_held: dict[Path, int] = {}


@contextmanager
def hold_lock(folder: Path, key: str) -> Iterator[None]:
    """Within it, this process alone writes into ``folder``. It may say so again for the same folder.

    Args:
        folder: it exists.
        key: what the user typed to name the folder.

    Raises:
        ConfigError: another process does.
    """
    file = folder.resolve() / FILE
    if file in _held:
        yield
        return
    while True:
        handle = _opened(file)
        if handle is None:  # who cannot write there is told so elsewhere
            yield
            return
        if not _lock(handle):
            os.close(handle)
            must = "must be a folder that no other process is writing to: a run there is under way"
            raise ConfigError(key, must, str(folder))
        if _is(file, handle):
            break
        os.close(handle)  # who had it before has taken the file away since
    _held[file] = handle
    try:
        yield
    finally:
        del _held[file]
        with suppress(OSError):
            file.unlink()  # while it is locked: whoever has opened it meanwhile looks again
        os.close(handle)


def _opened(file: Path) -> int | None:
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except OSError:
        return None


def _is(file: Path, handle: int) -> bool:
    """Whether what was opened is still what lies there."""
    try:
        return os.path.samestat(os.stat(file, follow_symlinks=False), os.fstat(handle))
    except OSError:
        return False


def _lock(handle: int) -> bool:
    """Lock a file without waiting; whether nobody else had it. True where the system has no such locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            locking: Any = msvcrt.locking
            locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            # Not flock: processes that load data would share its lock, and it would outlive this one as they do.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return True
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system that knows no locks
        return True
    return True

"""Python's safe path for the processes that lrkit starts: they do not import modules from the current folder.

``python -m`` and ``python -c`` put the current folder before the standard library. It may be untrusted and contain a
``torch.py``. The user's own modules are still found: ``lrkit.config.trusted_targets`` imports named classes from there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

__all__ = ["launch_with_safe_path", "restore_path", "safe_path"]

_VARIABLE = "PYTHONSAFEPATH"
_OURS = "lrkit"  # Python accepts any text; this one shows that lrkit set the variable, not the user


@contextmanager
def safe_path() -> Iterator[None]:
    """Within this context, a Python process that is started has the safe path.

    This does not hold in the folder that contains lrkit itself, because lrkit may be importable only from there.
    """
    if os.environ.get(_VARIABLE) or Path.cwd() == Path(__file__).resolve().parents[2]:
        yield
        return
    os.environ[_VARIABLE] = _OURS
    try:
        yield
    finally:
        restore_path()


def restore_path() -> None:
    """Remove the safe path from the environment, so that processes of the user's code start without it."""
    if os.environ.get(_VARIABLE) == _OURS:
        del os.environ[_VARIABLE]


@contextmanager
def launch_with_safe_path(launcher: Any) -> Iterator[None]:
    """Within this context, a Lightning launcher starts the processes of further devices with the safe path.

    This holds only if the program is lrkit. A program of the user's may need modules in its folder.
    """
    main = getattr(sys.modules["__main__"], "__spec__", None)
    if launcher is None or main is None or main.name != "lrkit.__main__":
        yield
        return
    theirs = launcher.launch

    def launch(function: Any, *args: Any, **options: Any) -> Any:
        with ExitStack() as starting:
            starting.enter_context(safe_path())

            def begun(*inner: Any, **more: Any) -> Any:  # all processes are started
                starting.close()
                return function(*inner, **more)

            return theirs(begun, *args, **options)

    launcher.launch = launch
    try:
        yield
    finally:
        del launcher.launch

"""Python's safe path, for the processes that lrkit starts: they do not look for modules in the folder that we are in.

``python -m`` and ``python -c`` put that folder first of all, before the standard library. It may be a stranger's, with
a ``torch.py`` in it. The user's own modules are found all the same: ``lrkit.config.trusted_targets`` looks there for
what is named.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

__all__ = ["launched_safely", "let_go", "safe_path"]

_VARIABLE = "PYTHONSAFEPATH"
_OURS = "lrkit"  # Python takes any text; by this one we know that the user has not said it


@contextmanager
def safe_path() -> Iterator[None]:
    """Within it, a Python that is started has the safe path.

    But not where lrkit itself lies in the folder that we are in: there may be no other way to find it.
    """
    if os.environ.get(_VARIABLE) or Path.cwd() == Path(__file__).resolve().parents[2]:
        yield
        return
    os.environ[_VARIABLE] = _OURS
    try:
        yield
    finally:
        let_go()


def let_go() -> None:
    """In a process that was started so: what the user's own code starts is as it would be anywhere."""
    if os.environ.get(_VARIABLE) == _OURS:
        del os.environ[_VARIABLE]


@contextmanager
def launched_safely(launcher: Any) -> Iterator[None]:
    """Within it, what a launcher of Lightning's starts for further devices has the safe path, if that is lrkit.

    A program of the user's own is started as they started it: it may need what lies beside it.
    """
    main = getattr(sys.modules["__main__"], "__spec__", None)
    if launcher is None or main is None or main.name != "lrkit.__main__":
        yield
        return
    theirs = launcher.launch

    def launch(function: Any, *args: Any, **options: Any) -> Any:
        with ExitStack() as starting:
            starting.enter_context(safe_path())

            def begun(*inner: Any, **more: Any) -> Any:  # all processes have been started
                starting.close()
                return function(*inner, **more)

            return theirs(begun, *args, **options)

    launcher.launch = launch
    try:
        yield
    finally:
        del launcher.launch

"""The three standard streams, made safe to write to: whatever a shell closed, whatever a terminal cannot show."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

from lrkit.base.exit_codes import FAILED, INTERRUPTED

__all__ = ["guard_streams"]


def guard_streams(run: Callable[[], int]) -> int:
    """What ``run`` returns, an exit code; and nothing is left in a buffer that could fail when Python ends."""
    _open()
    try:
        code = run()
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:  # whoever read our output has seen enough
        code = 0
        _discard()
    except OSError as error:  # such as a full disk
        _discard(sys.stdout)
        print(f"lrkit: the output cannot be written ({error.strerror})", file=sys.stderr)
        code = FAILED
    except KeyboardInterrupt:  # while the last words are said
        code = INTERRUPTED
    return code


def _open() -> None:
    """Put something in the place of a closed stream, else the next file that is opened would be taken for it."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else the curve could not be drawn where the encoding is ASCII
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")


def _discard(*streams: TextIO) -> None:
    """Whatever is still to be written goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams or (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())

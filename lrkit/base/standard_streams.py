"""Safe standard streams: for streams that the shell closed, and for characters outside the terminal's encoding."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

from lrkit.base.exit_codes import FAILED, INTERRUPTED
from lrkit.base.terminal_width import print_line

__all__ = ["guard_streams"]


def guard_streams(run: Callable[[], int]) -> int:
    """Call ``run`` and return its exit code; flush the streams, so that no write fails when Python ends."""
    _prepare_streams()
    try:
        code = run()
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:  # the reader closed the pipe, such as head
        code = 0
        _discard_output()
    except OSError as error:  # such as a full disk
        _discard_output(sys.stdout)
        print_line(f"lrkit: the output cannot be written ({error.strerror})", sys.stderr)
        code = FAILED
    except KeyboardInterrupt:  # during the last flush
        code = INTERRUPTED
    return code


def _prepare_streams() -> None:
    """Replace a closed stream by the null device, else the next file to be opened would get its descriptor."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else the curve would fail on an ASCII terminal
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")


def _discard_output(*streams: TextIO) -> None:
    """Discard all further output of these streams."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams or (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())

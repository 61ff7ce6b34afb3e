"""The report of a failure: one line, and the Python traceback only with ``--traceback``."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lrkit.base.errors import ConfigError, RunError, SearchError
from lrkit.base.escaping import escape_terminal
from lrkit.base.exit_codes import FAILED, INTERRUPTED, REFUSED
from lrkit.base.files import write_file
from lrkit.base.launcher_environment import global_rank, local_rank
from lrkit.base.lightning_package import LIGHTNING
from lrkit.base.signals import Terminated
from lrkit.base.terminal_width import print_line

__all__ = [
    "describe_cause",
    "describe_error",
    "report_failure",
    "show_tracebacks",
    "wants_traceback",
    "write_traceback",
]  # fmt: skip


#: An environment variable, so that the processes of a sweep, of a launcher and of further devices inherit it.
_VARIABLE = "LRKIT_TRACEBACK"
HOLD = 3.0  #: seconds that another rank waits before it reports: if rank 0 has the same error, it ends all ranks first

_LONGEST = 600  # characters of a message, which may contain a tensor

_HERE = Path(__file__).resolve().parents[1]
_LIBRARIES = tuple(
    {sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")} | {*site.getsitepackages()}
)


@contextmanager
def show_tracebacks(asked: bool) -> Iterator[None]:
    """Within this context, show tracebacks in this process and in those that it starts, if ``asked``."""
    before = os.environ.get(_VARIABLE)
    if asked:
        os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        if asked and before is None:
            del os.environ[_VARIABLE]


def wants_traceback() -> bool:
    """Return whether the user asked for tracebacks."""
    return os.environ.get(_VARIABLE) == "1"


def report_failure(error: BaseException, about: str = "") -> int:
    """Print an error on the error stream after the prefix ``about``, and return its exit code.

    Of several processes rank 0 prints the error. Another rank prints an error that only this rank has.
    """
    asked = isinstance(error, KeyboardInterrupt | Terminated)  # all ranks receive the signal; rank 0 reports it
    rank = global_rank()
    if rank > 0 and not asked and not getattr(error, "told", False):
        if local_rank() > 0:
            time.sleep(HOLD)
        about = f"rank {rank}: {about}"
    elif rank > 0:
        return _find_exit_code(error)
    if details := getattr(error, "details", ""):
        print_line(details, sys.stderr)
    if wants_traceback() and not asked:
        traceback.print_exception(error)
    print_line(f"lrkit: {about}{describe_error(error)}", sys.stderr)
    return _find_exit_code(error)


def _find_exit_code(error: BaseException) -> int:
    """Return the exit code of an error."""
    if isinstance(error, Terminated):
        return int(error.code or 0)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return REFUSED if isinstance(error, ConfigError) else FAILED


def describe_error(error: BaseException) -> str:
    """Return one line about an error: the message of an error of lrkit, else also the type and the line of code.

    >>> describe_error(ConfigError("seed", "must be a whole number", "a"))
    "seed must be a whole number. Received: 'a'"
    >>> describe_error(KeyError("weight"))
    "KeyError: 'weight'; add --traceback to see the traceback"
    """
    if isinstance(error, KeyboardInterrupt):
        return escape_terminal(str(error)) or "interrupted"
    if isinstance(error, ConfigError | SearchError | RunError | Terminated):
        return escape_terminal(str(error))
    notes = [escape_terminal(note) for note in getattr(error, "__notes__", ())]
    hint = [] if wants_traceback() or notes else ["add --traceback to see the traceback"]
    return "; ".join([describe_cause(error), *notes, *hint])


def describe_cause(error: BaseException) -> str:
    """Return the type of an error, its message, and the line of code that raised it."""
    said = escape_terminal(_shorten_message(error)).rstrip(".")
    if len(said) > _LONGEST:
        said = f"{said[:_LONGEST]}..."
    return f"{type(error).__name__}: {said}".removesuffix(": ") + _locate_error(error)


def write_traceback(error: BaseException, file: Path) -> Path | None:
    """Write the full traceback to ``file``, add the path to the error's notes, and return it; None if this fails."""
    try:
        write_file(file, "".join(traceback.format_exception(error)))
    except RunError:
        return None
    error.add_note(f"the traceback is in {file}")
    return file


def _shorten_message(error: BaseException) -> str:
    """Return the message of an error; of one that quotes the traceback of another process, its first and last line."""
    text = str(error)
    if "Traceback (most recent call last)" not in text:
        return text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{lines[0].rstrip('.')}: {lines[-1]}"


def _locate_error(error: BaseException) -> str:
    """Return the last line of the user's code in the traceback, else the line that raised the error."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_library_file(frame.filename)]
    if not frames:
        return ""
    frame = (own or frames)[-1]
    return f" ({escape_terminal(Path(frame.filename).name)}, line {frame.lineno}, in {frame.name})"


def _is_library_file(file: str) -> bool:
    # The folders of loaded packages too: they may be outside of site-packages, by `pip --target` and PYTHONPATH.
    loaded = (getattr(sys.modules.get(name), "__file__", None) for name in ("torch", *LIGHTNING))
    folders = [_HERE, *(Path(each).parent for each in loaded if each)]
    return file.startswith(("<", *_LIBRARIES)) or not {*folders}.isdisjoint(Path(file).parents)

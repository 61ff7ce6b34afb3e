"""How a failure is told: in one line, and with Python's traceback only where that was asked for."""

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
from lrkit.base.launcher import global_rank, local_rank
from lrkit.base.lightning_package import LIGHTNING
from lrkit.base.signals import Terminated

__all__ = [
    "describe_cause",
    "describe_error",
    "report_failure",
    "tracebacks_as_asked",
    "wants_traceback",
    "write_traceback",
]  # fmt: skip


#: Set in the environment, so that the processes of a sweep, of an engine and of further devices know it too.
_VARIABLE = "LRKIT_TRACEBACK"
HOLD = 3.0  #: seconds for which a process waits whether the first one, which then ends all, has found the same

_LONGEST = 600  # characters of a message: a tensor may be in it

_HERE = Path(__file__).resolve().parents[1]
_LIBRARIES = tuple(
    {sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")} | {*site.getsitepackages()}
)


@contextmanager
def tracebacks_as_asked(asked: bool) -> Iterator[None]:
    """Within it, in this process and in those that it starts, tracebacks are shown if they were asked for."""
    before = os.environ.get(_VARIABLE)
    if asked:
        os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        if asked and before is None:
            del os.environ[_VARIABLE]


def wants_traceback() -> bool:
    """Whether a traceback is to be shown."""
    return os.environ.get(_VARIABLE) == "1"


def report_failure(error: BaseException, about: str = "") -> int:
    """Say on the error stream what went wrong, and in what; the exit code that it means.

    Of several processes the first one says it. Another one speaks where it alone has failed.
    """
    asked = isinstance(error, KeyboardInterrupt | Terminated)  # all processes hear of it, and one says so
    rank = global_rank()
    if rank > 0 and not asked and not getattr(error, "told", False):
        if local_rank() > 0:
            time.sleep(HOLD)
        about = f"rank {rank}: {about}"
    elif rank > 0:
        return _code(error)
    if details := getattr(error, "details", ""):
        print(details, file=sys.stderr)
    if wants_traceback() and not asked:
        traceback.print_exception(error)
    print(f"lrkit: {about}{describe_error(error)}", file=sys.stderr)
    return _code(error)


def _code(error: BaseException) -> int:
    """The exit code that an error means."""
    if isinstance(error, Terminated):
        return int(error.code or 0)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return REFUSED if isinstance(error, ConfigError) else FAILED


def describe_error(error: BaseException) -> str:
    """One line about an error: what it says where it is one of ours, else also what it is, and where it came from.

    >>> describe_error(ConfigError("seed", "must be a whole number", "a"))
    "seed must be a whole number. Received: 'a'"
    >>> describe_error(KeyError("weight"))
    "KeyError: 'weight'; --traceback shows where"
    """
    if isinstance(error, KeyboardInterrupt):
        return escape_terminal(str(error)) or "interrupted"
    if isinstance(error, ConfigError | SearchError | RunError | Terminated):
        return escape_terminal(str(error))
    notes = [escape_terminal(note) for note in getattr(error, "__notes__", ())]
    hint = [] if wants_traceback() or notes else ["--traceback shows where"]
    return "; ".join([describe_cause(error), *notes, *hint])


def describe_cause(error: BaseException) -> str:
    """What an error is, what it says, and the line that it came from."""
    said = escape_terminal(_message(error)).rstrip(".")
    if len(said) > _LONGEST:
        said = f"{said[:_LONGEST]}..."
    return f"{type(error).__name__}: {said}".removesuffix(": ") + _place(error)


def write_traceback(error: BaseException, file: Path) -> Path | None:
    """Write the traceback in full to ``file``, which the error names from then on; None where it cannot be written."""
    try:
        write_file(file, "".join(traceback.format_exception(error)))
    except RunError:
        return None
    error.add_note(f"the traceback is in {file}")
    return file


def _message(error: BaseException) -> str:
    """What the error says; of one that was raised in another process, which quotes its traceback, the two ends."""
    text = str(error)
    if "Traceback (most recent call last)" not in text:
        return text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{lines[0].rstrip('.')}: {lines[-1]}"


def _place(error: BaseException) -> str:
    """The line of the user's own code that it came from, else of whatever raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _of_a_library(frame.filename)]
    if not frames:
        return ""
    frame = (own or frames)[-1]
    return f" ({escape_terminal(Path(frame.filename).name)}, line {frame.lineno}, in {frame.name})"


def _of_a_library(file: str) -> bool:
    # Also where they lie elsewhere: installed by `pip --target`, say, and found by PYTHONPATH.
    loaded = (getattr(sys.modules.get(name), "__file__", None) for name in ("torch", *LIGHTNING))
    folders = [_HERE, *(Path(each).parent for each in loaded if each)]
    return file.startswith(("<", *_LIBRARIES)) or not {*folders}.isdisjoint(Path(file).parents)

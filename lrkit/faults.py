"""An exception in one sentence, for whoever looks on, and in full in a file, for whoever mends."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

__all__ = ["keep_traceback", "sentence"]

#: Where code lies that the user did not write.
_NOT_THEIRS = (str(Path(__file__).parent), *{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


def sentence(error: BaseException) -> str:
    """What is wrong in one line, and the line of the user's own code where it came up, if it was there.

    >>> sentence(ValueError("no such\\n  word"))
    'ValueError: no such word'
    """
    said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
    theirs = [
        frame for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*_NOT_THEIRS, "<"))
    ]  # fmt: skip
    return f"{said} (in {Path(theirs[-1].filename).name}:{theirs[-1].lineno})" if theirs else said


def keep_traceback(error: BaseException, file: Path) -> Path | None:
    """Write the traceback in full to ``file``, which the error names from then on; None where it cannot be written."""
    try:
        file.write_text("".join(traceback.format_exception(error)))
    except OSError:
        return None
    error.add_note(f"the traceback is in {file}")
    return file

"""Small files that are there as a whole or not at all, and what is said when they cannot be written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lrkit.errors import RunError

__all__ = ["read_json", "write_json"]


def read_json(file: Path) -> Any:
    """What ``file`` says; None where it is missing, cut off, or nothing that JSON could be."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def write_json(file: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Replace ``file`` in one piece: whoever reads it sees the old content or the new one, never half of it.

    Raises:
        RunError: it cannot be written; what was there before is left.
    """
    beside = file.with_name(f"{file.name}.new")
    try:
        beside.write_text(json.dumps(content, indent=2, default=str) + "\n")
        os.replace(beside, file)
    except OSError as error:
        with suppress(OSError):  # in a folder that is gone or read-only there is nothing to tidy
            beside.unlink(missing_ok=True)
        raise RunError(f"{file} cannot be written ({error.strerror or error})") from None

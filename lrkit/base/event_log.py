"""What happened to a run, in order: ``events.json`` in its folder, one entry for each thing worth knowing later."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lrkit.base.errors import RunError
from lrkit.base.files import read_json, write_json

__all__ = ["EventLog"]


class EventLog:
    """The entries of a run; one that is gone on with keeps those that it has.

    An entry says at which optimizer step it happened (``step``), what it was (``event``) and why, in a sentence
    (``why``); and what else its kind has to say. The file is replaced in one piece after each entry. A journal that
    cannot be written, on a full disk, is kept in memory: it must never be what ends a training.

    Args:
        folder: the run's own; None keeps the entries in memory alone, as all processes but the first do.

    >>> journal = EventLog(None)
    >>> journal.add(12, "skip", "the loss is nan", loss="nan")
    >>> [(entry["step"], entry["event"], entry["why"]) for entry in journal.entries]
    [(12, 'skip', 'the loss is nan')]
    """

    def __init__(self, folder: Path | None) -> None:
        self.file = None if folder is None else folder / "events.json"
        self.entries: list[dict[str, Any]] = [] if self.file is None else _written(self.file)

    def add(self, step: int, event: str, why: str, **more: Any) -> None:
        """Take down one more entry. Values must be plain: numbers that are not finite are written as text."""
        self.entries.append({"step": step, "event": event, "why": why, "time": round(time.time(), 3), **_plain(more)})
        if self.file is None:
            return
        with suppress(RunError):
            write_json(self.file, self.entries)


def _written(file: Path) -> list[dict[str, Any]]:
    """The entries of a file; none where it is missing or damaged."""
    entries = read_json(file)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }

"""The event log of a run: ``events.json`` in its folder, with one entry for each event, in order."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lrkit.base.errors import RunError
from lrkit.base.files import read_json, write_json
from lrkit.base.run_files import EVENTS

__all__ = ["EventLog"]


class EventLog:
    """The event log of a run. A resumed run keeps its earlier entries.

    An entry has the optimizer step (``step``), the kind of event (``event``), the reason in a sentence (``why``), and
    further fields by kind. Each new entry replaces the file atomically. If the file cannot be written (full disk), the
    entries stay in memory: a failure of the log must not stop the run.

    Args:
        folder: folder of the run; None keeps the entries only in memory, as all ranks except 0 do.

    >>> log = EventLog(None)
    >>> log.add(12, "skip", "the loss is nan", loss="nan")
    >>> [(entry["step"], entry["event"], entry["why"]) for entry in log.entries]
    [(12, 'skip', 'the loss is nan')]
    """

    def __init__(self, folder: Path | None) -> None:
        self.file = None if folder is None else folder / EVENTS
        self.entries: list[dict[str, Any]] = [] if self.file is None else _read_entries(self.file)

    def add(self, step: int, event: str, why: str, **more: Any) -> None:
        """Append an entry. Its values must fit into JSON; a number that is not finite is written as text."""
        entry = {"step": step, "event": event, "why": why, "time": round(time.time(), 3)}
        self.entries.append({**entry, **_make_serialisable(more)})
        if self.file is None:
            return
        with suppress(RunError):
            write_json(self.file, self.entries)


def _read_entries(file: Path) -> list[dict[str, Any]]:
    """Return the entries of a file; an empty list if the file is missing or damaged."""
    entries = read_json(file)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _make_serialisable(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }

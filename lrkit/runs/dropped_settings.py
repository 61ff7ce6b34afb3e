"""The settings that a race dropped, from its ``race.json``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lrkit.base.errors import name_some
from lrkit.base.files import read_json
from lrkit.base.plural import plural
from lrkit.base.run_files import RACE
from lrkit.runs.untrusted_values import escape_text, text_mapping

__all__ = ["find_dropped"]

_NAMED = 3  # of the kept settings of a race, those that its note names


def find_dropped(paths: Sequence[Path]) -> Iterator[str]:
    """Yield a note for each folder of a race at ``paths``: how many settings it dropped, and which ones it kept."""
    for path in paths:
        rungs = text_mapping(read_json(path / RACE)).get("rungs")
        counts, kept = dict[str, int](), list[str]()
        for rung in map(text_mapping, rungs if isinstance(rungs, list) else []):
            rows = [*map(text_mapping, rung["settings"] if isinstance(rung.get("settings"), list) else [])]
            share = escape_text(str(rung.get("share")))
            counts[share] = counts.get(share, 0) + sum(row.get("promoted") is False for row in rows)
            kept = [escape_text(str(row.get("setting"))) for row in rows if row.get("promoted") is True]
        if dropped := sum(counts.values()):
            at = ", ".join(f"{count} at {share}" for share, count in counts.items() if count)
            place = f"{escape_text(path.name)}: " if len(paths) > 1 else ""
            kept_ones = f", and kept {name_some(kept, _NAMED)}" if kept else ""
            yield f"{place}a race dropped {plural(dropped, 'setting')} ({at} of their steps){kept_ones}: see {RACE}"

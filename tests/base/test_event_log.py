"""The event log of a run: entries in order, kept over a resume; a failure of the log never stops a run."""

from __future__ import annotations

import json
from pathlib import Path

from lrkit.base.event_log import EventLog


def test_entries_are_kept_in_order_and_gone_on_with(tmp_path: Path) -> None:
    EventLog(tmp_path).add(3, "skip", "the loss is nan", loss=float("nan"))
    again = EventLog(tmp_path)
    again.add(7, "stop", "the loss is inf", loss=float("inf"), gain=0.5)
    written = json.loads((tmp_path / "events.json").read_text())
    assert [(e["step"], e["event"], e["loss"]) for e in written] == [(3, "skip", "nan"), (7, "stop", "inf")]
    assert written[1]["gain"] == 0.5
    assert [p.name for p in tmp_path.iterdir()] == ["events.json"]


def test_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "events.json").write_text('[{"step": 1, "eve')
    event_log = EventLog(tmp_path)
    assert event_log.entries == []
    event_log.add(2, "stop", "why")
    assert len(json.loads((tmp_path / "events.json").read_text())) == 1


def test_a_journal_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    event_log = EventLog(tmp_path / "is not there")
    event_log.add(1, "skip", "why")
    assert len(event_log.entries) == 1

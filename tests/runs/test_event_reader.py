"""The reader of event files: the same values as from TensorBoard; a truncated or damaged file ends only its curve."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from run_folders import write_events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lrkit.runs.event_reader import Scalars, Series, event_files, read_events
from lrkit.runs.event_records import record_spans

CURVE = {step: 1.0 / (step + 1) for step in range(0, 300, 3)}


def values(found: Scalars, tag: str = "loss") -> dict[int, float]:
    series = found.series[tag]
    return dict(zip(series.steps, series.values, strict=True))


def test_it_reads_what_tensorboard_reads(tmp_path: Path) -> None:
    chance = random.Random(0)
    steps = [0, 1, 127, 128, 16383, 16384, 2**31, 2**40]  # a varint of each length
    curves = {f"a/{n}": {step: chance.gauss(0, 1) for step in steps} for n in range(3)}
    curves["odd"] = {0: math.inf, 5: math.nan, 7: -math.inf, 9: -0.0}
    write_events(tmp_path, curves)
    accumulator = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    accumulator.Reload()
    found = read_events(event_files(tmp_path))
    assert set(found.series) == set(accumulator.Tags()["scalars"]) == set(curves)
    for tag in curves:
        expected = [(event.step, event.value) for event in accumulator.Scalars(tag)]
        assert [*map(repr, values(found, tag).items())] == [*map(repr, expected)]
    assert found.notes == []


def test_tensors_of_one_number_are_scalars(tmp_path: Path) -> None:
    write_events(tmp_path, {"loss": {0: 0.5, 10: 0.25}}, tensors=True)
    assert values(read_events(event_files(tmp_path))) == {0: 0.5, 10: 0.25}


def test_hyper_parameters(tmp_path: Path) -> None:
    write_events(tmp_path, {"loss": {0: 1.0}}, hparams={"lr": 0.5, "schedule": "cosine", "nesterov": True})
    assert read_events(event_files(tmp_path)).hparams == {"lr": 0.5, "schedule": "cosine", "nesterov": True}


def test_a_cut_off_end_costs_the_last_record_alone(tmp_path: Path) -> None:
    whole = write_events(tmp_path, {"loss": CURVE})
    content = whole.read_bytes()
    spans, damage = record_spans(content)
    assert (len(spans), damage) == (1 + len(CURVE), "")
    last = spans[-1][0] - 12
    for cut in (1, 5, 20, len(content) - last - 1):
        whole.write_bytes(content[:-cut])
        found = read_events([whole])
        assert values(found) == pytest.approx({s: CURVE[s] for s in list(CURVE)[:-1]})
        assert found.notes == [f"{whole.name} ends in the middle of a record; the records before were read"]
    whole.write_bytes(content[:last])
    assert read_events([whole]).notes == []


@pytest.mark.parametrize("where", ["length", "crc of the length", "event", "crc of the event"])
def test_damage_ends_the_reading_and_is_said(tmp_path: Path, where: str) -> None:
    file = write_events(tmp_path, {"loss": CURVE})
    content = bytearray(file.read_bytes())
    start, end = record_spans(bytes(content))[0][60]
    place = {"length": start - 12, "crc of the length": start - 2, "event": end - 1, "crc of the event": end + 1}[where]
    content[place] ^= 0x10
    file.write_bytes(content)
    found = read_events([file])
    assert list(values(found)) == list(CURVE)[:59]
    assert len(found.notes) == 1 and "is damaged at byte" in found.notes[0] and file.name in found.notes[0]


def test_a_file_of_another_kind_is_said_to_be_none(tmp_path: Path) -> None:
    file = tmp_path / "events.out.tfevents.1"
    file.write_bytes(b"not an event file, but long enough to be one")
    assert read_events([file]).notes == [f"{file.name} is not an event file; the records before were read"]
    file.write_bytes(b"")
    assert read_events([file]) == Scalars()


def test_a_resumed_run_goes_on_from_the_first_step_of_the_later_file(tmp_path: Path) -> None:
    write_events(tmp_path, {"loss": {0: 9.0, 10: 8.0, 20: 7.0}, "other": {0: 1.0, 20: 1.0}}, "1")
    write_events(tmp_path, {"loss": {10: 5.0, 15: 4.0}}, "2")
    found = read_events(event_files(tmp_path))
    assert values(found) == {0: 9.0, 10: 5.0, 15: 4.0}
    assert values(found, "other") == {0: 1.0, 20: 1.0}
    assert found.seconds == 20 + 5


def test_a_session_start_says_from_where_a_file_holds(tmp_path: Path) -> None:
    write_events(tmp_path, {"loss": {0: 9.0, 10: 8.0, 20: 7.0}, "other": {0: 1.0, 20: 1.0}}, "1")
    write_events(tmp_path, {"loss": {25: 5.0}}, "2", holds_from=15)
    found = read_events(event_files(tmp_path))
    assert values(found) == {0: 9.0, 10: 8.0, 25: 5.0}
    assert values(found, "other") == {0: 1.0}


def test_series_are_kept_in_order() -> None:
    series = Series()
    series.join(Series([3, 1, 1, 2], [3.0, 0.0, 1.0, 2.0]))
    assert series == Series([1, 2, 3], [1.0, 2.0, 3.0])
    series.join(Series([2], [5.0]))
    assert series == Series([1, 2], [1.0, 5.0])


def test_long_records_and_short_ones_are_checked_alike(tmp_path: Path) -> None:
    long = "x" * 300
    file = write_events(tmp_path, {long: CURVE, "loss": CURVE})
    content = bytearray(file.read_bytes())
    spans, _ = record_spans(bytes(content))
    at = next(i for i, (a, b) in enumerate(spans) if i > 50 and b - a > 300)
    content[spans[at][0] + 40] ^= 1
    assert record_spans(bytes(content)) == (spans[:at], f"is damaged at byte {spans[at][0]}")

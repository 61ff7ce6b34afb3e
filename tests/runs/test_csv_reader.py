"""The reader of ``metrics.csv``: columns as series, and the files of a resumed run."""

from __future__ import annotations

import math
from pathlib import Path

from lrkit.comparison.ranking import compare
from lrkit.runs.csv_reader import read_csv_series
from lrkit.runs.run_reader import load_run
from tests.helpers.run_folders import write_events, write_run


def test_columns_are_series_and_a_resumed_part_replaces_later_values(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,val/loss,lr/default\n0,10,0.9,\n0,0,,0.1\n1,20,0.8,\n2,30,7.0,\n")
    later = tmp_path / "from_step_25"
    later.mkdir()
    (later / "metrics.csv").write_text("step,val/loss\n30,0.7\n40,nan\nbad,0.1\n50,word\n")
    found = read_csv_series(tmp_path)
    assert found["val/loss"].steps == [10, 20, 30, 40, 50] and found["val/loss"].values[:3] == [0.9, 0.8, 0.7]
    assert all(map(math.isnan, found["val/loss"].values[3:])) and found["lr/default"].values == [0.1]
    assert read_csv_series(tmp_path / "nowhere") == {}


def test_a_damaged_file_is_no_series(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(b"\xff\x00,step\n\x00,1\n" + b"a" * 200_000)
    assert "val/loss" not in read_csv_series(tmp_path)


def test_runs_without_events_are_compared_by_it(tmp_path: Path) -> None:
    for schedule, loss in (("cosine", 0.5), ("step", 0.6)):
        run = write_run(tmp_path / schedule, schedule=schedule, loss=loss)
        (run / "metrics.csv").write_text(f"step,val/loss\n10,0.9\n100,{loss}\n")
    assert compare([tmp_path]).settings[0].runs[0].series["val/loss"].steps == [10, 100]
    write_events(tmp_path / "step", {"val/loss": {5: 0.25}})
    assert load_run(tmp_path / "step", "step").series["val/loss"].steps == [5]  # events come first

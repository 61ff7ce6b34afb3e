"""The table of the running jobs: read from their logs, in the width of the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrkit.base.terminal_width import measure_text
from lrkit.sweep.job import Job
from lrkit.sweep.live_table import LiveTable

LOG = """\
lr 0.1   SGD
epoch 1/3  step 38  lr 0.1  train/loss 0.8  val/accuracy 0.7  val/loss 0.5
note: something else
epoch 2/3  step 76  lr 0.05  train/loss 0.6  val/accuracy 0.9  val/loss 0.6
epoch 3/3  step 1"""


@pytest.fixture
def table(tmp_path: Path) -> LiveTable:
    made = LiveTable("auto", lambda: "1 done; 2 running; best val/loss 0.4 by schedule=linear,optimizer.lr=0.1")
    for number, log in enumerate((LOG, None)):
        folder = tmp_path / str(number)
        folder.mkdir()
        if log is not None:
            (folder / "job.log").write_text(log)
        made.begin(Job(number, (), "schedule=cosine,optimizer.betas=[0.9,0.99],optimizer.lr=0.1", folder))
    return made


def test_a_job_has_its_last_epoch_and_its_best_value(table: LiveTable) -> None:
    names, first, second, summary = table.render(200).splitlines()
    assert names.split() == ["job", "running", "state", "val/loss", "best", "time"]
    assert first.split()[1:-2] == [
        "schedule=cosine,", "optimizer.betas=[0.9,0.99],", "optimizer.lr=0.1", "epoch", "2/3", "0.6", "0.5",
    ]  # fmt: skip
    assert "starts" in second and summary == table.summary()
    table.monitor = "val/accuracy"
    assert table.render(200).splitlines()[1].split()[-4:-2] == ["0.9", "0.9"]
    table.end(table.running[0].job)
    assert len(table.render(200).splitlines()) == 3


def test_the_log_is_read_once_and_a_line_when_it_is_finished(table: LiveTable) -> None:
    job = table.running[0]
    log = job.job.folder / "job.log"
    assert table.render(200) and job.position == LOG.rindex("\n") + 1
    log.write_text("#" * job.position + LOG[job.position :] + "14  lr 0.01  train/loss 0.4  val/loss 0.3\n")
    assert table.render(200).splitlines()[1].split()[-6:-2] == ["epoch", "3/3", "0.3", "0.3"]
    assert [epoch for epoch, _ in job.epochs] == ["1/3", "2/3", "3/3"] and job.position == log.stat().st_size
    log.write_text("epoch 1/3  step 38  val/loss 0.9\n")  # the job begins again
    assert table.render(200).splitlines()[1].split()[-6:-2] == ["epoch", "1/3", "0.9", "0.9"]


def test_the_columns_stay_in_their_places(table: LiveTable) -> None:
    widths = set()
    for epoch, loss in (("1/3", "0.5"), ("100/100", "-1.234e-05"), ("2/3", "12")):
        table.running[0].since -= 700
        with (table.running[0].job.folder / "job.log").open("a") as log:
            log.write(f"\nepoch {epoch}  step 1  val/loss {loss}\n")
        names, first, second, _ = table.render(200).splitlines()
        widths.add((names.index("state"), names.index("val/loss"), names.index("best"), names.index("time")))
        assert first.index("epoch") == second.index("starts") == names.index("state")
    assert len(widths) == 1


@pytest.mark.parametrize("width", [40, 80, 120])
def test_it_fits(table: LiveTable, width: int) -> None:
    assert all(measure_text(line) <= width for line in table.render(width).splitlines())


def test_in_a_pipe_there_is_none(table: LiveTable, capsys: pytest.CaptureFixture[str]) -> None:
    with table:
        assert not table.is_shown
    assert capsys.readouterr() == ("", "")

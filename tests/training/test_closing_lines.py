"""The table at the end of a run says what "best" is, and fits its terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrkit.base.terminal_width import measure_text
from lrkit.callbacks.results_writer import ResultsWriter
from lrkit.lightning.imports import ModelCheckpoint
from lrkit.training.closing_lines import metric_table, print_closing

FINAL = {"train/loss": 0.1, "val/accuracy": 0.9, "val/loss": 0.7}
HISTORY = ((10, (0.5, 0.95, 0.4)), (20, (0.3, 0.92, 0.3)), (30, (0.1, 0.9, 0.7)))


@pytest.fixture
def results(tmp_path: Path) -> ResultsWriter:
    """Of a run that was best by ``val/loss`` at step 20."""
    made = ResultsWriter(tmp_path, {}, ModelCheckpoint(monitor="val/loss"))
    for step, values in HISTORY:
        made._keep_own_best(dict(zip(FINAL, values, strict=True)), step)
    made.final, made.best_step = FINAL, 20
    made.at_best = dict(zip(FINAL, HISTORY[1][1], strict=True))
    return made


def test_each_metric_has_its_own_best(results: ResultsWriter) -> None:
    assert (
        metric_table(results)
        == """\
metric        final  at best val/loss  own best  which
train/loss      0.1               0.3       0.1  min, step 30
val/accuracy    0.9              0.92      0.95  max, step 10
val/loss        0.7               0.3       0.3  min, step 20
best val/loss: after step 20"""
    )


def test_it_stays_so_after_a_resume(results: ResultsWriter, tmp_path: Path) -> None:
    resumed = ResultsWriter(tmp_path, {}, None)
    resumed.load_state_dict(results.state_dict())
    assert resumed.own_best == results.own_best
    resumed._keep_own_best({"val/accuracy": 0.94, "val/loss": 0.2}, 40)
    assert (resumed.own_best["val/accuracy"], resumed.own_best["val/loss"]) == ((0.95, 10), (0.2, 40))
    older = results.state_dict()
    del older["own_best"]  # of a checkpoint before there was one
    resumed.load_state_dict(older)
    assert resumed.own_best == {}


def test_without_a_validation_there_is_no_best(results: ResultsWriter) -> None:
    results.at_best, results.own_best, results.best_step = {}, {}, None
    assert metric_table(results).splitlines()[:2] == ["metric        final", "train/loss      0.1"]


@pytest.mark.parametrize("width", [24, 40, 80])
def test_it_fits(results: ResultsWriter, width: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert all(measure_text(line) <= width for line in metric_table(results, width).splitlines())
    print_closing(Path("runs/a"), results, "stopped at step 3 of 9", said=["noise [scale] 3"])
    assert capsys.readouterr().out.splitlines()[-5:] == [
        "noise [scale] 3",
        "",
        "stopped at step 3 of 9",
        "0.0 s; everything is in runs/a",
        "curves: tensorboard --logdir runs/a",
    ]

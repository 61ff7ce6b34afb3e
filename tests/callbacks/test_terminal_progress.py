"""The progress of a run fits its terminal, and gives up its least important part first."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from lrkit.base.terminal_width import measure_text
from lrkit.callbacks.line_progress import LineProgress
from lrkit.callbacks.results_writer import ResultsWriter
from lrkit.callbacks.terminal_progress import Progress, TerminalProgress, progress_lines

METRICS = ["lr 0.01", "train/loss 0.4", "val/accuracy 0.9", "val/loss 0.3"]


@pytest.mark.parametrize("width", [24, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("total", [1_000_000, None])
def test_it_fits(width: int, total: int | None) -> None:
    progress = Progress("epoch 12/300", 12_345, total, 100.0, 4000, METRICS, "best val/loss 0.2 after step 12300")
    lines = progress_lines(progress, width)
    assert all(measure_text(line) <= width for line in lines)
    said = "\n".join(lines)
    assert all(metric in said for metric in METRICS)  # no metric is apart from its value
    assert lines[0].startswith("epoch 12/300")
    assert ("steps/s" in said) >= (width >= 80) and ("left" in said) == (total is not None and width >= 60)
    assert ("╌" in said) == (total is not None) or width < 60


def test_the_time_left_is_by_the_mean_speed() -> None:
    resumed = Progress("", done=1500, total=2000, seconds=10.0, counted=500)
    assert resumed.speed == "50 steps/s" and resumed.left == "10.0 s left"
    slow = Progress("", done=2, total=10, seconds=9.0, counted=2)
    assert slow.speed == "4.5 s a step" and slow.left == "36.0 s left"
    assert Progress("", done=0, total=10).left == Progress("", done=0, total=10).speed == ""


def test_without_a_terminal_it_shows_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bar = TerminalProgress(ResultsWriter(tmp_path, {}, None))
    bar._start()
    assert not bar.display.is_shown and capsys.readouterr() == ("", "")


def test_a_long_epoch_has_lines_within_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lrkit.config.compose import compose
    from lrkit.training.run import run_training

    monkeypatch.setattr(LineProgress, "seconds", 0.0)
    monkeypatch.setattr(LineProgress, "lines", 3)
    words = ["trainer.max_epochs=1", "trainer.limit_train_batches=12", "trainer.limit_val_batches=1", "logger=none",
             "trainer.enable_model_summary=false", "trainer.log_every_n_steps=4"]  # fmt: skip
    run_training(compose(words), tmp_path)
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert [line[:2] for line in lines] == [["epoch 1/1", f"step {step}"] for step in (4, 8, 12)]
    assert all(line[3].startswith("train/loss ") and math.isfinite(float(line[3].split()[1])) for line in lines)

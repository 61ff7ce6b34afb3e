"""Two real processes on one CPU: the same rates on both ranks at each step; the linear rule counts both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from two_processes import TWO, both_ranks


def test_ranks_agree_and_the_linear_rule_counts_both(tmp_path: Path) -> None:
    first, second, folder = both_ranks(
        tmp_path, "batch_scaling=linear", "batch_scaling.base_batch_size=32", "warmup=linear", "trainer.max_epochs=2",
        "trainer.limit_train_batches=5", "plateau=reduce", "param_groups=no_decay",
    )  # fmt: skip
    assert first == second and len(first) == 10
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["batch_scale"] == {"rule": "linear", "factor": 2.0, "batch": 64, "base": 32}
    assert max(rate for step in first for rate in step) == pytest.approx(0.2)
    assert plan["horizon"]["steps"] == 10


@pytest.mark.slow
def test_plateau_decides_alike_though_the_metric_differs_between_ranks(tmp_path: Path) -> None:
    first, second, _ = both_ranks(
        tmp_path, "model=custom", "model._target_=plain_lightning.RankLoss", "data=custom",
        "data._target_=plain_lightning.Data", "data.batch_size=10", "trainer.max_epochs=4", "plateau=reduce",
        "plateau.monitor=val_loss", "plateau.patience=0", "plateau.factor=0.5", "schedule=constant", "optimizer.lr=0.5",
    )  # fmt: skip
    # 60 samples, 2 ranks, batches of 10: 3 steps an epoch. The mean over ranks gets worse at every check but the first.
    assert first == second == [[rate] for rate in (0.5, 0.5, 0.25, 0.125) for _ in range(3)]


@pytest.mark.slow
def test_the_training_loss_is_that_of_both_also_after_a_resume_within_an_interval(tmp_path: Path) -> None:
    words = ("model=custom", "model._target_=plain_lightning.RankTrainLoss", "data=custom", "schedule=constant",
             "data._target_=plain_lightning.Data", "data.batch_size=10", "trainer.max_epochs=1")  # fmt: skip
    first, *_, part = both_ranks(tmp_path, *words, "horizon.stop_after=2")
    assert len(first) == 2 and json.loads((part / "metrics.json").read_text())["final"]["train/loss"] == 1.0
    both_ranks(tmp_path, *words, "horizon.stop_after=null", f"resume.path={part}")
    assert json.loads((part / "metrics.json").read_text())["final"]["train/loss"] == 1.5  # of 3 steps on 2 ranks


@pytest.mark.slow
def test_a_sweep_on_two_processes_is_one_sweep(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lrkit", "train", "-m", "seed=1,2", *TWO, "trainer.max_epochs=1"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    jobs = sorted(folder for folder in sweep.iterdir() if folder.is_dir())
    assert [job.name for job in jobs] == ["0_seed=1", "1_seed=2"]
    assert [json.loads((job / "metrics.json").read_text())["steps"] for job in jobs] == [19, 19]

"""Real processes on one CPU: with any launcher they are one run; a signal ends a process that waits forever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from locations import environment
from slurm import SLURM_HERE
from two_processes import RANKS

from lrkit.base.lightning_package import chosen_package
from lrkit.checkpoint.durable_io import read_checkpoint

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ALONE = ("trainer.accelerator=cpu", "trainer.max_epochs=2", "logger=none")
OWN = ("model._target_=plain_lightning.Net", "model=custom", "data=custom", "data._target_=plain_lightning.Data",
       "data.batch_size=5", "optimizer=adamw", "warmup=linear", "+data.n=60")  # fmt: skip

pytestmark = pytest.mark.slow


def started(cwd: Path, *words: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words], cwd=cwd, env=environment(**env), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def done(cwd: Path, *words: str, **env: str) -> tuple[int, str, str]:
    process = started(cwd, *words, **env)
    try:
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    return process.returncode, out, err


def the_run(cwd: Path, kind: str = "runs") -> Path:
    (folder,) = (cwd / "outputs" / kind).iterdir()
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    content, wrong = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert not wrong
    found: dict[str, torch.Tensor] = content["state_dict"]
    return found


def rates(cwd: Path) -> tuple[list[Any], list[Any]]:
    first, second = (json.loads((cwd / f"rank{rank}.json").read_text()) for rank in (0, 1))
    return first, second


class TestTorchrun:
    def test_its_processes_are_one_run(self, tmp_path: Path) -> None:
        code, out, err = done(tmp_path, *TORCHRUN, "-m", "lrkit", "train", *ALONE[:2])
        assert code == 0, err
        assert out.count("lr[group, t]") == 1 and "64 samples a step (32 a device x 2 x accumulate 1)" in out
        assert out.count("note: torchrun started 2 processes (WORLD_SIZE=2)") == 1
        assert "lrkit:" not in err and "add_summary" not in err
        metrics = json.loads((the_run(tmp_path) / "metrics.json").read_text())
        assert (metrics["status"], metrics["steps"]) == ("done", 38)
        assert len([*the_run(tmp_path).glob("*tfevents*")]) == 1

    def test_another_number_is_refused_once(self, tmp_path: Path) -> None:
        code, out, err = done(tmp_path, *TORCHRUN, "-m", "lrkit", "train", *ALONE, "trainer.devices=1")
        assert code != 0 and out == ""
        assert err.count("lrkit: ") == 1 and "lrkit: trainer.devices must be 2 or not be set: torchrun started 2" in err
        assert "exitcode  : 2" in err and not (tmp_path / "outputs").exists()

    def test_what_is_found_late_is_told_once(self, tmp_path: Path) -> None:
        code, _, err = done(tmp_path, *TORCHRUN, "-m", "lrkit", "train", *ALONE, "data.train_samples=100")
        assert code != 0 and "exitcode  : 2" in err
        assert err.count("lrkit: ") == 1 and "lrkit: data.train_samples" in err

    def test_a_search_takes_part_with_both(self, tmp_path: Path) -> None:
        words = ("find", *ALONE, "find.steps=30", "find.repeats=1", "find.confirm=false")
        code, out, err = done(tmp_path, *TORCHRUN, "-m", "lrkit", *words)
        assert code == 0, err
        assert out.count("range test 1 of 1") == 1 and (the_run(tmp_path, "find") / "find.json").is_file()

    def test_it_gives_the_numbers_of_lightnings_own_launcher_to_the_bit(self, tmp_path: Path) -> None:
        """A user's own module and DataLoader(shuffle=True), which Lightning divides among the processes."""
        own, theirs = tmp_path / "own", tmp_path / "torchrun"
        for folder in (own, theirs):
            folder.mkdir()
        script = str(RANKS)
        code, _, err = done(own, script, str(own), "train", *ALONE, *OWN, "trainer.devices=2")
        assert code == 0, err
        code, _, err = done(theirs, *TORCHRUN, script, str(theirs), "train", *ALONE, *OWN)
        assert code == 0, err
        first, second = rates(own)
        assert first == second == rates(theirs)[0] == rates(theirs)[1] and len(first) == 12
        before, after = weights(the_run(own)), weights(the_run(theirs))
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
        results = [json.loads((the_run(folder) / "metrics.json").read_text()) for folder in (own, theirs)]
        assert results[0]["final"] == results[1]["final"] and "val_loss" in results[0]["final"]


def test_tasks_of_srun_are_one_run(tmp_path: Path) -> None:
    """As srun sets the environment; SLURM itself is not here."""
    port = str(20000 + os.getpid() % 10000)
    tasks = [
        started(tmp_path, "-m", "lrkit", "train", *ALONE,
                **{**SLURM_HERE, "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "MASTER_PORT": port})
        for rank in ("0", "1")
    ]  # fmt: skip
    (out, err), (nothing, silence) = (task.communicate(timeout=200) for task in tasks)
    assert [task.returncode for task in tasks] == [0, 0], err + silence
    assert "note: srun started 2 processes (SLURM_NTASKS=2)" in out and (nothing, silence) == ("", "")
    assert json.loads((the_run(tmp_path) / "metrics.json").read_text())["steps"] == 38


def test_an_allocation_without_srun_is_no_launch(tmp_path: Path) -> None:
    """Lightning would wait for tasks that do not exist."""
    words = ("-m", "lrkit", "train", *ALONE, "trainer.devices=2")
    code, _, err = done(tmp_path, *words, SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="2", SLURM_PROCID="0")
    assert code == 0, err
    assert json.loads((the_run(tmp_path) / "metrics.json").read_text())["steps"] == 38


@pytest.mark.parametrize(
    ("options", "devices"),
    [
        (["+trainer.strategy._target_={}.strategies.DDPStrategy", "+trainer.strategy.find_unused_parameters=true"], 2),
        (["trainer.plugins=[{{_target_: {}.plugins.TorchSyncBatchNorm}}]", "trainer.strategy=ddp"], 2),
        (["trainer.plugins={{_target_: {}.plugins.precision.MixedPrecision, precision: bf16-mixed, device: cpu}}"], 1),
        (["+trainer.profiler._target_={}.profilers.SimpleProfiler"], 1),
    ],
    ids=["strategy", "plugins", "a plugin", "profiler"],
)
def test_objects_in_the_trainer(options: Sequence[str], devices: int, tmp_path: Path) -> None:
    words = [option.format(chosen_package()) for option in options]
    code, out, err = done(tmp_path, "-m", "lrkit", "train", *ALONE, f"trainer.devices={devices}", *words)
    assert code == 0, err
    assert f"(32 a device x {devices} x accumulate 1)" in out
    assert ("FIT Profiler Report" in out + err) == ("profilers" in words[0])


@pytest.mark.parametrize(("size", "samples", "steps"), [(2, 10, 12), (1, 5, 24)], ids=["sharded", "one replica"])
def test_model_parallel_counts_its_replicas(size: int, samples: int, steps: int, tmp_path: Path) -> None:
    """Two processes that share one model see the same batches."""
    code, _, err = done(
        tmp_path, str(RANKS), str(tmp_path), "train", *ALONE, *OWN[1:], "model._target_=sharded_module.Net",
        "trainer.devices=2", f"+trainer.strategy._target_={chosen_package()}.strategies.ModelParallelStrategy",
        f"+trainer.strategy.data_parallel_size={size}", f"+trainer.strategy.tensor_parallel_size={2 // size}",
        "batch_scaling=linear", "batch_scaling.base_batch_size=5", "trainer.enable_checkpointing=false",
    )  # fmt: skip
    assert code == 0, err
    first, second = rates(tmp_path)
    plan = json.loads((the_run(tmp_path) / "plan.json").read_text())
    assert plan["horizon"]["batch_size"] == samples and plan["batch_scale"]["factor"] == samples / 5
    assert first == second and len(first) == plan["horizon"]["steps"] == steps


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(before: int, after: int, tmp_path: Path) -> None:
    """By override: the new plan, at the place that as many samples have reached."""
    words = ("train", "trainer.accelerator=cpu", "logger=none", "warmup=linear", "schedule=cosine")
    code, _, err = done(tmp_path, "-m", "lrkit", *words, f"trainer.devices={before}", "trainer.max_epochs=2")
    assert code == 0, err
    folder = the_run(tmp_path)
    for each in tmp_path.glob("rank*.json"):
        each.unlink()
    code, _, err = done(
        tmp_path, str(RANKS), str(tmp_path), *words, f"trainer.devices={after}",
        "trainer.max_epochs=4", f"resume.path={folder}", "resume.policy=override", "hydra.run.dir=more",
    )  # fmt: skip
    assert code == 0, err
    steps = 152 // after  # in four epochs
    saved = json.loads((tmp_path / "more" / "plan.json").read_text())
    from lrkit.planning.plan import Plan

    plan = Plan.from_json(saved)
    assert plan.horizon.steps == steps
    expected = [[plan.lr(plan.groups[0], t)] for t in range(steps // 2, steps)]
    seen = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(after)]
    assert all(each == expected for each in seen)


class TestSignals:
    def ended(self, cwd: Path, shown: str, signals: Sequence[tuple[float, int]], *words: str) -> tuple[int, float, str]:
        """Return the exit code, the seconds after the last signal, and the output after it."""
        out, err = cwd / "out.txt", cwd / "err.txt"
        with out.open("w") as first, err.open("w") as second:
            process = subprocess.Popen(
                [sys.executable, "-m", "lrkit", "train", *ALONE, *words], cwd=cwd, env=environment(),
                stdout=first, stderr=second,
            )  # fmt: skip
        try:
            until = time.monotonic() + 120
            while shown not in out.read_text() + err.read_text():
                assert time.monotonic() < until and process.poll() is None, err.read_text()
                time.sleep(0.1)
            for wait, signum in signals:
                time.sleep(wait)
                process.send_signal(signum)
            since = time.monotonic()
            code = process.wait(timeout=80)
        finally:
            process.kill()
        return code, time.monotonic() - since, err.read_text()

    @pytest.mark.parametrize(
        ("signum", "code", "name", "status"),
        [(signal.SIGTERM, 143, "SIGTERM", "preempted"), (signal.SIGINT, 130, "Ctrl-C", "interrupted")],
    )
    def test_a_node_that_does_not_come_is_told_and_not_waited_for(
        self, signum: int, code: int, name: str, status: str, tmp_path: Path
    ) -> None:
        returned, seconds, err = self.ended(
            tmp_path, "waiting for", [(1.0, signum)], "trainer.num_nodes=2", "trainer.devices=1"
        )
        waiting, stopped = err.splitlines()
        assert returned == code and seconds < 20
        assert "lrkit: waiting for 1 of 2 processes (trainer.num_nodes=2) at 127.0.0.1:" in waiting
        assert ", until " in waiting and "NODE_RANK" in waiting
        assert stopped.startswith(f"lrkit: stopped by {name} while it waited for 1 of 2 processes")
        assert json.loads((the_run(tmp_path) / "metrics.json").read_text())["status"] == status

    @pytest.mark.parametrize("signals", [[(1.0, signal.SIGTERM)], [(1.0, signal.SIGTERM), (6.0, signal.SIGTERM)]],
                             ids=["a step that does not end", "twice"])  # fmt: skip
    def test_a_collective_operation_that_hangs(self, signals: list[tuple[float, int]], tmp_path: Path) -> None:
        returned, seconds, err = self.ended(
            tmp_path, "hangs", signals, "trainer.devices=2", "+callbacks.hang={_target_: failing_parts.Hang, step: 25}"
        )
        assert returned == 143 and seconds < (20 if len(signals) == 2 else 60)
        said = [line for line in err.splitlines() if "waiting for" not in line]
        assert len(said) == 1 and said[0].startswith("lrkit: stopped by SIGTERM at step 25 of 38, which did not end;")
        assert "last.ckpt, step 19; go on with: lrkit train" in said[0]
        time.sleep(1)
        listed = subprocess.run(["ps", "-eo", "cmd"], capture_output=True, text=True).stdout
        assert str(the_run(tmp_path)) not in listed  # the other process is gone too
        assert json.loads((the_run(tmp_path) / "metrics.json").read_text())["status"] == "preempted"

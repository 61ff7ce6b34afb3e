"""A signal ends a run after a saved step; the resumed run is bit-identical. All processes end at the same step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from interrupted_runs import weights
from locations import environment
from recorded_rates import Recorded
from signalled_runs import at, metrics, only, words
from torch.distributed import TCPStore
from two_processes import RANKS

from lrkit.base.signals import Terminated
from lrkit.cli.main import main
from lrkit.lightning.preemption import SeveralProcesses


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    yield
    assert before == [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]


@pytest.fixture
def whole(recorded: Recorded) -> Callable[..., tuple[Path, list[Any]]]:
    def undisturbed(*more: str) -> tuple[Path, list[Any]]:
        assert main(words(*more)) == 0
        rates = [*recorded]
        recorded.clear()
        return only(), rates

    return undisturbed


@pytest.mark.parametrize(
    ("step", "stops", "more"),
    [
        (7, 8, ()),
        (5, 6, ()),  # the last step of an epoch: its validation and its end belong to it
        (3, 4, ("trainer.val_check_interval=2", "plateau=reduce", "plateau.patience=0", "plateau.threshold=1e9",
                "plateau.threshold_mode=abs")),
        (4, 5, ("trainer.accumulate_grad_batches=2",)),
        (8, 9, ("optimizer=schedule_free_adamw", "schedule=constant")),
    ],
    ids=["within an epoch", "at its end", "before a validation", "accumulating", "schedule-free"],
)  # fmt: skip
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(
    step: int, stops: int, more: tuple[str, ...], whole: Any, recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    undisturbed, rates = whole(*more)
    assert main(words(*more, at(step, "SIGTERM"))) == 143
    folder = only()
    steps = len(rates)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"lrkit: stopped by SIGTERM at step {stops} of {steps}; checkpoint saved; go on with: lrkit")
    assert line.endswith(f"resume.path={folder}") and len(recorded) == stops
    assert metrics(folder)["status"] == "preempted" and line.endswith(metrics(folder)["why"])
    assert main([*words(*more), f"resume.path={folder}", "~callbacks.signal"]) == 0
    assert recorded == rates and metrics(folder)["final"] == metrics(undisturbed)["final"]
    assert metrics(folder)["best"] == metrics(undisturbed)["best"]
    assert all(torch.equal(weights(undisturbed)[name], weights(folder)[name]) for name in weights(folder))


@pytest.mark.parametrize(
    ("name", "code", "status"),
    [("SIGTERM", 143, "preempted"), ("SIGUSR1", 128 + signal.SIGUSR1, "preempted"), ("SIGINT", 130, "interrupted")],
)
def test_each_signal_has_its_code(name: str, code: int, status: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(at(8, name))) == code
    assert metrics(only())["status"] == status and metrics(only())["seconds"] > 0
    assert torch.load(only() / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 9
    called = "Ctrl-C" if name == "SIGINT" else name
    assert capsys.readouterr().err.startswith(f"lrkit: stopped by {called} at step 9 of 24; checkpoint saved; go on")


def test_ctrl_c_twice_ends_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    two = f"+callbacks.again={at(8, 'SIGINT').partition('=')[2]}"
    assert main(words(at(8, "SIGINT"), two)) == 130
    said = capsys.readouterr().err
    assert "Traceback" not in said and said.count("\n") == 1
    assert "stopped by Ctrl-C at step 8 of 24; the last good one is" in said and "last.ckpt, step 6; go on" in said
    assert metrics(only())["status"] == "interrupted"


def test_a_signal_in_the_last_step_lets_it_be_done() -> None:
    assert main(words(at(23, "SIGTERM"))) == 0
    assert metrics(only())["status"] == "done"


def test_without_checkpoints_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("trainer.enable_checkpointing=false", at(3, "SIGTERM"))) == 143
    assert "stopped by SIGTERM at step 4 of 24; no checkpoint was asked for" in capsys.readouterr().err


def test_signals_are_given_back(train: Callable[..., Any]) -> None:
    before = [signal.getsignal(signum) for signum in sorted(signal.valid_signals())]
    train()
    with pytest.raises(Terminated):
        train(at(2, "SIGTERM"))
    assert [signal.getsignal(signum) for signum in sorted(signal.valid_signals())] == before


def test_find_ends_with_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrkit.lr_finder.find.find_lr", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["find"]) == 143
    assert capsys.readouterr().err == "lrkit: stopped by SIGTERM\n"


def test_the_command_to_go_on_with_is_the_whole_one(capsys: pytest.CaptureFixture[str]) -> None:
    import shlex

    assert main(words("optimizer.lr=0.05", at(8, "SIGTERM", times=1))) == 143
    command = shlex.split(capsys.readouterr().err.partition("go on with: lrkit ")[2])
    assert main(command) == 0  # the signal does not come again: its step is passed
    assert metrics(only())["status"] == "done" and metrics(only())["steps"] == 24


class TestTogether:
    """Processes as threads: each runs segments, and waits after each for the others, as a gradient is waited for."""

    def run(self, signals: dict[tuple[int, int], int], world: int = 3, segments: int = 40) -> list[int]:
        master = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        ended, barrier = [-1] * world, threading.Barrier(world)

        def process(rank: int) -> None:
            store = TCPStore("localhost", master.port, is_master=False, wait_for_workers=False)
            together = SeveralProcesses(store, rank, world, wait=10.0)
            for segment in range(segments):
                if rank == world - 1:
                    threading.Event().wait(0.02)  # one is slower than the others
                if (rank, segment) in signals:
                    together.signum = signals[rank, segment]
                barrier.wait(10.0)
                if together.ends_here():
                    ended[rank] = segment
                    break
            together.close()

        threads = [threading.Thread(target=process, args=(rank,)) for rank in range(world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return ended

    @pytest.mark.parametrize("rank", [0, 1, 2])
    def test_whoever_hears_of_it_all_end_at_the_same_point(self, rank: int) -> None:
        ended = self.run({(rank, 3): signal.SIGTERM})
        assert len({*ended}) == 1 and ended[0] >= 3

    def test_all_hear_of_it(self) -> None:
        ended = self.run({(rank, 3 + rank): signal.SIGTERM for rank in range(3)})
        assert len({*ended}) == 1 and ended[0] >= 3

    def test_none_does(self) -> None:
        assert self.run({}, segments=5) == [-1, -1, -1]

    def test_the_requests_to_the_store_do_not_grow_with_the_processes(self) -> None:
        def count_requests(world: int) -> int:
            store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
            asked: list[str] = []

            class Counted:
                def __getattr__(self, name: str) -> Any:
                    asked.append(name)
                    return getattr(store, name)

            together = SeveralProcesses(cast(TCPStore, Counted()), 0, world)
            for rank in range(1, world):
                store.set(f"segment{rank}", str(rank))
            together.signum = signal.SIGTERM
            together.thread.join()
            asked.clear()
            assert [together.ends_here() for _ in range(world)] == [False] * (world - 1) + [True]
            return len(asked)

        assert count_requests(3) == count_requests(200)

    def test_whom_nobody_answers_does_not_wait_for_ever(self) -> None:
        store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        store.set_timeout(timedelta(seconds=1))
        together = SeveralProcesses(store, 0, 2, wait=0.1)
        together.signum = signal.SIGTERM
        together.thread.join()
        with pytest.raises(RuntimeError):
            together.ends_here()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_end_at_the_same_step(rank: int, tmp_path: Path) -> None:
    """Whichever of the two gets it; then both go on, and take the steps that were left."""
    two = ["trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp", "data.batch_size=16"]
    slow = "+callbacks.slow={_target_: failing_jobs.Fate, fates: ['2 slow']}"

    def both(*overrides: str) -> tuple[int, str]:
        line = [sys.executable, str(RANKS), str(tmp_path), *words(*two, "trainer.max_epochs=8"), slow]
        done = subprocess.run(
            [*line, *overrides], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stderr

    def steps() -> list[int]:
        return [len(json.loads((tmp_path / f"rank{rank}.json").read_text())) for rank in (0, 1)]

    code, told = both(at(9, "SIGTERM", rank))
    assert code == 143, told
    assert told.count("stopped by SIGTERM") == 1 and "Traceback" not in told
    folder = only()
    first, second = steps()
    assert first == second and 10 <= first < 48
    assert both(f"resume.path={folder}", "~callbacks.signal")[0] == 0
    assert steps() == [48 - first] * 2 and metrics(folder)["status"] == "done"

"""Models, data, callbacks, loggers and processes that fail on purpose, at a chosen step or always."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from lrkit.data.digits import Digits
from lrkit.lightning.imports import Callback, Logger

SERVER: Any = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["lrkit.training.run", "lrkit.cli.main"]
)  # torch is loaded once, and each process forked from there


def _begin(words: list[str], folder: str, temporary: str | None, plain: bool) -> None:
    os.setsid()
    os.chdir(folder)
    for stream, name in ((1, "out.txt"), (2, "err.txt")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), stream)
    for signum in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path.insert(0, str(Path(__file__).parent))
    if temporary is not None:
        os.environ["TMPDIR"] = tempfile.tempdir = temporary
    torch.set_num_threads(1)
    if plain:  # Lightning's own saving, to see that these tests can tell
        from lrkit.checkpoint import durable_io

        durable_io.install_durable_io = lambda trainer, last: None  # type: ignore[assignment]
    from lrkit.cli.main import main

    sys.exit(main(words))


def start(words: list[str], folder: Path, temporary: Path | None = None, *, plain: bool = False) -> Any:
    """A process that runs a command line in ``folder``, where its output goes to ``out.txt`` and ``err.txt``."""
    arguments = (words, str(folder), None if temporary is None else str(temporary), plain)
    process = SERVER.Process(target=_begin, args=arguments)
    process.start()
    return process


def said(folder: Path) -> str:
    """Return the error output of a process."""
    return (folder / "err.txt").read_text()


def until(holds: Callable[[], Any], process: Any, seconds: float = 60.0) -> None:
    """Wait for something, as long as a process lives."""
    end = time.monotonic() + seconds
    while not holds():
        assert process.is_alive(), "it ended before"
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.002)


class SignalAt(Callback):
    """Sends this process a signal in the middle of a step, once."""

    def __init__(self, step: int, name: str, rank: int = 0, times: int = 1) -> None:
        self.step, self.signum, self.rank, self.times = step, getattr(signal, name), rank, times

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank and self.times:
            self.times -= 1
            os.kill(os.getpid(), self.signum)


class Slow(Callback):
    """A training that takes its time, so that it is not over before it was killed often enough."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        time.sleep(0.03)


class RaiseAt(Callback):
    """A mistake in the user's code."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise ValueError("two and two\nmake five")


class ServerDown(Logger):
    """A logger whose server goes down; ``at`` says in which of its methods that is noticed."""

    name = "server"
    version = "0"

    def __init__(self, at: str, after: int = 0) -> None:
        super().__init__()
        self.at, self.after, self.calls = at, after, 0

    def _maybe(self, method: str) -> None:
        if method == self.at:
            self.calls += 1
            if self.calls > self.after:
                raise ConnectionError("the server is down")

    @property
    def experiment(self) -> Any:
        self._maybe("experiment")
        return object()

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._maybe("log_metrics")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._maybe("log_hyperparams")

    def save(self) -> None:
        self._maybe("save")

    def finalize(self, status: str) -> None:
        self._maybe("finalize")

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self._maybe("after_save_checkpoint")


class Mortal(Dataset[Any]):
    """Kills the process that loads its 40th sample."""

    def __init__(self, pairs: list[Any]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Any:
        if index == 40:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.pairs[index]


class DyingWorkers(Digits):
    """Digits by a loader with a process of its own, which dies."""

    def train_dataloader(self) -> Any:
        x, y = next(iter(super().train_dataloader()))
        pairs = [(x[i % len(x)], y[i % len(y)]) for i in range(64)]
        return DataLoader(Mortal(pairs), batch_size=8, num_workers=1)


class Flood(Callback):
    """Writes much into TensorBoard."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        trainer.loggers[0].experiment.add_text("flood", "x" * 10_000, trainer.global_step)


class Hang(Callback):
    """One of two processes stops at a step, and the other waits for it."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step and trainer.global_rank == 1:
            print("hangs", flush=True)
            time.sleep(1000)

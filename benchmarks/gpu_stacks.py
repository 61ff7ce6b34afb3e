"""A section of the GPU benchmark: jobs of a sweep as one stack on the device, against one after another."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from gpu_training import DEVICE, set_precision, synchronize
from pytorch_lightning.callbacks import Callback
from torch import Tensor

import lrkit
from lrkit.config.compose import compose
from lrkit.training.stacked_runs import StackedRun, train_stacked_runs

MEMBERS = (1, 8, 64, 256)
#: Jobs that are trained one after another.
SEPARATE = 4
#: Steps whose losses are compared, and the largest share by which they may differ: kernels add in another order.
COMPARED, TOLERANCE = 20, 1e-3
#: Task -> its overrides, and its epochs.
TASKS: dict[str, tuple[tuple[str, ...], int]] = {
    "digits MLP": ((), 15),
    "MNIST-1D CNN": (("data=mnist1d", "model=cnn1d"), 5),
}
COMMON = ("stack=off", "logger=none", "schedule=cosine", "warmup=linear", "test=false",
          f"trainer.accelerator={DEVICE.type}", "trainer.enable_checkpointing=false",
          "trainer.log_every_n_steps=1")  # fmt: skip


def stacks(add: Any, small: bool) -> None:
    """Two tasks: jobs in one process one after another, and stacks of more and more jobs of other rates and seeds.

    A separate job writes its files; a stack is measured as a program alone, with the building of its members.
    """
    set_precision("fp32")
    for task, (words, epochs) in TASKS.items():
        length = (
            ["trainer.max_epochs=2", "trainer.limit_train_batches=4"] if small else [f"trainer.max_epochs={epochs}"]
        )
        overrides = [*COMMON, *words, *length]
        separate: list[list[float]] = []
        done = add.attempt(partial(_train_separately, overrides, 2 if small else SEPARATE, separate), task=task,
                           way="one after another")  # fmt: skip
        for count in MEMBERS[: 2 if small else None]:
            run = partial(_train_stack, overrides, count, done.get("jobs/minute"), separate)
            add.attempt(run, task=task, way="one stack")


def _differing_keys(number: int) -> list[str]:
    """The overrides of a job: one of eight rates, and a seed."""
    return [f"optimizer.lr={0.01 * 1.3 ** (number % 8):.4g}", f"seed={number // 8}", f"data.seed={number // 8}"]


class Losses(Callback):
    """Keeps the loss of each step, without a wait of the host for the device."""

    kept: ClassVar[list[Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        Losses.kept.append(outputs["loss"].detach().clone())


def _train_separately(words: Sequence[str], count: int, losses: list[list[float]]) -> Mapping[str, Any]:
    """Train jobs one after another, after one that warms up. Append the losses of each."""
    with TemporaryDirectory() as folder:
        _train(words, 0, f"{folder}/first")
        begun = time.perf_counter()
        kept = [_train(words, number, f"{folder}/{number}") for number in range(count)]
        synchronize()
        taken = time.perf_counter() - begun
    losses.extend(torch.stack(each[:COMPARED]).tolist() for each in kept)
    steps = sum(map(len, kept))
    return {"jobs": count, "steps": len(kept[0]), "jobs/minute": 60 * count / taken, "steps*jobs/s": steps / taken}


def _train(words: Sequence[str], number: int, folder: str) -> list[Tensor]:
    Losses.kept = []
    lrkit.train(
        *words, *_differing_keys(number), "+callbacks.losses._target_=gpu_stacks.Losses",
        folder=folder, trust=["gpu_stacks"], quiet=True,
    )  # fmt: skip
    return Losses.kept


def _run_stack(words: Sequence[str], numbers: Sequence[int]) -> tuple[list[list[float]], float]:
    """Train jobs as one stack; return the losses of each, and the seconds."""
    configs = [compose([*words, *_differing_keys(number)]) for number in numbers]
    losses: list[list[float]] = [[] for _ in configs]

    def write(i: int, run: StackedRun) -> None:
        losses[i] = [*run.recorded.record.losses]

    begun = time.perf_counter()
    train_stacked_runs(configs, write)
    synchronize()
    return losses, time.perf_counter() - begun


def _train_stack(words: Sequence[str], count: int, base: Any, separate: list[list[float]]) -> Mapping[str, Any]:
    losses, taken = _run_stack(words, range(count))
    rate = 60 * count / taken
    apart = max(
        (abs(a - b) / max(abs(b), 1e-6) for ours, theirs in zip(losses, separate, strict=False)
         for a, b in zip(ours, theirs, strict=False)),
        default=None,
    )  # fmt: skip
    return {
        "jobs": count,
        "steps": len(losses[0]),
        "jobs/minute": rate,
        "steps*jobs/s": sum(map(len, losses)) / taken,
        "jobs/minute / one after another": rate / base if base else None,
        "largest difference of losses": apart,
        "same losses": None if apart is None else apart <= TOLERANCE,
    }

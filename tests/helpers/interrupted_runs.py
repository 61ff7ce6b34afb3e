"""Runs that end early and are resumed: the callbacks that end them, and both runs in one call."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from recorded_rates import Recorded

from lrkit.config.compose import compose
from lrkit.lightning.imports import Callback
from lrkit.lightning.module import scheduler_of
from lrkit.training.run import run_training

BASE = ("logger=none", "trainer.max_epochs=4", "trainer.limit_train_batches=6", "trainer.limit_val_batches=1",
        "model.hidden=[8]", "model.dropout=0.3")  # fmt: skip


class Interrupted(Exception):
    pass


class Stop(Callback):
    """Dies right after the step whose checkpoint was kept."""

    at: int | None = None

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if Stop.at is not None and trainer.global_step == Stop.at:
            raise Interrupted


class WindowCount(Callback):
    """The samples of each optimizer step by the plan, compared with the batches that came: fewer at an epoch's end."""

    samples: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self.seen = 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen += -(-len(batch[0]) // trainer.datamodule.batch_size)  # batches, also joined ones

    def on_before_optimizer_step(self, trainer: Any, *_: Any) -> None:
        scheduler, size = scheduler_of(trainer), trainer.accumulate_grad_batches
        if (sizes := scheduler.plan.horizon.batch_sizes) is not None:
            size = sizes.window(scheduler.applied)
        assert self.seen == size or (self.seen < size and trainer.is_last_batch)
        WindowCount.samples.append(trainer.datamodule.batch_size * size)
        self.seen = 0


class Halt(Callback):
    """Ends the run in good order, once, after ``at`` steps, wherever in the epoch that is: as a time limit does."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step == self.at


def saves(at: int) -> str:
    return f"+callbacks.save={{_target_: interrupted_runs.Save, at: {at}}}"


class Save(Stop):
    """Saves ``last.ckpt`` within an epoch, as a signal does."""

    def __init__(self, at: int) -> None:
        self.step = at

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        pass

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.step = 0  # not once more in the middle of a window of accumulation
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


EVERY = (
    "+callbacks.every={_target_: pytorch_lightning.callbacks.ModelCheckpoint, dirpath: '%s', every_n_train_steps: 1,"
    " save_top_k: -1, filename: '{step}'}",
    "+callbacks.stop={_target_: interrupted_runs.Stop}",
)


def full_and_resumed(tmp_path: Path, recorded: Recorded, at: int, *overrides: str) -> None:
    """An uninterrupted run, and one that dies at step ``at`` and is resumed: the same rates, metrics and weights."""
    kept = tmp_path / "kept"
    config = [*BASE, EVERY[0] % kept, EVERY[1], *overrides]
    whole, part, rest = (tmp_path / name for name in ("whole", "part", "rest"))
    for folder in (whole, part, rest):
        folder.mkdir()
    one = run_training(compose(config), whole, quiet=True)
    rates = [*recorded]
    recorded.clear()
    shutil.rmtree(kept)
    Stop.at = at
    with pytest.raises(Interrupted):
        run_training(compose(config), part, quiet=True)
    Stop.at = None
    checkpoint = kept / f"step={at}.ckpt"
    two = run_training(compose([*config, f"resume.path='{checkpoint}'"]), rest, quiet=True)
    assert len(recorded) == len(rates) and recorded == rates
    assert two.final == one.final
    before, after = weights(whole), weights(rest)
    assert all(torch.equal(before[name], after[name]) for name in before)


ignored = pytest.mark.filterwarnings(
    "ignore:The dirpath has changed", "ignore:Checkpoint directory", "ignore:Be aware that when using"
)


def interrupted(tmp_path: Path, at: int, *more: str, base: Sequence[str]) -> tuple[Path, Path]:
    """The folder of an undisturbed run, and that of one that died at step ``at`` and went on from its last checkpoint.

    ``last.ckpt`` is of the end of an epoch; within one it is what was saved just before.
    """
    whole, part = tmp_path / "whole", tmp_path / "part"
    for folder in (whole, part):
        folder.mkdir()
    run_training(compose([*base, *more]), whole, quiet=True)
    Stop.at = at
    with pytest.raises(Interrupted):
        run_training(compose([*base, *more]), part, quiet=True)
    Stop.at = None
    torch.rand(7)  # the process goes on, and its random numbers with it
    run_training(compose([*base, *more, f"resume.path={part}"]), part, quiet=True)
    return whole, part


def same_weights(one: Path, other: Path) -> bool:
    before, after = weights(one), weights(other)
    return all(torch.equal(before[name], after[name]) for name in before)


def notes(folder: Path) -> list[str]:
    file = folder / "events.json"
    entries: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    return [entry["why"] for entry in entries if entry["event"] == "data"]

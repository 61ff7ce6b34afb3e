"""Prints the progress of a run as lines of text."""

from __future__ import annotations

import time
from typing import Any

from lrkit.base.terminal_width import print_line
from lrkit.lightning.imports import Callback, LightningModule, Trainer
from lrkit.lightning.module import plan_of, schedulers_of, step_of

__all__ = ["LineProgress", "epoch_text", "metric_texts", "rate_texts"]


class LineProgress(Callback):
    """Prints a line per epoch, about twenty lines in a run; within long epochs a line at each twentieth of the run."""

    lines = 20
    seconds = 60.0  # least time between a line within an epoch and the line before it

    def __init__(self) -> None:
        self.printed = 0.0
        self.next_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.printed, self.next_step = time.monotonic(), step_of(trainer) + _steps_of_a_line(trainer, self.lines)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self.printed < self.seconds or trainer.is_last_batch:
            return
        if step_of(trainer) >= self.next_step:
            self._print_line(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epochs = _count_epochs(trainer)
        every = 1 if epochs is None else -(-epochs // self.lines)
        done = trainer.current_epoch + 1
        if done % every == 0 or done == epochs:
            self._print_line(trainer)

    def _print_line(self, trainer: Trainer) -> None:
        self.printed, self.next_step = time.monotonic(), step_of(trainer) + _steps_of_a_line(trainer, self.lines)
        if not trainer.is_global_zero:
            return
        print_line(
            "  ".join([epoch_text(trainer), f"step {step_of(trainer)}", *rate_texts(trainer), *metric_texts(trainer)])
        )


def epoch_text(trainer: Trainer) -> str:
    """Return ``epoch 2/15``, or ``epoch 2`` where the number of epochs is not set."""
    epochs = _count_epochs(trainer)
    return f"epoch {trainer.current_epoch + 1}{f'/{epochs}' if epochs else ''}"


def metric_texts(trainer: Trainer) -> list[str]:
    """Return the last values of the logged metrics as texts: ``val/loss 0.25``."""
    return [f"{name} {float(value):.4g}" for name, value in sorted(trainer.callback_metrics.items())]


def rate_texts(trainer: Trainer) -> list[str]:
    """Return the learning rate of each optimizer at the last step, as texts: ``lr 0.1``."""
    texts = []
    for each in schedulers_of(trainer):
        rate = each.plan.lr(each.plan.main_group, max(each.applied - 1, 0), each.total_gain)
        texts.append(f"{f'lr/{each.track}' if each.track else 'lr'} {rate:.4g}")
    return texts


def _count_epochs(trainer: Trainer) -> int | None:
    return trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None


def _steps_of_a_line(trainer: Trainer, lines: int) -> int:
    return max(1, (plan_of(trainer).horizon.end or 0) // lines)

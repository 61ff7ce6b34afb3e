"""Shows the progress of a run at the bottom of a terminal: a bar for the whole run, metrics, and the best so far."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from lrkit.base.duration_text import format_duration
from lrkit.base.live_display import LiveDisplay
from lrkit.base.terminal_width import find_width, measure_text, wrap_text
from lrkit.callbacks.line_progress import epoch_text, metric_texts, rate_texts
from lrkit.callbacks.results_writer import ResultsWriter
from lrkit.lightning.imports import LightningModule, ProgressBar, Trainer
from lrkit.lightning.module import plan_of, step_of

__all__ = ["Progress", "TerminalProgress", "progress_lines"]

_EVERY, _METRICS_EVERY = 0.1, 0.5  # seconds between two displays, and between two readings of metrics from the device
_LEAST_BAR = 8


@dataclass
class Progress:
    """The state of a run, as it is shown.

    Args:
        stage: ``epoch 3/15``, or what happens in place of a training step.
        done, total: optimizer steps; ``total`` is None if it is not known.
        seconds: the time that the steps of ``counted`` took.
        counted: number of optimizer steps in this process.
        metrics: texts such as ``val/loss 0.2``.
        best: the best validation so far.
    """

    stage: str = ""
    done: int = 0
    total: int | None = None
    seconds: float = 0.0
    counted: int = 0
    metrics: list[str] = field(default_factory=list)
    best: str = ""

    @property
    def speed(self) -> str:
        """Optimizer steps per second, or seconds per step."""
        if not self.counted or not self.seconds:
            return ""
        speed = self.counted / self.seconds
        return f"{speed:.3g} steps/s" if speed >= 1 else f"{1 / speed:.3g} s a step"

    @property
    def left(self) -> str:
        """The time to the end of the run, at the mean speed so far."""
        if not self.counted or self.total is None:
            return ""
        return f"{format_duration(self.seconds / self.counted * (self.total - self.done))} left"


def progress_lines(progress: Progress, width: int) -> list[str]:
    """Return the lines to show: a bar over ``width`` columns, then metrics, which break between metrics.

    >>> for line in progress_lines(Progress("epoch 2/4", 30, 100, 3.0, 30, ["lr 0.1", "val/loss 0.5"]), 60):
    ...     print(line)
    epoch 2/4 ━━━╌╌╌╌╌╌╌╌╌  30/100 steps  10 steps/s  7.0 s left
    lr 0.1  val/loss 0.5
    """
    counts = f"{progress.done}{'' if progress.total is None else f'/{progress.total}'} steps"
    parts = [text for text in (counts, progress.speed, progress.left) if text]
    while len(parts) > 1 and _room(progress.stage, parts, width) < _LEAST_BAR:
        parts.pop(1 if len(parts) == 3 else -1)  # the speed goes first
    room = _room(progress.stage, parts, width)
    bar = "" if room < 3 or progress.total is None else f" {_draw_bar(progress.done / max(progress.total, 1), room)}"
    lines = wrap_text(f"{progress.stage}{bar}  {'  '.join(parts)}", width).split("\n")
    glued = "  ".join(text.replace(" ", "\0") for text in progress.metrics)
    lines += wrap_text(glued, width).replace("\0", " ").split("\n") if glued else []
    return [*lines, *(wrap_text(progress.best, width).split("\n") if progress.best else [])]


def _room(stage: str, parts: list[str], width: int) -> int:
    """The columns for a bar."""
    return width - measure_text(stage) - 1 - sum(2 + measure_text(part) for part in parts)


def _draw_bar(share: float, columns: int) -> str:
    full = min(columns, int(share * columns))
    return "━" * full + "╌" * (columns - full)


class TerminalProgress(ProgressBar):
    """A progress bar of Lightning's kind, in the width of the terminal; without a terminal it shows nothing.

    It reads metrics from the device twice a second at most, so a step does not wait for it.

    Args:
        results: has the best validation so far.
    """

    def __init__(self, results: ResultsWriter) -> None:
        super().__init__()
        self.results, self.progress = results, Progress()
        self.display = LiveDisplay(lambda width, _: "\n".join(progress_lines(self.progress, width)))
        self.is_enabled = find_width() is not None
        self.since = self.shown = self.read = self.validating = 0.0  # of the monotonic clock
        self.begun = 0

    def enable(self) -> None:
        self.is_enabled = find_width() is not None

    def disable(self) -> None:
        self.is_enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.since, self.begun, self.progress = time.monotonic(), step_of(trainer), Progress()
        self.progress.total = _count_steps(trainer)
        self._start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._is_due():
            self._show_training(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validating = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and self.display.is_shown:
            self.read = 0.0
            self._show_training(trainer)

    def on_validation_batch_end(self, *arguments: Any, **named: Any) -> None:
        if time.monotonic() - self.validating > _METRICS_EVERY:  # a short one would only flicker
            self._show_batch("validating", arguments[0], arguments[4], arguments[0].num_val_batches)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start()

    def on_test_batch_end(self, *arguments: Any, **named: Any) -> None:
        self._show_batch("testing", arguments[0], arguments[4], arguments[0].num_test_batches)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stop()

    def _start(self) -> None:
        if self.is_enabled:
            self.display.start()

    def _stop(self) -> None:
        self.display.stop()

    def _is_due(self) -> bool:
        return self.display.is_shown and time.monotonic() - self.shown >= _EVERY

    def _show_batch(self, stage: str, trainer: Trainer, batch: int, batches: Any) -> None:
        if self._is_due() and not trainer.sanity_checking:
            of = sum(batches) if isinstance(batches, list) else batches
            self._show(f"{stage} {batch + 1}{f'/{of}' if math.isfinite(of) else ''}")

    def _show_training(self, trainer: Trainer) -> None:
        progress, now = self.progress, time.monotonic()
        progress.done = step_of(trainer)
        progress.counted, progress.seconds = progress.done - self.begun, now - self.since
        if now - self.read >= _METRICS_EVERY:
            self.read = now
            progress.metrics = [*rate_texts(trainer), *metric_texts(trainer)]
            progress.best = self._describe_best()
        self._show(epoch_text(trainer))

    def _describe_best(self) -> str:
        monitor, best = self.results.monitor, self.results.at_best
        if monitor is None or monitor not in best:
            return ""
        return f"best {monitor} {best[monitor]:.4g} after step {self.results.best_step}"

    def _show(self, stage: str) -> None:
        self.shown, self.progress.stage = time.monotonic(), stage
        self.display.refresh()


def _count_steps(trainer: Trainer) -> int | None:
    """The steps of the run; None if they are not known."""
    return plan_of(trainer).horizon.end

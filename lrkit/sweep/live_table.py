"""The running jobs of a sweep at the bottom of a terminal: how far each is, its metric, and the sweep as a whole."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from lrkit.base.duration_text import format_duration
from lrkit.base.files import open_regular_file
from lrkit.base.live_display import LiveDisplay
from lrkit.base.metric_names import higher_is_better, validation_loss_name
from lrkit.base.terminal_width import find_width, wrap_text
from lrkit.base.text_table import format_table
from lrkit.sweep.job import Job

__all__ = ["LiveTable", "read_epochs"]

_PER_SECOND = 2  # displays
_NUMBER = 10  # columns of a number: -1.234e-05
_TIME = 12  # columns of a time: 11 min 15 s
_STATE = 13  # columns of a state: epoch 100/100
_EPOCH = re.compile(r"^epoch (\S+)  step \d+  (.*)$", re.MULTILINE)


class LiveTable:
    """A context in which the running jobs are shown, if standard output is a terminal.

    Args:
        monitor: the metric of the sweep; ``auto``: the validation loss.
        summary: returns the line below the table.
    """

    def __init__(self, monitor: str, summary: Callable[[], str]) -> None:
        self.monitor, self.summary = monitor, summary
        self.running: dict[int, _RunningJob] = {}
        self.display = LiveDisplay(self.render, _PER_SECOND)

    def __enter__(self) -> LiveTable:
        if find_width() is not None:
            self.display.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.display.stop()

    @property
    def is_shown(self) -> bool:
        return self.display.is_shown

    def begin(self, job: Job) -> None:
        """Add a job that begins."""
        self.running[job.number] = _RunningJob(job, time.monotonic())

    def end(self, job: Job) -> None:
        """Remove a job that has ended."""
        self.running.pop(job.number, None)

    def render(self, width: int, height: int = 24) -> str:
        """Return the table of the running jobs, and the summary, as lines that fit ``width``."""
        now = time.monotonic()
        rows, names = [], set()
        for each in list(self.running.values())[: max(1, height - 4)]:
            state, name, value, best = each.describe(self.monitor)
            names.add(name)
            spent = f"{format_duration(now - each.since):>{_TIME}}"
            rows.append([str(each.job.number), _space_label(each.job.label), state, value, best, spent])
        metric = next(iter(names - {""}), "metric")
        columns = ["job", "running", "state", metric, "best", "time"]
        table = format_table(columns, rows, width, {"running", "state"}) if rows else ""
        return f"{table}\n{wrap_text(self.summary(), width)}".strip("\n")


def read_epochs(text: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the epoch and the metrics of each line of progress in a job's log.

    >>> list(read_epochs("epoch 1/2  step 38  lr 0.05  train/loss 0.6  val/loss 0.8\\n"))
    [('1/2', {'lr': 0.05, 'train/loss': 0.6, 'val/loss': 0.8})]
    """
    for epoch, rest in _EPOCH.findall(text):
        pairs = (part.rpartition(" ") for part in rest.split("  "))
        try:
            yield epoch, {name: float(value) for name, _, value in pairs}
        except ValueError:  # a line that is not finished, or one of the user's
            continue


@dataclass
class _RunningJob:
    """A running job, and what its log has said so far. Only the new lines are read."""

    job: Job
    since: float
    position: int = 0  # in the log, in bytes
    epochs: list[tuple[str, dict[str, float]]] = field(default_factory=list)

    def describe(self, monitor: str) -> tuple[str, str, str, str]:
        """The state, the name of the metric, its last and its best value."""
        self._read_log(self.job.folder / "job.log")
        if not self.epochs:
            return _pad("starts", "", "", "")
        epoch, metrics = self.epochs[-1]
        name = monitor if monitor in metrics else validation_loss_name(metrics)
        if name is None:
            return _pad(f"epoch {epoch}", "", "", "")
        values = [each[name] for _, each in self.epochs if name in each]
        best = max(values) if higher_is_better(name) else min(values)
        return _pad(f"epoch {epoch}", name, f"{values[-1]:.4g}", f"{best:.4g}")

    def _read_log(self, log: Path) -> None:
        try:
            with open_regular_file(log) as stream:
                if stream.seek(0, os.SEEK_END) < self.position:  # another log
                    self.position, self.epochs = 0, []
                stream.seek(self.position)
                new = stream.read()
        except OSError:
            return
        whole = new[: new.rfind(b"\n") + 1]  # the last line may not be finished
        self.position += len(whole)
        self.epochs += read_epochs(whole.decode(errors="replace"))


def _pad(state: str, name: str, value: str, best: str) -> tuple[str, str, str, str]:
    """Cells of a constant width, so that the columns stay in their places."""
    return f"{state:<{_STATE}}", name, f"{value:>{_NUMBER}}", f"{best:>{_NUMBER}}"


def _space_label(label: str) -> str:
    """A label that can break between overrides."""
    return re.sub(r",(?=[^,]+=)", ", ", label)

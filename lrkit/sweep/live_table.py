"""The running jobs of a sweep at the bottom of a terminal: how far each is, its metric, and the sweep as a whole."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from lrkit.base.duration_text import format_duration
from lrkit.base.files import read_file
from lrkit.base.metric_names import higher_is_better, validation_loss_name
from lrkit.base.terminal_width import find_width, wrap_text
from lrkit.base.text_table import format_table
from lrkit.sweep.job import Job

if TYPE_CHECKING:
    from rich.live import Live

__all__ = ["LiveTable", "read_epochs"]

_PER_SECOND = 2  # displays
_EPOCH = re.compile(r"^epoch (\S+)  step \d+  (.*)$", re.MULTILINE)


class LiveTable:
    """A context in which the running jobs are shown, if standard output is a terminal.

    Args:
        monitor: the metric of the sweep; ``auto``: the validation loss.
        summary: returns the line below the table.
    """

    def __init__(self, monitor: str, summary: Callable[[], str]) -> None:
        self.monitor, self.summary = monitor, summary
        self.running: dict[int, tuple[Job, float]] = {}
        self.live: Live | None = None

    def __enter__(self) -> LiveTable:
        if find_width() is not None:
            from rich.console import Console
            from rich.live import Live
            from rich.text import Text

            console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
            if console.is_terminal and not console.is_dumb_terminal:

                def render() -> Text:
                    shown = self.render(console.width, console.height)
                    return Text(shown, no_wrap=True, overflow="ignore")

                self.live = Live(console=console, refresh_per_second=_PER_SECOND, transient=True, get_renderable=render)
                self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    @property
    def is_shown(self) -> bool:
        return self.live is not None

    def begin(self, job: Job) -> None:
        """Add a job that begins."""
        self.running[job.number] = (job, time.monotonic())

    def end(self, job: Job) -> None:
        """Remove a job that has ended."""
        self.running.pop(job.number, None)

    def render(self, width: int, height: int = 24) -> str:
        """Return the table of the running jobs, and the summary, as lines that fit ``width``."""
        now = time.monotonic()
        rows, names = [], set()
        for job, since in list(self.running.values())[: max(1, height - 4)]:
            state, name, value, best = _describe_job(job.folder, self.monitor)
            names.add(name)
            rows.append([str(job.number), _space_label(job.label), state, value, best, format_duration(now - since)])
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


def _describe_job(folder: Path, monitor: str) -> tuple[str, str, str, str]:
    """The state of a running job, the name of its metric, its last and its best value."""
    try:
        epochs = list(read_epochs(read_file(folder / "job.log").decode(errors="replace")))
    except OSError:
        epochs = []
    if not epochs:
        return "starts", "", "", ""
    epoch, metrics = epochs[-1]
    name = monitor if monitor in metrics else validation_loss_name(metrics)
    if name is None:
        return f"epoch {epoch}", "", "", ""
    values = [each[name] for _, each in epochs if name in each]
    best = max(values) if higher_is_better(name) else min(values)
    return f"epoch {epoch}", name, f"{values[-1]:.4g}", f"{best:.4g}"


def _space_label(label: str) -> str:
    """A label that can break between overrides."""
    return re.sub(r",(?=[^,]+=)", ", ", label)

"""The progress of a sweep: a line for each job that has ended."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lrkit.base.metric_names import higher_is_better
from lrkit.base.process_pool import Outcome
from lrkit.sweep.job import ENDED, Job

__all__ = ["Progress"]


@dataclass
class Progress:
    """The counts of a running sweep.

    Args:
        missing: number of jobs to run.
        begun: number of these jobs that have begun.
        seconds: duration of each job that has ended, in seconds.
        best: best score so far (lower is better), and its description.
    """

    missing: int = 0
    begun: int = 0
    seconds: list[float] = field(default_factory=list)
    best: tuple[float, str] | None = None

    def remember(self, job: Job) -> None:
        """Update the best score with the result of a job."""
        result = job.result()
        monitor, value = _best_value(result)
        if result.get("status") not in ("done", "stopped") or value is None:
            return
        score = -value if higher_is_better(monitor) else value
        if math.isfinite(score) and (self.best is None or score < self.best[0]):
            self.best = (score, f"{monitor} {value:.4g} by {job.label}")

    def describe_end(self, job: Job, status: str, outcome: Outcome) -> str:
        """Return the line about a job that has ended: its status, its score and its time."""
        monitor, value = _best_value(job.result())
        score = "" if value is None else f", {monitor} {value:.4g}"
        return f"job {job.number} {job.label}: {status}{score}, {outcome.seconds:.1f} s"

    def summary(self, states: Sequence[Any], at_a_time: int) -> str:
        """Return the progress of the sweep: the number of jobs in each state, the best one, and the time that is left.

        Args:
            states: status of each job of the sweep.
            at_a_time: number of parallel jobs.
        """
        running, left = self.begun - len(self.seconds), self.missing - self.begun
        parts = [f"{sum(s in ENDED for s in states)} done"]
        parts += [f"{running} running"] if running else []
        lost = states.count("failed") + states.count("diverged")
        parts += [f"{lost} failed or diverged"] if lost else []
        parts += [f"{states.count('timeout')} timed out"] if "timeout" in states else []
        parts += [f"{left} to go"] if left else []
        parts += [f"best {self.best[1]}"] if self.best else []
        if left + running and self.seconds:
            each = sum(self.seconds) / len(self.seconds)
            parts.append(f"about {_describe_time(each * math.ceil((left + running) / at_a_time))} left")
        return "; ".join(parts)


def _best_value(result: Mapping[str, Any]) -> tuple[str, float | None]:
    """Return the monitored metric of a job and its best value."""
    monitor = result.get("monitor")
    value = (result.get("best") or {}).get(monitor)
    return str(monitor), value if isinstance(value, int | float) else None


def _describe_time(seconds: float) -> str:
    """Return a time in seconds, minutes or hours.

    >>> _describe_time(42), _describe_time(300), _describe_time(9000)
    ('42 s', '5 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

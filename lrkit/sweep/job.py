"""One job of a sweep: its overrides, its folder, its identity and its result."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError, RunError
from lrkit.base.files import read_file, read_json, write_json
from lrkit.base.run_files import METRICS
from lrkit.config.sweep_values import expand_jobs
from lrkit.runs.run_folders import find_runs

__all__ = [
    "DROPPED",
    "ENDED",
    "Job",
    "count_statuses",
    "folder_name",
    "job_identity",
    "last_words",
    "list_jobs",
    "read_mapping",
    "read_result",
    "write_failure",
]

#: The statuses of a job that a resumed sweep does not run again.
ENDED = ("done", "stopped", "diverged")
#: The status of a job that a race did not train in full.
DROPPED = "dropped"


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Args:
        number: index of the job, from 0.
        overrides: all overrides of the job.
        label: overrides that differ between jobs.
        folder: folder of the job.
    """

    number: int
    overrides: tuple[str, ...]
    label: str
    folder: Path

    def result(self) -> dict[str, Any]:
        """Return the content of the job's ``metrics.json``, or an empty dictionary."""
        return read_result(self.folder)


def list_jobs(overrides: Sequence[str], folder: Path, config_dir: str | None) -> Iterator[Job]:
    """Yield the jobs of a sweep: one for each combination of the swept values."""
    given = set(overrides)
    for number, chosen in enumerate(expand_jobs(overrides, config_dir)):
        label = ",".join(override for override in chosen if override not in given)
        yield Job(number, tuple(chosen), label or "the only one", folder / f"{number}_{folder_name(label)}".rstrip("_"))


def read_result(folder: Path) -> dict[str, Any]:
    """Return the content of ``metrics.json`` in a job's folder, or an empty dictionary."""
    return read_mapping(folder / METRICS)


def write_failure(folder: Path, status: str, why: str) -> None:
    """Write the status and the reason of a failure into ``metrics.json``, for a job that did not write them itself."""
    with suppress(RunError):  # on a full disk sweep.json, or at least the sweep's memory, has the status
        write_json(folder / METRICS, {**read_result(folder), "status": status, "why": why})


def count_statuses(folder: Path) -> Counter[str]:
    """Return status -> number of jobs in a sweep's folder; a job without a status counts as ``unfinished``."""
    try:
        jobs = find_runs([folder])
    except ConfigError:  # no job has begun
        return Counter()
    return Counter(str(read_result(job).get("status", "unfinished")) for job in jobs)


def job_identity(config: Mapping[str, Any]) -> str:
    """Return the identity of a job: a hash of its resolved config without the keys of the sweep.

    >>> job_identity({"a": 1, "b": {"c": 2}}) == job_identity({"b": {"c": 2}, "a": 1, "jobs": 4})
    True
    """
    matters = {
        key: value for key, value in config.items() if key not in ("jobs", "on_error", "timeout", "stack", "sweep")
    }
    text = json.dumps(matters, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder_name(text: str) -> str:
    """Return the name of a job's folder: its overrides without separators, shortened for the file system."""
    name = "".join(c if c.isalnum() or c in "=,.+-_%" else "-" for c in text)
    if len(name) <= 120:
        return name
    return f"{name[:110]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def read_mapping(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file; an empty dictionary if the file is missing or truncated."""
    content = read_json(file)
    return content if isinstance(content, dict) else {}


def last_words(folder: Path, lines: int = 3) -> str:
    """Return the last lines of a job's log, indented."""
    try:
        text = read_file(folder / "job.log").decode(errors="replace")
    except OSError:
        return _indent_lines("the job wrote no log")
    said = [line for line in text.splitlines() if line.strip()][-lines:]
    return _indent_lines("\n".join([*said, f"full log: {folder / 'job.log'}"]))


def _indent_lines(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())

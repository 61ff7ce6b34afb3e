"""One job of a sweep: what it overrides, its folder, its identity, and the result that it leaves."""

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
from lrkit.config.overrides import expand_jobs
from lrkit.runs.run_reader import find_runs

__all__ = [
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

#: How a job can have ended so that it is not run again.
ENDED = ("done", "stopped", "diverged")


@dataclass(frozen=True)
class Job:
    """One training of a sweep.

    Args:
        number: counted from 0.
        overrides: all of its overrides.
        label: those that differ between jobs.
        folder: its own.
    """

    number: int
    overrides: tuple[str, ...]
    label: str
    folder: Path

    def result(self) -> dict[str, Any]:
        """What it has left: ``metrics.json``, or nothing."""
        return read_result(self.folder)


def list_jobs(overrides: Sequence[str], folder: Path, config_dir: str | None) -> Iterator[Job]:
    """The jobs of a sweep: one for each combination of the swept values."""
    given = set(overrides)
    for number, chosen in enumerate(expand_jobs(overrides, config_dir)):
        label = ",".join(override for override in chosen if override not in given)
        yield Job(number, tuple(chosen), label or "the only one", folder / f"{number}_{folder_name(label)}".rstrip("_"))


def read_result(folder: Path) -> dict[str, Any]:
    """What a job has left in its folder: ``metrics.json``, or nothing."""
    return read_mapping(folder / "metrics.json")


def write_failure(folder: Path, status: str, why: str) -> None:
    """A job that wrote no result, or one that is not true, is given one that says how it ended."""
    with suppress(RunError):  # on a full disk the sweep itself knows it still
        write_json(folder / "metrics.json", {**read_result(folder), "status": status, "why": why})


def count_statuses(folder: Path) -> Counter[str]:
    """How the jobs in the folder of a sweep ended, as each says itself; of one that says nothing: ``unfinished``."""
    try:
        jobs = find_runs([folder])
    except ConfigError:  # none has begun
        return Counter()
    return Counter(str(read_result(job).get("status", "unfinished")) for job in jobs)


def job_identity(config: Mapping[str, Any]) -> str:
    """The identity of a job: a hash of its resolved config, but for how the sweep is run.

    >>> job_identity({"a": 1, "b": {"c": 2}}) == job_identity({"b": {"c": 2}, "a": 1, "jobs": 4})
    True
    """
    matters = {key: value for key, value in config.items() if key not in ("jobs", "on_error", "timeout")}
    text = json.dumps(matters, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder_name(text: str) -> str:
    """A folder's name for a job: what it overrides, without separators, and not too long for a file system."""
    name = "".join(c if c.isalnum() or c in "=,.+-_%" else "-" for c in text)
    if len(name) <= 120:
        return name
    return f"{name[:110]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def read_mapping(file: Path) -> dict[str, Any]:
    """What a file of JSON says; nothing where it is not there, or cut off."""
    content = read_json(file)
    return content if isinstance(content, dict) else {}


def last_words(folder: Path, lines: int = 3) -> str:
    """The end of a job's log: what it said before it failed, indented."""
    try:
        text = read_file(folder / "job.log").decode(errors="replace")
    except OSError:
        return _indented("it left no log")
    said = [line for line in text.splitlines() if line.strip()][-lines:]
    return _indented("\n".join([*said, f"all of it: {folder / 'job.log'}"]))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())

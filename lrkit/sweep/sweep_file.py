"""The content of ``sweep.json`` in a sweep's folder: the command, and the status of each job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrkit.base.run_files import SWEEP
from lrkit.config.sweep_values import expand_jobs
from lrkit.sweep.job import DROPPED, ENDED, read_mapping

__all__ = ["find_unfinished", "is_complete", "next_serial", "read_sweep_file", "serial_of", "states_of"]


def read_sweep_file(folder: Path) -> dict[str, Any]:
    """Return the content of ``sweep.json`` in a folder; an empty dictionary if it is missing or truncated."""
    return read_mapping(folder / SWEEP)


def serial_of(written: Mapping[str, Any]) -> int:
    """Return the serial number of a sweep among those of one parent folder, from 1; 0 if its file has none."""
    serial = written.get("serial")
    return serial if type(serial) is int and 0 < serial < 10**9 else 0


def states_of(written: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return folder name of a job -> its record; an empty dictionary if the file has no such records."""
    jobs = written.get("jobs")
    return {name: job for name, job in jobs.items() if isinstance(job, dict)} if isinstance(jobs, dict) else {}


def next_serial(folder: Path) -> int:
    """Return the serial number of a new sweep in ``folder``: the highest one of its parent folder plus 1."""
    others = [other for other in folder.parent.glob("*") if other != folder and other.is_dir()]
    return 1 + max(map(serial_of, map(read_sweep_file, others)), default=0)


def is_complete(folder: Path, overrides: Sequence[str], jobs: int) -> bool:
    """Return whether a folder has a sweep with exactly this command whose ``jobs`` jobs have all ended."""
    written = read_sweep_file(folder)
    states = [job.get("status") for job in states_of(written).values()]
    ended = len(states) == jobs and all(status in (*ENDED, DROPPED) for status in states)
    return ended and written.get("overrides") == list(overrides)


def find_unfinished(overrides: Sequence[str], parent: Path, config_dir: str | None = None) -> Path | None:
    """Return the folder of the newest sweep with exactly this command, if it has unfinished jobs; else None.

    The newest sweep has the highest serial number. Names and times depend on a clock, which may have been set back.
    """
    found = [(folder, read_sweep_file(folder)) for folder in parent.glob("*") if folder.is_dir()]
    for folder, written in sorted(found, key=lambda each: (serial_of(each[1]), each[0].name), reverse=True):
        if written.get("overrides") == list(overrides):
            return None if is_complete(folder, overrides, len(expand_jobs(overrides, config_dir))) else folder
    return None

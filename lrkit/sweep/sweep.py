"""A sweep: every combination of the swept values is a job; finished ones are kept, and the rest goes on.

The sweep's folder has a folder for each job, and ``sweep.json``: the command, and for each job its identity (a hash of
its resolved config), its folder and how it ended. The same command again goes on with the newest sweep of its kind
that is not finished: what is done is skipped, what was interrupted goes on from its last checkpoint, the rest is run.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrkit.base import tensorboard
from lrkit.base.errors import ConfigError, RunError
from lrkit.base.exit_codes import INTERRUPTED, signal_exit_code
from lrkit.base.files import read_file, read_json, write_json
from lrkit.base.metric_names import higher_is_better
from lrkit.base.process_pool import Outcome, Slots, available_slots, run_jobs
from lrkit.base.signals import ASKING
from lrkit.config import compose as configs
from lrkit.config import timeout
from lrkit.config.overrides import expand_jobs
from lrkit.runs.run_reader import SWEEP, find_runs

__all__ = [
    "ENDED",
    "Job",
    "Sweep",
    "apply_preset",
    "count_statuses",
    "find_unfinished",
    "folder_name",
    "job_identity",
    "quote_value",
    "read_result",
    "write_failure",
]  # fmt: skip

#: How a job can have ended so that it is not run again.
ENDED = ("done", "stopped", "diverged")

#: Exit codes of jobs that were asked to end: those of a shell, and of a process that had no time to take care of it.
ASKED = (INTERRUPTED, *(signal_exit_code(signum) for signum in ASKING), *(-signum for signum in ASKING))

Say = Callable[[str], None]


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


def read_result(folder: Path) -> dict[str, Any]:
    """What a job has left in its folder: ``metrics.json``, or nothing."""
    return _mapping(folder / "metrics.json")


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


class Sweep:
    """A sweep in its folder.

    Args:
        overrides: of the command line, with several values where they are swept.
        folder: where it goes, or has gone.
        config_dir: the folder of the user's own configs.
    """

    def __init__(self, overrides: Sequence[str], folder: Path, config_dir: str | None = None) -> None:
        self.overrides, self.folder, self.config_dir = list(overrides), folder, config_dir
        self.jobs = list(_jobs(overrides, folder, config_dir))
        self.first = configs.compose(self.jobs[0].overrides, config_dir)
        written = _mapping(folder / SWEEP)
        self.state = _states(written)
        self.serial = _serial(written) or 1 + max(map(_serial, map(_written, _siblings(folder))), default=0)
        self.missing = self.begun = 0
        self.seconds: list[float] = []
        self.best: tuple[float, str] | None = None

    def run(self, work: Callable[..., int], say: Say) -> dict[str, int]:
        """Run what is missing; how many jobs ended in which way.

        Args:
            work: what a job's process runs, with the words of the command line and the folder of the user's configs.
        """
        at_a_time = self._slots()
        missing = [job for job in self.jobs if not self._finished(job)]
        for job in self.jobs:
            if job not in missing and self.state[job.folder.name].get("status") == "running":  # killed just then
                self._note(job, str(job.result()["status"]))
        self._check_free(missing)
        self._write()  # from here on, the same command goes on in this folder, whenever somebody ends us
        self.missing = len(missing)
        for job in self.jobs:
            self._remember(job)
        if skipped := len(self.jobs) - len(missing):
            say(f"going on in {self.folder}: {skipped} of {len(self.jobs)} jobs are done")
        together = min(at_a_time.count, max(len(missing), 1))
        say(f"{len(missing)} jobs, {together} at a time; each writes job.log in its folder in {self.folder}")
        self._for_tensorboard()
        stop = self.first["on_error"] == "stop"

        def begin(i: int) -> tuple[list[str], str | None]:
            words = self._prepared(missing[i])
            self.begun += 1
            self._note(missing[i], "running")
            return words, self.config_dir

        def ended(i: int, outcome: Outcome) -> bool:
            status = self._ended(missing[i], outcome)
            say(self._line(missing[i], status, outcome, at_a_time.count))
            if status == "failed":
                say(_indented(_last_words(missing[i].folder)))
            return not (stop and status in ("failed", "timeout"))

        logs, longest = [job.folder / "job.log" for job in missing], timeout.seconds(self.first.get("timeout"))
        run_jobs(work, logs, at_a_time, begin=begin, ended=ended, timeout=longest)
        self._for_tensorboard()
        return Counter(self.state.get(job.folder.name, {}).get("status", "waiting") for job in self.jobs)

    def _for_tensorboard(self) -> None:
        """What the sweep's folder says to TensorBoard about all of its jobs; of their metrics once there are some."""
        differing = [override for override in self.jobs[0].overrides if override not in self.overrides]
        swept = [override.partition("=")[0].lstrip("+") for override in differing]
        results = [job.result() for job in self.jobs]
        names = [f"best {result['monitor']}" for result in results if result.get("monitor")]
        names += [f"final {name}" for result in results for name in result.get("final") or {}]
        for file in self.folder.glob(f"events.out.tfevents.*{tensorboard.OURS}"):  # of before; others may be the user's
            file.unlink()
        tags = [f"result/{name}" for name in dict.fromkeys(names)]
        tensorboard.write_summaries(
            self.folder, tensorboard.layout_summary(), *([tensorboard.hparams_summary(swept, tags)] if tags else [])
        )

    def _slots(self) -> Slots:
        trainer = self.first["trainer"]
        return available_slots(self.first["jobs"], configs.world_of(trainer)[0], str(trainer.get("accelerator")))

    def _finished(self, job: Job) -> bool:
        """Whether a job has ended before, by the very config that it has now: its own result says so.

        That we have taken it down is not needed: whoever kills us may do so between the two.
        """
        before = self.state.get(job.folder.name)
        if before is None or before.get("status") not in (*ENDED, "running"):
            return False
        if job.result().get("status") not in ENDED:
            return False
        return bool(before.get("id") == job_identity(configs.compose(job.overrides, self.config_dir)))

    def _check_free(self, missing: Sequence[Job]) -> None:
        """Refuse to begin where the folder of a job holds something that this sweep did not leave there unfinished."""
        for job in missing:
            before = self.state.get(job.folder.name)
            unknown = before is None and job.folder.is_dir() and any(job.folder.iterdir())
            ended = before is not None and job.result().get("status") in ENDED  # by another config, or it were skipped
            if unknown or ended:
                must = f"must be a folder of its own: {job.folder.name} in it is of another sweep"
                raise ConfigError("hydra.sweep.dir", must, str(self.folder))

    def _prepared(self, job: Job) -> list[str]:
        """The words of a job's command line, and its folder made ready."""
        words = [*job.overrides, f"hydra.run.dir={quote_value(str(job.folder))}"]
        before = self.state.get(job.folder.name, {})
        now = job_identity(configs.compose(job.overrides, self.config_dir))
        interrupted = job.result().get("status") not in ENDED and before.get("status") != "failed"
        if before.get("id") == now and interrupted and (job.folder / "checkpoints" / "last.ckpt").is_file():
            return [*words, f"resume.path={quote_value(str(job.folder))}", "hydra.output_subdir=null"]
        if before and job.folder.is_dir():
            shutil.rmtree(job.folder)  # what a job has begun, and cannot be gone on with
        job.folder.mkdir(parents=True, exist_ok=True)
        self.state[job.folder.name] = {"id": now, "overrides": list(job.overrides)}
        return words

    def _note(self, job: Job, status: str, **more: Any) -> None:
        """Take down how a job stands."""
        self.state[job.folder.name] = {**self.state.get(job.folder.name, {}), "status": status, **more}
        self._write()

    def _write(self) -> None:
        """What is known of the sweep, into its folder; the file is replaced in one piece."""
        about = {"overrides": self.overrides, "config_dir": self.config_dir, "serial": self.serial}
        write_json(self.folder / SWEEP, {**about, "jobs": self.state})

    def _ended(self, job: Job, outcome: Outcome) -> str:
        status = str(job.result().get("status", "failed"))
        if outcome.timed_out and outcome.code not in (0, 3):  # else it ended just then
            write_failure(job.folder, "timeout", f"it took longer than timeout={self.first['timeout']}")
            status = "timeout"
        elif outcome.code in ASKED:
            if status not in ("preempted", "interrupted"):  # else it says itself where it was
                write_failure(job.folder, "interrupted", _why(outcome.code))
            status = "interrupted"
        elif outcome.code not in (0, 3) or status == "running":
            if status != "failed" or "why" not in job.result():
                write_failure(job.folder, "failed", _why(outcome.code))
            status = "failed"
        self._remember(job)
        self.seconds.append(outcome.seconds)
        self._note(job, status, seconds=round(outcome.seconds, 3))
        return status

    def _line(self, job: Job, status: str, outcome: Outcome, at_a_time: int) -> str:
        """One line when a job has ended: how, and how the sweep stands."""
        monitor, value = _best(job.result())
        score = "" if value is None else f", {monitor} {value:.4g}"
        states = [each.get("status") for each in self.state.values()]
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
            parts.append(f"about {_told(each * math.ceil((left + running) / at_a_time))} left")
        return f"job {job.number} {job.label}: {status}{score}, {outcome.seconds:.1f} s   [{'; '.join(parts)}]"

    def _remember(self, job: Job) -> None:
        """Keep the best so far."""
        result = job.result()
        monitor, value = _best(result)
        if result.get("status") not in ("done", "stopped") or value is None:
            return
        score = -value if higher_is_better(monitor) else value
        if math.isfinite(score) and (self.best is None or score < self.best[0]):
            self.best = (score, f"{monitor} {value:.4g} by {job.label}")


def _why(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _best(result: Mapping[str, Any]) -> tuple[str, float | None]:
    """The monitored metric of a job, and the best that it had."""
    monitor = result.get("monitor")
    value = (result.get("best") or {}).get(monitor)
    return str(monitor), value if isinstance(value, int | float) else None


def apply_preset(overrides: Sequence[str], config_dir: str | None) -> list[str]:
    """The overrides with what ``+sweep=NAME`` sweeps; what the command line says itself wins."""
    if not any(override.startswith("+sweep=") for override in overrides):
        return list(overrides)
    return configs.sweep_of_files(overrides, config_dir).words


def find_unfinished(overrides: Sequence[str], parent: Path, config_dir: str | None = None) -> Path | None:
    """The newest sweep of this very command that still has something to do.

    Which is the newest is counted: names and times go by a clock, and that may have been set back.
    """
    found = [(folder, _written(folder)) for folder in parent.glob("*") if folder.is_dir()]
    for folder, written in sorted(found, key=lambda each: (_serial(each[1]), each[0].name), reverse=True):
        if written.get("overrides") != list(overrides):
            continue
        states = [job.get("status") for job in _states(written).values()]
        complete = len(states) == len(expand_jobs(overrides, config_dir))
        return None if states and all(status in ENDED for status in states) and complete else folder
    return None


def _siblings(folder: Path) -> list[Path]:
    return [other for other in folder.parent.glob("*") if other != folder and other.is_dir()]


def _written(folder: Path) -> dict[str, Any]:
    return _mapping(folder / SWEEP)


def _serial(written: Mapping[str, Any]) -> int:
    """Which sweep it is of those in a folder, counted from 1; 0 where its file does not say so."""
    serial = written.get("serial")
    return serial if type(serial) is int and 0 < serial < 10**9 else 0


def _states(written: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """How the jobs stand, by their folders; of a file that says something else, nothing."""
    jobs = written.get("jobs")
    return {name: job for name, job in jobs.items() if isinstance(job, dict)} if isinstance(jobs, dict) else {}


def _jobs(overrides: Sequence[str], folder: Path, config_dir: str | None) -> Iterator[Job]:
    given = set(overrides)
    for number, chosen in enumerate(expand_jobs(overrides, config_dir)):
        label = ",".join(override for override in chosen if override not in given)
        yield Job(number, tuple(chosen), label or "the only one", folder / f"{number}_{folder_name(label)}".rstrip("_"))


def folder_name(text: str) -> str:
    """A folder's name for a job: what it overrides, without separators, and not too long for a file system."""
    name = "".join(c if c.isalnum() or c in "=,.+-_%" else "-" for c in text)
    if len(name) <= 120:
        return name
    return f"{name[:110]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _mapping(file: Path) -> dict[str, Any]:
    """What a file of JSON says; nothing where it is not there, or cut off."""
    content = read_json(file)
    return content if isinstance(content, dict) else {}


def write_failure(folder: Path, status: str, why: str) -> None:
    """A job that wrote no result, or one that is not true, is given one that says how it ended."""
    with suppress(RunError):  # on a full disk the sweep itself knows it still
        write_json(folder / "metrics.json", {**read_result(folder), "status": status, "why": why})


def _last_words(folder: Path, lines: int = 3) -> str:
    """The end of a job's log: what it said before it failed."""
    try:
        text = read_file(folder / "job.log").decode(errors="replace")
    except OSError:
        return "it left no log"
    said = [line for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join([*said, f"all of it: {folder / 'job.log'}"])


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def quote_value(text: str) -> str:
    """A value for a command line of Hydra's."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _told(seconds: float) -> str:
    """A time in words.

    >>> _told(42), _told(300), _told(9000)
    ('42 s', '5 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

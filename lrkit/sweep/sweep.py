"""A sweep: one job for each combination of the swept values. A repeated command resumes the sweep.

The sweep's folder has a folder for each job, and ``sweep.json`` with the command and, for each job, its identity (a
hash of its resolved config), its overrides and its status. The same command again resumes the newest unfinished sweep
with this command: it skips finished jobs, resumes interrupted jobs from their last checkpoint, and runs the others.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lrkit.base.errors import ConfigError
from lrkit.base.exit_codes import INTERRUPTED, signal_exit_code
from lrkit.base.files import write_json
from lrkit.base.process_pool import Outcome, Slots, available_slots, run_jobs
from lrkit.base.run_files import CHECKPOINTS, LAST, SWEEP
from lrkit.base.signals import STOP_SIGNALS
from lrkit.base.tensorboard_summaries import LRKIT_SUFFIX, hparams_summary, layout_summary, write_summaries
from lrkit.config import compose as configs
from lrkit.config import timeout
from lrkit.config.config_file import split_config_file
from lrkit.config.swept_config import sweep_of_files
from lrkit.sweep.job import ENDED, Job, job_identity, last_words, list_jobs, write_failure
from lrkit.sweep.live_table import LiveTable
from lrkit.sweep.preloading import list_preloaded
from lrkit.sweep.progress import Progress
from lrkit.sweep.stacks import form_units, seconds_to_save
from lrkit.sweep.sweep_file import next_serial, read_sweep_file, serial_of, states_of

__all__ = ["Sweep", "apply_preset", "quote_value"]

#: Exit codes of jobs that a signal stopped: 128 + its number, or its negative number if the job had no handler.
SIGNAL_CODES = (INTERRUPTED, *map(signal_exit_code, STOP_SIGNALS), *(-signum for signum in STOP_SIGNALS))

Say = Callable[[str], None]


class Sweep:
    """A sweep in its folder.

    Args:
        overrides: overrides of the command line, with several values for each swept key.
        folder: folder of the sweep; it may contain the jobs of an interrupted sweep.
        config_dir: folder of the user's own configs.
        jobs: its jobs; None: one for each combination of the values.
    """

    def __init__(
        self,
        overrides: Sequence[str],
        folder: Path,
        config_dir: str | None = None,
        jobs: Sequence[Job] | None = None,
    ) -> None:
        self.overrides, self.folder, self.config_dir = list(overrides), folder, config_dir
        self.jobs = list(list_jobs(overrides, folder, config_dir) if jobs is None else jobs)
        self._stacked: set[int] = set()  # numbers of the jobs that run in a stack
        self.first = configs.compose(self.jobs[0].overrides, config_dir)
        written = read_sweep_file(folder)
        self.state = states_of(written)
        self.serial = serial_of(written) or next_serial(folder)
        self.progress = Progress()
        self.composed: dict[int, tuple[dict[str, Any], DictConfig | None]] = {}

    def run(self, work: Callable[..., int], say: Say) -> dict[str, int]:
        """Run the unfinished jobs; return status -> number of jobs.

        Args:
            work: function for a job's process, called with the words of its command line, ``config_dir``, and the
                config as Hydra composed it (None for a saved config).
            say: prints a line.
        """
        at_a_time = self._find_slots()
        missing = [job for job in self.jobs if not self._is_finished(job)]
        self._record_killed([job for job in self.jobs if job not in missing])
        self._check_folders(missing)
        self.write_state()  # from here on, the same command resumes in this folder, even after a crash
        self._announce(missing, at_a_time, say)
        self._write_tensorboard_summaries()
        stop = self.first["on_error"] == "stop"
        units = self._form_units(missing, at_a_time, say)

        def summarise() -> str:
            states = [each.get("status") for each in list(self.state.values())]
            return self.progress.summary(states, at_a_time.count)

        table = LiveTable(str(self.first["monitor"]), summarise)

        def begin(i: int) -> tuple[Any, ...]:
            prepared = [self._prepare_job(job) for job in units[i]]
            for job in units[i]:
                self.progress.begun += 1
                self._record_status(job, "running")
                table.begin(job)
            words, composed = prepared[0]
            return (words, self.config_dir, composed) if len(prepared) == 1 else (prepared, self.config_dir)

        def ended(i: int, outcome: Outcome) -> bool:
            statuses = [end_job(job, replace(outcome, seconds=outcome.seconds / len(units[i]))) for job in units[i]]
            if "failed" in statuses:
                say(last_words(units[i][statuses.index("failed")].folder))
            return not (stop and {"failed", "timeout"} & {*statuses})

        def end_job(job: Job, outcome: Outcome) -> str:
            status = self._record_end(job, outcome)
            table.end(job)
            line = self.progress.describe_end(job, status, outcome)
            say(line if table.is_shown else f"{line}   [{summarise()}]")
            return status

        logs, longest = [unit[0].folder / "job.log" for unit in units], timeout.seconds(self.first.get("timeout"))
        with table:
            run_jobs(
                work, logs, at_a_time, begin=begin, ended=ended, timeout=longest,
                preload=list_preloaded({word for job in missing for word in job.overrides}, self.config_dir),
                ahead=lambda i: [self._compose_job(job) for job in units[i]],
                patience=lambda i: seconds_to_save(len(units[i])),
            )  # fmt: skip
        self._write_tensorboard_summaries()
        return Counter(self.state.get(job.folder.name, {}).get("status", "waiting") for job in self.jobs)

    def _record_killed(self, ended: Sequence[Job]) -> None:
        """Record the status of ended jobs whose sweep was killed before it could."""
        for job in ended:
            if self.state[job.folder.name].get("status") == "running":
                self._record_status(job, str(job.result()["status"]))

    def _announce(self, missing: Sequence[Job], at_a_time: Slots, say: Say) -> None:
        """Say how many jobs are done, and how many begin."""
        self.progress.missing = len(missing)
        for job in self.jobs:
            self.progress.remember(job)
        if skipped := len(self.jobs) - len(missing):
            say(f"resuming {self.folder}: {skipped} of {len(self.jobs)} jobs are done")
        together = min(at_a_time.count, max(len(missing), 1))
        jobs = "1 job" if len(missing) == 1 else f"{len(missing)} jobs, {together} at a time"
        say(f"{jobs}; each writes job.log in its folder in {self.folder}")

    def _form_units(self, missing: Sequence[Job], at_a_time: Slots, say: Say) -> list[list[Job]]:
        """Return the jobs of each process: one, or those of a stack."""
        units, notes = form_units(missing, self._plain_config, self._why_alone, at_a_time.count)
        self._stacked = {job.number for unit in units if len(unit) > 1 for job in unit}
        for note in notes:
            say(note)
        return units

    def _write_tensorboard_summaries(self) -> None:
        """Write TensorBoard's layout into the sweep's folder, and the hyperparameters once a job has metrics."""
        differing = [override for override in self.jobs[0].overrides if override not in self.overrides]
        swept = [override.partition("=")[0].lstrip("+") for override in differing]
        results = [job.result() for job in self.jobs]
        names = [f"best {result['monitor']}" for result in results if result.get("monitor")]
        names += [f"final {name}" for result in results for name in result.get("final") or {}]
        for file in self.folder.glob(f"events.out.tfevents.*{LRKIT_SUFFIX}"):  # not the user's files
            file.unlink()
        tags = [f"result/{name}" for name in dict.fromkeys(names)]
        write_summaries(self.folder, layout_summary(), *([hparams_summary(swept, tags)] if tags else []))

    def _find_slots(self) -> Slots:
        trainer = self.first["trainer"]
        return available_slots(self.first["jobs"], configs.world_of(trainer)[0], str(trainer.get("accelerator")))

    def _is_finished(self, job: Job) -> bool:
        """Return whether a job has ended with the same config, by its own result.

        ``sweep.json`` may still say ``running``: a kill may come between the job's result and the sweep's record.
        """
        before = self.state.get(job.folder.name)
        if before is None or before.get("status") not in (*ENDED, "running"):
            return False
        if job.result().get("status") not in ENDED:
            return False
        return bool(before.get("id") == job_identity(configs.compose(job.overrides, self.config_dir)))

    def _check_folders(self, missing: Sequence[Job]) -> None:
        """Refuse a job's folder that has files of another sweep, or a finished job of another config."""
        for job in missing:
            before = self.state.get(job.folder.name)
            unknown = before is None and job.folder.is_dir() and any(job.folder.iterdir())
            ended = before is not None and job.result().get("status") in ENDED  # of another config
            if unknown or ended:
                must = f"must be a folder without another sweep: its {job.folder.name} belongs to one"
                raise ConfigError("hydra.sweep.dir", must, str(self.folder))

    def _compose_job(self, job: Job) -> tuple[dict[str, Any], DictConfig | None]:
        """Return a job's config, plain and as Hydra composed it; it is composed once, perhaps before a slot is free."""
        if job.number not in self.composed:
            self.composed[job.number] = configs.compose_with_hydra(_list_words(job), self.config_dir)
        return self.composed[job.number]

    def _plain_config(self, job: Job) -> dict[str, Any]:
        return self._compose_job(job)[0]

    def _prepare_job(self, job: Job) -> tuple[list[str], DictConfig | None]:
        """Prepare a job's folder, and return the words of its command line, and what Hydra composes of them."""
        words, (config, composed) = _list_words(job), self._compose_job(job)
        del self.composed[job.number]
        before = self.state.get(job.folder.name, {})
        if self._resumes(job, config):
            own = split_config_file(words)[1]  # the job goes on with its own config
            return [*own, f"resume.path={quote_value(str(job.folder))}", "hydra.output_subdir=null"], None
        if before and job.folder.is_dir():
            shutil.rmtree(job.folder)  # an unfinished job that cannot be resumed
        job.folder.mkdir(parents=True, exist_ok=True)
        self.state[job.folder.name] = {"id": job_identity(config), "overrides": list(job.overrides)}
        return words, composed

    def _resumes(self, job: Job, config: Mapping[str, Any]) -> bool:
        """Return whether a job was interrupted, and goes on from its last checkpoint."""
        before = self.state.get(job.folder.name, {})
        interrupted = job.result().get("status") not in ENDED and before.get("status") != "failed"
        if not interrupted or not (job.folder / CHECKPOINTS / LAST).is_file():
            return False
        return bool(before.get("id") == job_identity(config))

    def _why_alone(self, job: Job, config: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return the key that gives a job a process of its own, with the reason; None if there is none."""
        if self._resumes(job, config):
            return "resume", "it goes on from its checkpoint"
        return ("--config", "the config of a file") if self._compose_job(job)[1] is None else None

    def _record_status(self, job: Job, status: str, **more: Any) -> None:
        """Record the status of a job in ``sweep.json``."""
        self.state[job.folder.name] = {**self.state.get(job.folder.name, {}), "status": status, **more}
        self.write_state()

    def write_state(self) -> None:
        """Write ``sweep.json`` atomically."""
        about = {"overrides": self.overrides, "config_dir": self.config_dir, "serial": self.serial}
        write_json(self.folder / SWEEP, {**about, "jobs": self.state})

    def _record_end(self, job: Job, outcome: Outcome) -> str:
        """Record the end of a job in its ``metrics.json`` and in ``sweep.json``, and return its status."""
        status = str(job.result().get("status", "failed"))
        if status in ENDED and job.number in self._stacked:
            pass  # it has ended, whatever happened to other jobs of its stack
        elif outcome.timed_out and outcome.code not in (0, 3):  # else it ended at the time limit
            write_failure(job.folder, "timeout", f"it took longer than timeout={self.first['timeout']}")
            status = "timeout"
        elif outcome.code in SIGNAL_CODES:
            if status not in ("preempted", "interrupted"):  # else the job has recorded it
                write_failure(job.folder, "interrupted", _describe_exit(outcome.code))
            status = "interrupted"
        elif outcome.code not in (0, 3) or status == "running":
            if status != "failed" or "why" not in job.result():
                write_failure(job.folder, "failed", _describe_exit(outcome.code))
            status = "failed"
        self.progress.remember(job)
        self.progress.seconds.append(outcome.seconds)
        self._record_status(job, status, seconds=round(outcome.seconds, 3))
        return status


def _list_words(job: Job) -> list[str]:
    """Return the overrides of a job with that of its folder."""
    return [*job.overrides, f"hydra.run.dir={quote_value(str(job.folder))}"]


def _describe_exit(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def apply_preset(overrides: Sequence[str], config_dir: str | None) -> list[str]:
    """Return the overrides with those of the preset ``+sweep=NAME``; the command line takes precedence."""
    if not any(override.startswith("+sweep=") for override in overrides):
        return list(overrides)
    return sweep_of_files(overrides, config_dir).words


def quote_value(text: str) -> str:
    """Return a value, quoted for Hydra's override grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

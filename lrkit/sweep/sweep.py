"""A sweep: every combination of the swept values is a job; finished ones are kept, and the rest goes on.

The sweep's folder has a folder for each job, and ``sweep.json``: the command, and for each job its identity (a hash of
its resolved config), its folder and how it ended. The same command again goes on with the newest sweep of its kind
that is not finished: what is done is skipped, what was interrupted goes on from its last checkpoint, the rest is run.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lrkit.base import tensorboard
from lrkit.base.errors import ConfigError
from lrkit.base.exit_codes import INTERRUPTED, signal_exit_code
from lrkit.base.files import write_json
from lrkit.base.process_pool import Outcome, Slots, available_slots, run_jobs
from lrkit.base.signals import ASKING
from lrkit.config import compose as configs
from lrkit.config import timeout
from lrkit.runs.run_reader import SWEEP
from lrkit.sweep.job import ENDED, Job, job_identity, last_words, list_jobs, write_failure
from lrkit.sweep.progress import Progress
from lrkit.sweep.sweep_file import next_serial, read_sweep_file, serial_of, states_of

__all__ = ["Sweep", "apply_preset", "quote_value"]

#: Exit codes of jobs that were asked to end: those of a shell, and of a process that had no time to take care of it.
ASKED = (INTERRUPTED, *(signal_exit_code(signum) for signum in ASKING), *(-signum for signum in ASKING))

Say = Callable[[str], None]


class Sweep:
    """A sweep in its folder.

    Args:
        overrides: of the command line, with several values where they are swept.
        folder: where it goes, or has gone.
        config_dir: the folder of the user's own configs.
    """

    def __init__(self, overrides: Sequence[str], folder: Path, config_dir: str | None = None) -> None:
        self.overrides, self.folder, self.config_dir = list(overrides), folder, config_dir
        self.jobs = list(list_jobs(overrides, folder, config_dir))
        self.first = configs.compose(self.jobs[0].overrides, config_dir)
        written = read_sweep_file(folder)
        self.state = states_of(written)
        self.serial = serial_of(written) or next_serial(folder)
        self.progress = Progress()

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
        self.progress.missing = len(missing)
        for job in self.jobs:
            self.progress.remember(job)
        if skipped := len(self.jobs) - len(missing):
            say(f"going on in {self.folder}: {skipped} of {len(self.jobs)} jobs are done")
        together = min(at_a_time.count, max(len(missing), 1))
        say(f"{len(missing)} jobs, {together} at a time; each writes job.log in its folder in {self.folder}")
        self._for_tensorboard()
        stop = self.first["on_error"] == "stop"

        def begin(i: int) -> tuple[list[str], str | None]:
            words = self._prepared(missing[i])
            self.progress.begun += 1
            self._note(missing[i], "running")
            return words, self.config_dir

        def ended(i: int, outcome: Outcome) -> bool:
            status = self._ended(missing[i], outcome)
            states = [each.get("status") for each in self.state.values()]
            say(self.progress.line(missing[i], status, outcome, states, at_a_time.count))
            if status == "failed":
                say(last_words(missing[i].folder))
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
        self.progress.remember(job)
        self.progress.seconds.append(outcome.seconds)
        self._note(job, status, seconds=round(outcome.seconds, 3))
        return status


def _why(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def apply_preset(overrides: Sequence[str], config_dir: str | None) -> list[str]:
    """The overrides with what ``+sweep=NAME`` sweeps; what the command line says itself wins."""
    if not any(override.startswith("+sweep=") for override in overrides):
        return list(overrides)
    return configs.sweep_of_files(overrides, config_dir).words


def quote_value(text: str) -> str:
    """A value for a command line of Hydra's."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

"""The jobs of a stack, in one process: trained together, then written one after the other, each in its own folder."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrkit.base import command_line, error_report
from lrkit.base.errors import ConfigError, RunError
from lrkit.base.exit_codes import DIVERGED, OK
from lrkit.base.files import open_to_append
from lrkit.base.signals import Terminated
from lrkit.cli.hydra_call import refuse_hydra_errors, run_composed

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lrkit.training.stacked_runs import StackedRun

__all__ = ["train_stack_of_jobs"]


def train_stack_of_jobs(jobs: Sequence[tuple[list[str], DictConfig]], config_dir: str | None) -> int:
    """Train the jobs of a stack in this process; return the exit code.

    A job that fails while it is written has its reason in its own folder, and the others are written too.

    Args:
        jobs: for each job the words of its command line, with its folder, and the config that Hydra composed of them.
        config_dir: folder of the user's own configs.

    Raises:
        Terminated, KeyboardInterrupt: a signal ended the stack; each job has saved its state.
    """
    from lrkit.config.instantiate import use_lightning
    from lrkit.sweep.hydra_job import resolve_job
    from lrkit.sweep.job import write_failure

    members: list[tuple[dict[str, Any], Path]] = []
    for _, composed in jobs:
        with refuse_hydra_errors():
            run_composed(composed, config_dir, lambda config: members.append(resolve_job(config)))
    use_lightning(members[0][0])
    from lrkit.training.run import run_training
    from lrkit.training.stacked_runs import train_stacked_runs

    statuses: list[str] = []

    def write(i: int, run: StackedRun) -> None:
        folder, own = members[i][1], [] if config_dir is None else ["--config-dir", config_dir]
        words = command_line.command_line_of(["train", *own, *jobs[i][0]])
        with open_to_append(folder / "job.log") as log, redirect_stdout(log), redirect_stderr(log), words:
            try:
                statuses.append(run_training(run.config, folder, data=run.data, recorded=run.recorded).status)
            except (Terminated, KeyboardInterrupt) as ended:
                log.write(f"lrkit: {ended}\n")
            except Exception as error:
                if not isinstance(error, ConfigError | RunError):
                    log.write(traceback.format_exc())
                log.write(f"lrkit: {error_report.describe_error(error)}\n")
                write_failure(folder, "failed", f"{type(error).__name__}: {error}")

    signum = train_stacked_runs([config for config, _ in members], write)
    sys.stdout.flush()
    if signum is not None:
        raise Terminated(signum)
    return DIVERGED if "diverged" in statuses else OK

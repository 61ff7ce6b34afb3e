"""`lrkit train -m`: the jobs of a sweep, on this machine or by a launcher of Hydra."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lrkit.base import command_line, error_report
from lrkit.base.errors import ConfigError
from lrkit.base.exit_codes import DIVERGED, FAILED, OK
from lrkit.base.launcher_environment import detect_launch, global_rank
from lrkit.base.plural import plural
from lrkit.base.run_lock import hold_lock
from lrkit.base.signals import STOP_SIGNALS, Terminated, raise_on_signals
from lrkit.base.symbolic_links import check_links
from lrkit.base.terminal_width import print_line
from lrkit.cli.compare import run_compare
from lrkit.cli.errors_in_one_line import report_errors
from lrkit.cli.hydra_call import call_hydra
from lrkit.cli.output_folders import create_folder, make_writable
from lrkit.cli.single_run import train_once
from lrkit.cli.stack_of_jobs import train_stack_of_jobs

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["check_single_process", "close_sweep", "get_named_sweep_folder", "run_engine", "run_job", "run_sweep"]


#: Ends of the overrides that choose a launcher for other machines, which may have other packages, files and devices.
_ELSEWHERE = ("launcher=slurm", "launcher=submitit_slurm", "launcher=ray", "launcher=rq")


def run_engine(overrides: list[str], config_dir: str | None) -> int:
    """Run a sweep by a launcher or a sweeper of Hydra, and print the table at its end."""
    from lrkit.config import swept_config
    from lrkit.config.config_file import split_config_file
    from lrkit.config.sweep_values import expand_jobs, list_choices
    from lrkit.sweep.common_errors import refuse_common_error
    from lrkit.sweep.hydra_job import score_job
    from lrkit.sweep.hydra_sweeper import taking_pairs
    from lrkit.sweep.job import count_statuses
    from lrkit.sweep.race_settings import refuse_engine
    from lrkit.sweep.sweep import quote_value

    if split_config_file(overrides)[0] is not None:
        must = "does not go with a launcher or a sweeper of Hydra, which composes each job from its own files"
        raise ConfigError("--config", f"{must}: leave it out, or sweep on this machine")
    words, searches = swept_config.sweep_of_files(overrides, config_dir)
    swept_config.check_sweep(words, config_dir, searches)
    named = _check_engine_words(overrides, words)
    first = [word for choice in list_choices(words, config_dir, searches=searches) for word in choice.alternatives[0]]
    refuse_engine([word for word in first if not word.lstrip("+").startswith("hydra")], _name_engine(words), config_dir)
    check_single_process()
    jobs = [] if searches else expand_jobs(words, config_dir)
    if jobs and not any(word.endswith(_ELSEWHERE) for word in overrides):
        of_jobs = [[word for word in job if not word.startswith("hydra")] for job in jobs]
        refuse_common_error(of_jobs, config_dir)
    folder = named or Path(create_folder(Path("outputs") / "sweeps"))
    make_writable(folder, "hydra.sweep.dir")
    check_links(folder, "hydra.sweep.dir")
    choices = list_choices(words, config_dir, searches=searches)
    same = ",".join(key.lstrip("+~").partition("@")[0] for c in choices if not c.is_swept for key in c.keys)
    own = [
        f"hydra.sweep.dir={quote_value(str(folder.resolve()))}",  # a job may start in another folder
        f"hydra.job.config.override_dirname.exclude_keys=[{same}]",  # a job is named by its swept values
    ]
    given = [override for override in overrides if not override.startswith("hydra.sweep.dir=")]
    print_line(f"the sweep's folder is {folder}")
    code = OK
    try:
        with taking_pairs([*given, *own], words, config_dir) as hydra_words:
            call_hydra(["-m", *hydra_words], config_dir, score_job)
    except Exception as error:
        code = FAILED
        error_report.report_failure(error, "the engine failed: ")
    counts = count_statuses(folder)
    if (lost := max(len(jobs), 1) - sum(counts.values())) > 0:
        counts["lost"] = lost
    ended = close_sweep(folder, counts)
    return code or ended


def _name_engine(words: Sequence[str]) -> str:
    """Return the override that chooses a launcher or a sweeper of Hydra."""
    engines = ("launcher=", "hydra/launcher=", "hydra/sweeper=")
    return next((word.lstrip("+") for word in words if word.lstrip("+").startswith(engines)), "hydra/sweeper")


def _check_engine_words(overrides: Sequence[str], words: Sequence[str]) -> Path | None:
    """Refuse keys without an effect on a launcher; return the sweep's folder from the command line, or None."""
    from lrkit.sweep.job import count_statuses

    for key in ("jobs", "on_error", "timeout", "stack"):
        if any(word.startswith(f"{key}=") for word in words):
            must = "applies to sweeps that lrkit runs itself: use hydra.launcher and hydra.sweeper"
            raise ConfigError(key, must)
    named = get_named_sweep_folder(overrides)
    if named is not None and "${" in str(named):
        raise ConfigError("hydra.sweep.dir", "must be a folder without an interpolation", str(named))
    if named is not None and count_statuses(named):
        raise ConfigError(
            "hydra.sweep.dir",
            "must be a folder without runs: a launcher of Hydra starts from the first job",
            str(named),
        )
    return named


def run_sweep(overrides: list[str], config_dir: str | None) -> int:
    """Run the missing jobs of a sweep on this machine, and print the table at its end."""
    from lrkit.config import swept_config
    from lrkit.config.sweep_values import expand_jobs
    from lrkit.sweep.common_errors import refuse_common_error
    from lrkit.sweep.race_settings import list_settings, read_options
    from lrkit.sweep.racing import Race
    from lrkit.sweep.sweep import Sweep, apply_preset
    from lrkit.sweep.sweep_file import find_unfinished, is_complete

    overrides = apply_preset(overrides, config_dir)
    swept_config.check_sweep(overrides, config_dir)
    check_single_process()
    parent, given = Path("outputs") / "sweeps", [o for o in overrides if o.startswith("hydra.")]
    named = get_named_sweep_folder(overrides)
    for override in given:
        if not override.startswith("hydra.sweep.dir=") or "${" in override:
            must = "does not apply to a sweep on this machine; only hydra.sweep.dir does, without an interpolation"
            raise ConfigError(override.partition("=")[0], must, override.partition("=")[2])
    overrides = [o for o in overrides if o not in given]
    jobs = expand_jobs(overrides, config_dir)
    race = read_options(jobs, config_dir)
    settings = None if race is None else list_settings(jobs, race, config_dir)
    if named is None or not is_complete(named, overrides, len(jobs)):  # else no process has to import torch
        refuse_common_error(jobs, config_dir)
    folder = named or find_unfinished(overrides, parent, config_dir) or Path(create_folder(parent))
    make_writable(folder, "hydra.sweep.dir")
    check_links(folder, "hydra.sweep.dir")
    sweep = Sweep(overrides, folder, config_dir)
    runs = sweep if race is None or settings is None else Race(sweep, settings, race)
    how = f"the same command goes on in {folder}"
    try:
        with hold_lock(folder, "hydra.sweep.dir"), raise_on_signals(*STOP_SIGNALS):
            counts = runs.run(run_job, print_line)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {how}") from None
    except Terminated as error:
        raise Terminated(error.signum, f"{error.said}; {how}") from None
    return close_sweep(folder, counts, "; the same command runs the missing jobs")


def run_job(
    words: list[str] | list[tuple[list[str], DictConfig]], config_dir: str | None, composed: DictConfig | None = None
) -> int:
    """Run one job of a checked sweep, or the jobs of a stack, in its own process.

    Args:
        words: overrides of the job; or, for each job of a stack, its overrides and the config of them.
        config_dir: folder of the user's own configs.
        composed: the config as Hydra composed it in the sweep's process; None: this process reads or composes it.
    """
    if words and isinstance(words[0], tuple):
        return report_errors(lambda: train_stack_of_jobs(cast("list[tuple[list[str], DictConfig]]", words), config_dir))
    words = cast("list[str]", words)
    own = [] if config_dir is None else ["--config-dir", config_dir]
    with command_line.command_line_of(["train", *own, *words]):
        return report_errors(lambda: train_once(words, config_dir, composed))


def close_sweep(folder: Path, counts: Mapping[str, int], advice: str = "") -> int:
    """Print the table of a sweep and the statuses of its jobs; return the exit code."""
    print_line()
    try:
        run_compare([str(folder)])
    except ConfigError as error:  # no job has a result to compare
        print_line(f"lrkit: {error}", sys.stderr)
    lost = {status: n for status, n in counts.items() if status not in ("done", "stopped")}
    if lost:
        told = ", ".join(f"{n} {status}" for status, n in lost.items())
        print_line(f"lrkit: of {plural(sum(counts.values()), 'job')} {told}{advice}", sys.stderr)
    return FAILED if lost.keys() - {"diverged"} else DIVERGED if lost else OK


def check_single_process() -> None:
    launch = detect_launch()
    if global_rank() > 0 or (launch is not None and launch.world > 1):
        by, there = ("a launcher", "") if launch is None else (launch.by, f": {launch}")
        raise ConfigError("-m", f"must not be given to {by}{there}; each job of a sweep starts its own processes")


def get_named_sweep_folder(overrides: Sequence[str]) -> Path | None:
    """Return the sweep's folder from the command line; None if it does not name one."""
    named = [o.partition("=")[2].strip("'\"") for o in overrides if o.startswith("hydra.sweep.dir=")]
    return Path(named[0]) if named else None

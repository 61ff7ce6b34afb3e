"""One job as Hydra runs it: in this process, or in a process of a Hydra launcher or sweeper (an *engine*).

An engine pickles ``score_job`` by its name, calls it in another process, and receives a number. So ``score_job`` is at
the top level of a module whose import registers the resolvers of the configs. It returns a number for each outcome: a
search must learn of a failed job too, and an exception would lose the results of the other jobs.
"""

from __future__ import annotations

import math
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import omegaconf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from lrkit.base import command_line, error_report
from lrkit.base.errors import ConfigError, RunError, SearchError
from lrkit.base.files import open_to_append
from lrkit.base.launcher_environment import global_rank
from lrkit.base.metric_names import higher_is_better, validation_loss_name
from lrkit.base.moved_classes import with_current_paths
from lrkit.base.process_pool import run_as_lrkit
from lrkit.base.run_files import CHECKPOINTS, LAST
from lrkit.base.terminal_width import print_line
from lrkit.config.compose import with_trust, with_typed_track_order, with_world
from lrkit.config.instantiate import use_lightning
from lrkit.config.own_classes import with_keys_of_class
from lrkit.config.schedule_nodes import with_read_tables
from lrkit.config.translated_rate import with_translated_rate
from lrkit.sweep.job import ENDED, folder_name, read_result, write_failure

if TYPE_CHECKING:
    from lrkit.training.run import FinishedRun

__all__ = ["resolve_job", "score_job", "train_job", "worst_value"]


def _find_direction(monitor: str) -> str:
    return "maximize" if higher_is_better(monitor) else "minimize"


# Release 2.4 renames the function; in 2.3 the new name still is another one.
_register: Any = getattr(OmegaConf, f"register{'_new' if omegaconf.__version__.startswith('2.3.') else ''}_resolver")
_register("lrkit.name", folder_name, replace=True)
_register("lrkit.direction", _find_direction, replace=True)


def train_job(config: DictConfig) -> FinishedRun:
    """Train with the config that Hydra composed, in Hydra's folder of the job, and return the finished run."""
    return _run_training(*resolve_job(config))


def resolve_job(config: DictConfig) -> tuple[dict[str, Any], Path]:
    """Return the config that Hydra composed, resolved, and Hydra's folder of the job."""
    return _resolve_config(config), _find_job_folder()


def score_job(config: DictConfig) -> float:
    """Train for an engine, and return the best monitored value; infinitely bad if the job diverged or failed.

    No exception of the job is raised. Its output goes to ``job.log`` in its folder; ``metrics.json`` has the reason of
    a failure. A job that an engine starts again in the same folder resumes from its last checkpoint.
    """
    settings, folder = HydraConfig.get(), _find_job_folder()
    if global_rank() > 0:  # another rank of the same run, started by a cluster: it trains too, but writes no files
        with _enter_working_folder(settings), tempfile.TemporaryDirectory() as nowhere:
            _run_training(_resolve_config(config), Path(nowhere), quiet=True)
        return math.nan
    name = f"job {settings.job.num} {settings.job.override_dirname}".rstrip()
    since = time.perf_counter()
    with open_to_append(folder / "job.log") as log:
        try:
            words = command_line.command_line_of(["train", *HydraConfig.get().overrides.task])
            with redirect_stdout(log), redirect_stderr(log), _enter_working_folder(settings), run_as_lrkit(), words:
                ended = _run_training(_resume_if_interrupted(_resolve_config(config), folder), folder)
        except Exception as error:
            if not isinstance(error, ConfigError | SearchError | RunError):
                log.write(traceback.format_exc())  # the log has the whole traceback
            log.write(f"lrkit: {error_report.describe_error(error)}\n")
            error_report.report_failure(error)
            write_failure(folder, "failed", f"{type(error).__name__}: {error}")
            print_line(f"{name}: failed")
            return worst_value(str(config.monitor))
    value = _find_score(ended)
    print_line(f"{name}: {ended.status}, {value:.4g}, {time.perf_counter() - since:.1f} s")
    return value


def worst_value(monitor: str) -> float:
    """Return the score of a job without a value.

    >>> worst_value("val/loss"), worst_value("val/accuracy")
    (inf, -inf)
    """
    return -math.inf if higher_is_better(monitor) else math.inf


def _find_score(run: FinishedRun) -> float:
    """Return the best monitored value of a run; for a run without validation, its last loss."""
    losses = [name for name in sorted(run.final) if "loss" in name]
    monitor = run.monitor or validation_loss_name(run.final) or next(iter(losses), "")
    value = {**run.final, **run.best}.get(monitor, math.nan)
    return worst_value(monitor) if run.status == "diverged" or not math.isfinite(value) else value


def _run_training(config: Mapping[str, Any], folder: Path, *, quiet: bool = False) -> FinishedRun:
    use_lightning(config)
    from lrkit.training.run import run_training  # imports torch, which the parent process of a sweep does not need

    return run_training(config, folder, quiet=quiet)


@contextmanager
def _enter_working_folder(settings: Any) -> Iterator[None]:
    """Within this context, the working folder is that of the command (or Hydra's, with ``hydra.job.chdir``).

    So relative paths of the user's are the same in each process.
    """
    with chdir("." if settings.job.chdir else settings.runtime.cwd):
        yield


def _resolve_config(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    # An engine may override a key twice; the last override counts, as in Hydra.
    words = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    named = with_current_paths({str(key): value for key, value in plain.items()})
    trusted = with_keys_of_class(with_trust(with_typed_track_order(named, words), words), words)
    return with_translated_rate(with_read_tables(with_world(trusted, words)))


def _find_job_folder() -> Path:
    return Path(HydraConfig.get().runtime.output_dir)


def _resume_if_interrupted(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the config; with ``resume.path`` if an interrupted job left a checkpoint in this folder."""
    interrupted = (folder / CHECKPOINTS / LAST).is_file() and read_result(folder).get("status") not in ENDED
    if not interrupted or config["resume"]["path"] is not None:
        return config
    return {**config, "resume": {**config["resume"], "path": str(folder)}}

"""One job, as Hydra runs it: alone, or for an engine (a launcher or sweeper of Hydra's) in whatever process that chose.

An engine is given ``score_job``, sends it elsewhere by its name, and takes a number back. So it stands at the top of a
module whose import registers what the configs need, and it has an answer for every end: a search must learn of a job
that failed, too, and an exception would cost it the results of the others.
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

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from lrkit.base import command_line, error_report
from lrkit.base.errors import ConfigError, RunError, SearchError
from lrkit.base.files import open_to_append
from lrkit.base.launcher import global_rank
from lrkit.base.metric_names import higher_is_better, validation_loss_name
from lrkit.base.moved_classes import with_current_paths
from lrkit.base.process_pool import as_lrkit
from lrkit.config.compose import with_trust, with_typed_track_order, with_world
from lrkit.config.instantiate import use_lightning
from lrkit.sweep.job import ENDED, folder_name, read_result, write_failure

if TYPE_CHECKING:
    from lrkit.training.run import FinishedRun

__all__ = ["score_job", "train_job", "worst_value"]


def _direction(monitor: str) -> str:
    return "maximize" if higher_is_better(monitor) else "minimize"


OmegaConf.register_new_resolver("lrkit.name", folder_name, replace=True)
OmegaConf.register_new_resolver("lrkit.direction", _direction, replace=True)


def train_job(config: DictConfig) -> FinishedRun:
    """Train as Hydra composed it, in the folder that Hydra made."""
    return _run(_plain(config), _folder())


def score_job(config: DictConfig) -> float:
    """Train for an engine: the best monitored value, or the worst there is for a job that diverged or failed.

    Nothing is raised. What the job says goes to ``job.log`` in its folder, and of one that failed ``metrics.json``
    says why. A job that an engine starts a second time in its folder goes on from its last checkpoint.
    """
    settings, folder = HydraConfig.get(), _folder()
    if global_rank() > 0:  # a process that a cluster started beside the first: it trains along, and writes nothing
        with _in_place(settings), tempfile.TemporaryDirectory() as nowhere:
            _run(_plain(config), Path(nowhere), quiet=True)
        return math.nan
    name = f"job {settings.job.num} {settings.job.override_dirname}".rstrip()
    since = time.perf_counter()
    with open_to_append(folder / "job.log") as log:
        try:
            words = command_line.command_line_of(["train", *HydraConfig.get().overrides.task])
            with redirect_stdout(log), redirect_stderr(log), _in_place(settings), as_lrkit(), words:
                ended = _run(_taken_up(_plain(config), folder), folder)
        except Exception as error:
            if not isinstance(error, ConfigError | SearchError | RunError):
                log.write(traceback.format_exc())  # the file is for whoever looks for the reason
            log.write(f"lrkit: {error_report.describe_error(error)}\n")
            error_report.report_failure(error)
            write_failure(folder, "failed", f"{type(error).__name__}: {error}")
            print(f"{name}: failed", flush=True)
            return worst_value(str(config.monitor))
    value = _value(ended)
    print(f"{name}: {ended.status}, {value:.4g}, {time.perf_counter() - since:.1f} s", flush=True)
    return value


def worst_value(monitor: str) -> float:
    """The value of a job that has none.

    >>> worst_value("val/loss"), worst_value("val/accuracy")
    (inf, -inf)
    """
    return -math.inf if higher_is_better(monitor) else math.inf


def _value(run: FinishedRun) -> float:
    """The best monitored value; of a run without a validation, its last loss."""
    losses = [name for name in sorted(run.final) if "loss" in name]
    monitor = run.monitor or validation_loss_name(run.final) or next(iter(losses), "")
    value = {**run.final, **run.best}.get(monitor, math.nan)
    return worst_value(monitor) if run.status == "diverged" or not math.isfinite(value) else value


def _run(config: Mapping[str, Any], folder: Path, *, quiet: bool = False) -> FinishedRun:
    use_lightning(config)
    from lrkit.training.run import run_training  # loads torch, which a process that only hands out jobs does not need

    return run_training(config, folder, quiet=quiet)


@contextmanager
def _in_place(settings: Any) -> Iterator[None]:
    """In the folder where the command was given, wherever we began. What the user names is looked for there, too."""
    with chdir("." if settings.job.chdir else settings.runtime.cwd):
        yield


def _plain(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    # As Hydra took them: an engine may give a key a second time, and the last one counts.
    words = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    named = with_current_paths({str(key): value for key, value in plain.items()})
    return with_world(with_trust(with_typed_track_order(named, words), words), words)


def _folder() -> Path:
    return Path(HydraConfig.get().runtime.output_dir)


def _taken_up(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The config; of a job that was interrupted in this folder, to go on from its last checkpoint."""
    interrupted = (folder / "checkpoints" / "last.ckpt").is_file() and read_result(folder).get("status") not in ENDED
    if not interrupted or config["resume"]["path"] is not None:
        return config
    return {**config, "resume": {**config["resume"], "path": str(folder)}}

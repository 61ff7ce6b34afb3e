"""`lrkit find`: the base learning rate for a config."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lrkit.base.errors import ConfigError, SearchError
from lrkit.base.files import read_json
from lrkit.base.process_pool import pass_config
from lrkit.base.python_safe_path import safe_path
from lrkit.base.run_files import FIND
from lrkit.base.terminal_width import print_line
from lrkit.checkpoint.resume_policies import Resumption
from lrkit.config import compose as configs
from lrkit.config.find_options import AUTO, Search
from lrkit.lightning.imports import Trainer
from lrkit.lightning.silenced_messages import silence_lightning
from lrkit.lightning.trainer_objects import check_trainer, trainer_of
from lrkit.lr_finder import short_run
from lrkit.lr_finder.result import FinderResult
from lrkit.lr_finder.search import Say, search_rate
from lrkit.lr_finder.training_task import ConfigTask
from lrkit.optim import factory
from lrkit.planning.optimizer_tracks import KEY
from lrkit.planning.optimizer_traits import finds_rate
from lrkit.schedules.batch_sizes import KEY as SCHEDULE
from lrkit.schedules.shapes import RangeTest
from lrkit.training_objects.optimizers import optimizer_of

__all__ = ["find_lr", "resolve_auto_lr"]

Weights = Mapping[str, Tensor] | None


def find_lr(config: Mapping[str, Any], folder: Path, *, quiet: bool = False) -> FinderResult:
    """Find the base learning rate for a config.

    The search changes no part of a later run: each training here is a short run on its own copy (see
    ``lrkit.lr_finder.short_run``), and a run seeds all random generators again. With several processes, all take part
    and get the same result.

    Args:
        config: a config of ``lrkit.config.compose``; its ``optimizer.lr`` is not used.
        folder: an existing folder for ``find.json``, ``find.csv``, ``find.png`` and the picture for TensorBoard.
        quiet: print nothing.

    Raises:
        ConfigError: the config is invalid, or a search is not possible with it.
    """
    search = Search.of(config["find"])
    say: Say = (lambda line: None) if quiet else print_line
    configs.check(config)
    if config[KEY]:
        raise ConfigError(KEY, "must be null for lrkit find: a search finds one rate, by one loss")
    if config["batch"].get("schedule") is not None:
        must = (
            "and lrkit find cannot be used together: a search measures at one batch size: set batch.effective instead"
        )
        raise ConfigError(SCHEDULE, must)
    target, options = optimizer_of(config)
    factory.check_optimizer(target, options)
    check_trainer(config)
    if config["schedule"].get("_target_") == f"lrkit.schedules.{RangeTest.__name__}":
        raise ConfigError("schedule", "must be the schedule to train with: lrkit find runs its own range test")
    if finds_rate(target):
        name = target.rpartition(".")[2]
        found = FinderResult(1.0, reason=f"{name} finds the learning rate itself, and optimizer.lr multiplies it")
        found.save(folder, config)
        return found
    silence_lightning()
    trainer = trainer_of(short_run.trainer_options(config["trainer"]), config.get("trust", ()))
    world = trainer.world_size
    if world > 1 and not _is_launched(trainer):
        return _search_in_processes(config, folder, world, quiet)
    found = search_rate(ConfigTask.of(config, _initial_weights(config)), search, say)
    if trainer.is_global_zero:
        for line in found.save(folder, config):
            say(f"note: {line}")
    return found


def resolve_auto_lr(config: Mapping[str, Any], folder: Path, *, quiet: bool = False) -> dict[str, Any]:
    """The config with a number in place of ``optimizer.lr=auto``; the search runs now, with its files in ``folder``.

    Raises:
        SearchError: the search has no suggestion.
    """
    if config["optimizer"].get("lr") != AUTO:
        return dict(config)
    folder.mkdir(exist_ok=True)
    found = find_lr(config, folder, quiet=quiet)
    if found.lr is None:
        raise SearchError(f"optimizer.lr=auto found {found.sentence()}; the measurements are in {folder}")
    if not quiet:
        print_line(found.sentence() + "\n")
    interval = None if found.low is None else [found.low, found.high]
    return {
        **config,
        "optimizer": {**config["optimizer"], "lr": found.lr},
        "find": {**config["find"], "interval": interval},
    }


def _initial_weights(config: Mapping[str, Any]) -> Weights:
    """The initial weights of a run with ``resume.policy=restart``; None for a run without a checkpoint."""
    resumption = Resumption.of(config, lambda: None)
    if resumption.saved is None:
        return None
    if resumption.policy != "restart":
        raise ConfigError(
            "resume.policy",
            "must be restart when searching for a rate: other policies reuse the checkpoint's rate",
            resumption.policy,
        )
    weights: Weights = resumption.saved.content["state_dict"]
    return weights


def _is_launched(trainer: Trainer) -> bool:
    """Whether another program (torchrun, a cluster) has started all processes of this trainer."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return environment is not None and bool(environment.creates_processes_externally)


def _search_in_processes(config: Mapping[str, Any], folder: Path, world: int, quiet: bool) -> FinderResult:
    """Search with a process for each device; all start before the first short run and end after the last."""
    trainer = config["trainer"]
    if (trainer.get("num_nodes") or 1) > 1:
        raise ConfigError(
            "trainer.num_nodes", "must be 1 for a search, or torchrun or srun must start the processes", world
        )
    for word in ("spawn", "fork", "notebook"):
        if word in str(trainer.get("strategy")):
            raise ConfigError("trainer.strategy", "must not start its own processes in a search: use ddp", word)
    with pass_config(config) as file:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world), "-m", "lrkit"]
        command = [sys.executable, "-P", *launcher, "search", str(folder), file, *(["quiet"] if quiet else [])]
        home = Path(__file__).resolve().parents[2]  # -P: no imports from the current folder, which may have a torch.py
        paths = [*filter(None, [os.environ.get("PYTHONPATH")]), *([] if home.name == "site-packages" else [str(home)])]
        with safe_path():  # also for the processes that torch starts
            code = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}).returncode
    result = folder / FIND
    found = read_json(result)
    if code or not isinstance(found, dict):
        raise SearchError(f"the search on {world} processes ended with exit code {code}")
    return FinderResult.from_json(found)

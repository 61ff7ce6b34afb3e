"""The config that a run trains by, from the user's config, the checkpoint to resume, and the search for a rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrkit.checkpoint.resume_policies import Resumption
from lrkit.config import compose as configs
from lrkit.config.declared_steps import check_declared_steps
from lrkit.config.find_options import AUTO
from lrkit.config.server_loggers import check_installed
from lrkit.lightning.module import TrackSetup
from lrkit.lightning.trainer_objects import check_trainer
from lrkit.lr_finder.find import resolve_auto_lr
from lrkit.optim import factory
from lrkit.planning.plan import Plan
from lrkit.training_objects.optimizers import optimizer_of, tracks_of

__all__ = ["RunConfig", "resolve_run_config"]


@dataclass(frozen=True)
class RunConfig:
    """The facts of a run that are known before its data is read.

    Args:
        folder: the run's own folder.
        quiet: print nothing.
        asked: the config as the user asked for it, with the rate that was found for ``optimizer.lr=auto``. Processes
            that join the run get it, and ``config.json`` holds it.
        config: the config to train by: ``asked``, with what ``resume.policy`` takes from the checkpoint.
        resumption: the checkpoint and the policy; empty for a run that begins anew.
        declared: the plan as far as the config says how long the run is, else None.
        target: class path of the optimizer.
        options: the options of the optimizer, without the rate.
        tracks: of a module with several optimizers, what each needs; else empty.
    """

    folder: Path
    quiet: bool
    asked: Mapping[str, Any]
    config: Mapping[str, Any]
    resumption: Resumption
    declared: Plan | None
    target: str
    options: Mapping[str, Any]
    tracks: Sequence[TrackSetup]


def resolve_run_config(config: Mapping[str, Any], folder: Path, quiet: bool) -> RunConfig:
    """Return the config that a run trains by. Whatever the config alone shows is refused here, before data is read.

    Raises:
        ConfigError: the config is invalid, or does not fit the checkpoint.
        SearchError: ``optimizer.lr=auto``, and no rate was found.
    """
    asked, resumption = config, Resumption.of(config, lambda: configs.schedule_of(config, "cooldown"))
    config = resolve_auto_lr(resumption.config(config), folder / "find", quiet=quiet)
    if asked["optimizer"].get("lr") == AUTO:
        lr = config["optimizer"]["lr"]
        asked = {**asked, "optimizer": {**asked["optimizer"], "lr": lr}, "find": config["find"]}
    # The command has resolved the plan already, before torch was loaded. Here it is resolved again, because the
    # checkpoint and the search for a rate may have changed the config, and a caller of this function has no command.
    declared = configs.check(config)
    if declared is not None:
        resumption.plan(declared)
    check_declared_steps(config)
    target, options = optimizer_of(config)
    tracks = tracks_of(config)
    if not tracks:
        factory.check_optimizer(target, options)
    check_trainer(config)
    check_installed(config["logger"])
    return RunConfig(folder, quiet, asked, config, resumption, declared, target, options, tracks)

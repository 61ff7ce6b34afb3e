"""The exact plan of a run: the plan of its config, with the number of batches that the trainer has counted."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.config import compose as configs
from lrkit.config.declared_steps import steps_error
from lrkit.data.count_checks import check_declared_counts, check_evaluation_shares
from lrkit.lightning.accumulation_windows import count_steps
from lrkit.lightning.imports import MisconfigurationException, Trainer
from lrkit.lightning.replicas import count_replicas
from lrkit.lightning.step_count_check import uses_manual_optimization
from lrkit.lightning.trainer_objects import name_key
from lrkit.planning import optimizer_tracks
from lrkit.planning.plan import Plan
from lrkit.schedules.durations import Duration

__all__ = ["counted_plan", "exact_plan"]


def exact_plan(config: Mapping[str, Any], trainer: Trainer, declared: Plan | None, notes: list[str]) -> Plan:
    """The plan with the trainer's counts of batches.

    Raises:
        ConfigError: it differs from the declared plan, or from the number of steps that the trainer will take.
    """
    declared_keys = [name for name in ("steps", "steps_per_epoch") if config["horizon"].get(name) is not None]
    if declared_keys and not config[optimizer_tracks.KEY] and uses_manual_optimization(trainer.lightning_module):
        return _plan_of_declared_steps(config, trainer, notes)
    plan = counted_plan(config, trainer, notes)
    check_declared_counts(config, trainer)
    steps, stop = count_steps(trainer, plan.horizon), plan.horizon.stop_after
    finite = steps != float("inf") and steps > 0
    if finite and stop is not None and config["horizon"].get("steps") is not None:  # of it a part is taken here
        if stop > steps:
            must = f"must be at most {int(steps)}, the number of optimizer steps that the trainer takes"
            raise ConfigError("horizon.stop_after", must, stop)
    elif finite and plan.horizon.steps != steps:
        raise steps_error(int(steps), plan.horizon.steps)
    if declared is not None and declared.horizon != plan.horizon:
        planned, counted = declared.horizon, plan.horizon
        epochs = planned.steps_after_epochs(1), counted.steps_after_epochs(1)
        raise ConfigError(
            "data.train_samples",
            f"does not match the data: the plan has {planned.steps} steps ({epochs[0]} an epoch),"
            f" the data have {counted.steps} ({epochs[1]})",
            config["data"].get("train_samples"),
        )
    return plan


def _plan_of_declared_steps(config: Mapping[str, Any], trainer: Trainer, notes: Sequence[str]) -> Plan:
    """The plan of a module with manual optimization, by the declared number of steps, divided among the epochs."""
    horizon, epochs = config["horizon"], config["trainer"].get("max_epochs") or -1
    if horizon.get("steps_per_epoch") is not None or epochs < 1 or config["batch"].get("schedule") is not None:
        return counted_plan(config, trainer, notes)
    if isinstance(horizon["steps"], str) and Duration.parse(horizon["steps"], "horizon.steps").unit == "epochs":
        must = f"must be set: horizon.steps is {horizon['steps']}, and the module decides how many steps an epoch has"
        raise ConfigError("horizon.steps_per_epoch", must)
    steps = counted_plan(config, trainer, notes).horizon.require("steps", "horizon.steps")
    per_epoch, rest = divmod(steps, epochs)
    plan, other = (
        counted_plan({**config, "horizon": {**horizon, "steps_per_epoch": number}}, trainer, notes)
        for number in (max(per_epoch, 1), per_epoch + 1)
    )
    curves = [(each.curve, each.momentum, each.decay_curve, each.group_curves) for each in (plan, other)]
    if rest and curves[0] != curves[1]:
        must = f"must be set: a length is in epochs, and {steps} steps do not divide by {epochs} epochs"
        raise ConfigError("horizon.steps_per_epoch", must)
    return plan


def counted_plan(config: Mapping[str, Any], trainer: Trainer, notes: Sequence[str] = ()) -> Plan:
    """The plan of ``config`` with the counts of a trainer, which may be another one: batches, devices, accumulation."""
    try:
        if trainer.train_dataloader is None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Total length of .* is zero")  # it is refused here
                trainer.fit_loop.setup_data()
    except MisconfigurationException as error:
        raise name_key(error, config["trainer"]) from error
    except TypeError as error:
        if "invalid dataloader" not in str(error):
            raise
        raise ConfigError("data", f"was refused by Lightning: {error}") from error
    batches = trainer.num_training_batches
    counted = None if batches == float("inf") else int(batches)
    if counted == 0:
        raise ConfigError("data", "must have a batch to train on: it is empty, or drop_last drops its only batch")
    check_evaluation_shares(config, trainer)
    known = {**config, "data": {**config["data"], "batch_size": _batch_size(config, trainer)}}
    return configs.plan(known, world=count_replicas(trainer), batches=counted, notes=notes)


def _batch_size(config: Mapping[str, Any], trainer: Trainer) -> int | None:
    """The number of samples in a batch of one device: of the config, or of the loader of the user's data module."""
    configured = config["data"].get("batch_size")
    if configured is not None:
        return int(configured)
    found = getattr(trainer.train_dataloader, "batch_size", None)
    return found if isinstance(found, int) else None

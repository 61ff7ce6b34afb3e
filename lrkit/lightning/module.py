"""Attaches a plan to a LightningModule: to lrkit's own module, or to the user's, whose code is not changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lrkit.base.errors import ConfigError
from lrkit.lightning.imports import LightningModule, Trainer
from lrkit.lightning.supervised import Supervised
from lrkit.optim import factory, own_optimizers
from lrkit.optim import param_groups as grouping
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.optimizer_tracks import KEY, Track, assign_parameters, needs_manual
from lrkit.planning.plan import GroupRate, Plan

__all__ = [
    "OptimizerSetup",
    "TrackSetup",
    "batch_of",
    "configure",
    "groups_of",
    "plan_of",
    "rates_of",
    "scheduler_for",
    "scheduler_of",
    "schedulers_of",
    "step_of",
    "track_groups",
]  # fmt: skip


@dataclass(frozen=True)
class OptimizerSetup:
    """The arguments of ``configure_optimizers``: the plan, the optimizer, the parameter groups.

    Args:
        planner: returns the plan, when the trainer knows the length of the run.
        planned: is called with the plan, when the parameter groups are known.
        target: class path of the optimizer.
        options: its options without the learning rate.
        rules: the node ``param_groups``.
        tracks: the setup of each optimizer of a module with several; then target, options and rules are not used.
    """

    planner: Callable[[Trainer], Plan]
    planned: Callable[[Trainer, Plan], None]
    target: str
    options: Mapping[str, Any]
    rules: Mapping[str, Any]
    tracks: Sequence[TrackSetup] = ()


@dataclass(frozen=True)
class TrackSetup:
    """The setup of one of several optimizers; see ``OptimizerSetup``."""

    track: Track
    target: str
    options: Mapping[str, Any]
    rules: Mapping[str, Any]


def configure(module: LightningModule, setup: OptimizerSetup) -> LightningModule:
    """Replace the module's ``configure_optimizers`` by one that follows the plan; return the module.

    Nothing else of the module is changed.
    """

    def configure_optimizers(self: LightningModule) -> Any:
        if setup.tracks:
            return _configure_tracks(self, setup)
        groups = groups_of(self, setup.rules)
        plan = setup.planner(self.trainer).with_groups(
            rates_of(groups), grouping.group_remarks(_unwrap_network(self), setup.rules)
        )
        if not self.automatic_optimization:
            own_optimizers.refuse_several(self)
        setup.planned(self.trainer, plan)
        optimizer = factory.build_optimizer(
            setup.target,
            setup.options,
            [group.options(plan.base(group.lr_scale)) for group in groups],
            unfused=_explain_unfused(self.trainer.gradient_clip_val, self.trainer.precision),
        )
        scheduler = PlanScheduler(optimizer, plan)
        scheduler.write()
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    module.configure_optimizers = MethodType(configure_optimizers, module)  # type: ignore[method-assign]
    return module


def _explain_unfused(clip: float | None, precision: Any) -> str | None:
    """The reason not to use a fused optimizer, by two options of the trainer; None if there is none.

    >>> _explain_unfused(1.0, "bf16-mixed"), _explain_unfused(1.0, "32-true")
    ('Lightning does not clip gradients of a fused optimizer under bf16-mixed', None)
    """
    if clip and precision in ("16-mixed", "bf16-mixed"):
        return f"Lightning does not clip gradients of a fused optimizer under {precision}"
    return None


def _configure_tracks(module: LightningModule, setup: OptimizerSetup) -> tuple[list[Optimizer], list[Any]]:
    """The optimizers and schedulers of a module with a track for each, in the order of its own optimizers."""
    groups = track_groups(module, setup.tracks)
    names = {name: [n for group in split for n in group.names] for name, split in groups.items()}
    plan = setup.planner(module.trainer)
    notes = {
        each.track.name: grouping.group_remarks(module, each.rules, names[each.track.name]) for each in setup.tracks
    }
    plan = plan.with_track_groups({name: rates_of(split) for name, split in groups.items()}, notes)
    own = own_optimizers.find_own_optimizers(module)
    order = list(names) if own is None else own_optimizers.order_tracks(own, module, names)
    setup.planned(module.trainer, plan)
    unfused = _explain_unfused(module.trainer.gradient_clip_val, module.trainer.precision)
    optimizers, schedulers = [], []
    for each in sorted(setup.tracks, key=lambda each: order.index(each.track.name)):
        own_plan = plan.tracks[each.track.name]
        bases = [group.options(own_plan.base(group.lr_scale)) for group in groups[each.track.name]]
        with each.track.naming():
            optimizer = factory.build_optimizer(each.target, each.options, bases, unfused=unfused)
        scheduler = PlanScheduler(optimizer, own_plan, each.track.name, plan)
        scheduler.write()
        optimizers.append(optimizer)
        schedulers.append(scheduler)
    if own is not None and own.scheduled is not None and own.scheduled != [*range(len(schedulers))]:
        # The module's steps get as many from `self.lr_schedulers()` as it made.
        returned = [schedulers[i] for i in own.scheduled]
        if returned:
            vars(module)["lr_schedulers"] = lambda: returned[0] if len(returned) == 1 else returned
    return optimizers, [{"scheduler": scheduler, "interval": "step"} for scheduler in schedulers]


def track_groups(module: LightningModule, tracks: Sequence[TrackSetup]) -> dict[str, list[grouping.ParamGroup]]:
    """The parameter groups of each track.

    Raises:
        ConfigError: the module uses automatic optimization, or a parameter is in no track, or in two.
    """
    if module.automatic_optimization:
        raise needs_manual(type(module).__name__)
    # A network that is an attribute and a part of another network has several names.
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    trains = {first: parameter.requires_grad for parameter, (first, *_) in names.items()}
    aliases = {first: more for first, *more in names.values()}
    members = assign_parameters(trains, [each.track for each in tracks], aliases)
    groups = {}
    for each in tracks:
        with each.track.naming():
            groups[each.track.name] = grouping.split_parameters(module, each.rules, frozenset(members[each.track.name]))
    return groups


def groups_of(module: LightningModule, rules: Mapping[str, Any]) -> list[grouping.ParamGroup]:
    """The parameter groups of a module, by rules on the names of the parameters in the user's network."""
    return grouping.split_parameters(_unwrap_network(module), rules)


def _unwrap_network(module: LightningModule) -> nn.Module:
    """The user's network: its parameter names lack the prefix of lrkit's own module."""
    return module.model if isinstance(module, Supervised) else module


def rates_of(groups: Sequence[grouping.ParamGroup]) -> list[GroupRate]:
    """Name, scale and weight decay of each parameter group, for the plan."""
    return [GroupRate(group.name, group.lr_scale, group.weight_decay) for group in groups]


def scheduler_of(trainer: Trainer) -> PlanScheduler:
    """The scheduler that ``configure`` attached to a trainer with one optimizer.

    Raises:
        ConfigError: the trainer has several schedulers, or none of lrkit's.
    """
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, PlanScheduler):
            if config.scheduler.track:
                raise ConfigError(
                    KEY,
                    f"must not be set where one scheduler is expected: {config.scheduler.track} has its own",
                )
            return config.scheduler
    raise ConfigError("model", "must have been given to lrkit.configure: this trainer has no plan")


def schedulers_of(trainer: Trainer) -> list[PlanScheduler]:
    """The schedulers that ``configure`` attached to a trainer: one, or one for each track."""
    found = [each.scheduler for each in trainer.lr_scheduler_configs if isinstance(each.scheduler, PlanScheduler)]
    return found if len(found) == 1 or (found and found[0].track) else [scheduler_of(trainer)]


def scheduler_for(trainer: Trainer, optimizer: Optimizer) -> PlanScheduler:
    """The scheduler of one of a trainer's optimizers."""
    found = schedulers_of(trainer)
    return next((each for each in found if each.optimizer is optimizer), found[0])


def plan_of(trainer: Trainer) -> Plan:
    """The plan of the whole run."""
    return schedulers_of(trainer)[0].run


def batch_of(trainer: Trainer) -> int:
    """The number of the current training batch, from 0: Lightning uses it as x when it logs a loss."""
    count: int = trainer.fit_loop.epoch_loop._batches_that_stepped
    return count


def step_of(trainer: Trainer) -> int:
    """The progress of a run: the applied steps of its optimizer; for several optimizers, the batches begun."""
    found = [each.scheduler for each in trainer.lr_scheduler_configs if isinstance(each.scheduler, PlanScheduler)]
    if not found:
        return trainer.global_step
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready if found[0].track else found[0].applied

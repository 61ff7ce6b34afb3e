"""A plan inside a LightningModule: lrkit's own module, and any existing one unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lrkit.base.errors import ConfigError
from lrkit.lightning.classes import LightningModule, Trainer
from lrkit.lightning.supervised import Supervised
from lrkit.optim import factory, own_optimizers
from lrkit.optim import param_groups as grouping
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.plan import GroupRate, Plan
from lrkit.planning.tracks import KEY, Track, assign_parameters, needs_manual

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
    """What ``configure_optimizers`` needs: how to plan, which optimizer, which parameter groups.

    Args:
        planner: the plan, once a trainer knows how long the run is.
        planned: told the plan once the parameter groups are known too.
        target: class path of the optimizer.
        options: its options but the rate.
        rules: the node ``param_groups``.
        unfused: why a fused implementation must not be used, if so.
        tracks: of a module with several optimizers, what each needs; the three above are not used then.
    """

    planner: Callable[[Trainer], Plan]
    planned: Callable[[Trainer, Plan], None]
    target: str
    options: Mapping[str, Any]
    rules: Mapping[str, Any]
    unfused: str | None = None
    tracks: Sequence[TrackSetup] = ()


@dataclass(frozen=True)
class TrackSetup:
    """What one of several optimizers needs; see ``OptimizerSetup``."""

    track: Track
    target: str
    options: Mapping[str, Any]
    rules: Mapping[str, Any]


def configure(module: LightningModule, wiring: OptimizerSetup) -> LightningModule:
    """Replace the module's ``configure_optimizers`` by one that follows the plan. Nothing else is touched."""

    def configure_optimizers(self: LightningModule) -> Any:
        if wiring.tracks:
            return _several(self, wiring)
        groups = groups_of(self, wiring.rules)
        plan = wiring.planner(self.trainer).with_groups(
            rates_of(groups), grouping.group_remarks(_own(self), wiring.rules)
        )
        if not self.automatic_optimization:
            own_optimizers.refuse_several(self)
        wiring.planned(self.trainer, plan)
        optimizer = factory.build_optimizer(
            wiring.target,
            wiring.options,
            [group.options(plan.base(group.lr_scale)) for group in groups],
            unfused=wiring.unfused,
        )
        scheduler = PlanScheduler(optimizer, plan)
        scheduler.write()
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    module.configure_optimizers = MethodType(configure_optimizers, module)  # type: ignore[method-assign]
    return module


def _several(module: LightningModule, wiring: OptimizerSetup) -> tuple[list[Optimizer], list[Any]]:
    """Optimizers and schedulers of a module that has a track for each, in the order in which it makes its own."""
    groups = track_groups(module, wiring.tracks)
    names = {name: [n for group in split for n in group.names] for name, split in groups.items()}
    plan = wiring.planner(module.trainer)
    notes = {
        each.track.name: grouping.group_remarks(module, each.rules, names[each.track.name]) for each in wiring.tracks
    }
    plan = plan.with_track_groups({name: rates_of(split) for name, split in groups.items()}, notes)
    own = own_optimizers.own_optimizers_of(module)
    order = list(names) if own is None else own_optimizers.order_tracks(own, module, names)
    wiring.planned(module.trainer, plan)
    optimizers, schedulers = [], []
    for each in sorted(wiring.tracks, key=lambda each: order.index(each.track.name)):
        own_plan = plan.tracks[each.track.name]
        bases = [group.options(own_plan.base(group.lr_scale)) for group in groups[each.track.name]]
        with each.track.naming():
            optimizer = factory.build_optimizer(each.target, each.options, bases, unfused=wiring.unfused)
        scheduler = PlanScheduler(optimizer, own_plan, each.track.name, plan)
        scheduler.write()
        optimizers.append(optimizer)
        schedulers.append(scheduler)
    if own is not None and own.scheduled is not None and own.scheduled != [*range(len(schedulers))]:
        shown = [schedulers[i] for i in own.scheduled]  # `self.lr_schedulers()` in its steps finds as many as it made
        if shown:
            vars(module)["lr_schedulers"] = lambda: shown[0] if len(shown) == 1 else shown
    return optimizers, [{"scheduler": scheduler, "interval": "step"} for scheduler in schedulers]


def track_groups(module: LightningModule, tracks: Sequence[TrackSetup]) -> dict[str, list[grouping.ParamGroup]]:
    """The parameter groups of each track.

    Raises:
        ConfigError: the module leaves its steps to Lightning, or a parameter is in no track, or in two.
    """
    if module.automatic_optimization:
        raise needs_manual(type(module).__name__)
    names: dict[nn.Parameter, list[str]] = {}  # a network that is an attribute, and a part of another one, has several
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    trains = {first: parameter.requires_grad for parameter, (first, *_) in names.items()}
    also = {first: more for first, *more in names.values()}
    members = assign_parameters(trains, [each.track for each in tracks], also)
    groups = {}
    for each in tracks:
        with each.track.naming():
            groups[each.track.name] = grouping.split_parameters(module, each.rules, frozenset(members[each.track.name]))
    return groups


def groups_of(module: LightningModule, rules: Mapping[str, Any]) -> list[grouping.ParamGroup]:
    """The parameter groups of a module, by rules that name parameters as their owner knows them."""
    return grouping.split_parameters(_own(module), rules)


def _own(module: LightningModule) -> nn.Module:
    """The user's network, whose parameters are named without the prefix that lrkit's own wrapper adds."""
    return module.model if isinstance(module, Supervised) else module


def rates_of(groups: Sequence[grouping.ParamGroup]) -> list[GroupRate]:
    """What the plan needs to know of parameter groups."""
    return [GroupRate(group.name, group.lr_scale, group.weight_decay) for group in groups]


def scheduler_of(trainer: Trainer) -> PlanScheduler:
    """The scheduler that ``configure`` gave to a trainer of one optimizer."""
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, PlanScheduler):
            if config.scheduler.track:
                raise ConfigError(KEY, f"has several schedulers, and one was asked for: {config.scheduler.track}, ...")
            return config.scheduler
    raise ConfigError("model", "must leave its optimizers to lrkit: no plan is attached to this trainer")


def schedulers_of(trainer: Trainer) -> list[PlanScheduler]:
    """The schedulers that ``configure`` gave to a trainer: one, or one of each track."""
    found = [each.scheduler for each in trainer.lr_scheduler_configs if isinstance(each.scheduler, PlanScheduler)]
    return found if found and found[0].track else [scheduler_of(trainer)]


def scheduler_for(trainer: Trainer, optimizer: Optimizer) -> PlanScheduler:
    """The scheduler of one of a trainer's optimizers."""
    found = schedulers_of(trainer)
    return next((each for each in found if each.optimizer is optimizer), found[0])


def plan_of(trainer: Trainer) -> Plan:
    """The plan of the whole run."""
    return schedulers_of(trainer)[0].run


def batch_of(trainer: Trainer) -> int:
    """The batch that is trained on, from 0 on: what Lightning takes for x when it logs the losses of it."""
    count: int = trainer.fit_loop.epoch_loop._batches_that_stepped
    return count


def step_of(trainer: Trainer) -> int:
    """How far a run has come: of one optimizer its applied steps; of several, the batches begun."""
    found = [each.scheduler for each in trainer.lr_scheduler_configs if isinstance(each.scheduler, PlanScheduler)]
    if not found:
        return trainer.global_step
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready if found[0].track else found[0].applied

"""A plan inside a LightningModule: lrkit's own module around any network, and any existing one unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any

from lrkit import groups as grouping
from lrkit import optim
from lrkit.errors import ConfigError
from lrkit.lightning import LightningModule, OptimizerLRSchedulerConfig, Trainer
from lrkit.plan import GroupRate, Plan
from lrkit.scheduler import PlanScheduler
from lrkit.supervised import Supervised

__all__ = ["Supervised", "Wiring", "configure", "groups_of", "rates_of", "scheduler_of"]


@dataclass(frozen=True)
class Wiring:
    """What ``configure_optimizers`` needs: how to plan, which optimizer, which parameter groups.

    Args:
        planner: the plan, once a trainer knows how long the run is.
        planned: told the plan once the parameter groups are known too.
        target: class path of the optimizer.
        options: its options but the rate.
        rules: the node ``param_groups``.
        unfused: why a fused implementation must not be used, if so.
    """

    planner: Callable[[Trainer], Plan]
    planned: Callable[[Trainer, Plan], None]
    target: str
    options: Mapping[str, Any]
    rules: Mapping[str, Any]
    unfused: str | None = None


def configure(module: LightningModule, wiring: Wiring) -> LightningModule:
    """Replace the module's ``configure_optimizers`` by one that follows the plan. Nothing else is touched."""

    def configure_optimizers(self: LightningModule) -> OptimizerLRSchedulerConfig:
        groups = groups_of(self, wiring.rules)
        plan = wiring.planner(self.trainer).with_groups(rates_of(groups))
        wiring.planned(self.trainer, plan)
        optimizer = optim.build(
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


def groups_of(module: LightningModule, rules: Mapping[str, Any]) -> list[grouping.Group]:
    """The parameter groups of a module, by rules that name parameters as their owner knows them."""
    # Without the prefix, that is, which lrkit's own wrapper adds.
    return grouping.split(module.model if isinstance(module, Supervised) else module, rules)


def rates_of(groups: Sequence[grouping.Group]) -> list[GroupRate]:
    """What the plan needs to know of parameter groups."""
    return [GroupRate(group.name, group.lr_scale, group.weight_decay) for group in groups]


def scheduler_of(trainer: Trainer) -> PlanScheduler:
    """The scheduler that ``configure`` gave to a trainer."""
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, PlanScheduler):
            return config.scheduler
    raise ConfigError("model", "must leave its optimizers to lrkit: no plan is attached to this trainer")

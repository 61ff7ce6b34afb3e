"""A plan inside a LightningModule: lrkit's own module around any network, and any existing one unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from lrkit import asked, optim
from lrkit import groups as grouping
from lrkit.errors import ConfigError
from lrkit.lightning import LightningModule, Trainer
from lrkit.plan import GroupRate, Plan
from lrkit.scheduler import PlanScheduler
from lrkit.tracks import KEY, Track, assign, needs_manual

__all__ = [
    "Supervised", "TrackWiring", "Wiring", "batch_of", "configure", "groups_of", "plan_of", "rates_of", "scheduler_for",
    "scheduler_of", "schedulers_of", "step_of", "track_groups",
]  # fmt: skip


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
        tracks: of a module with several optimizers, what each needs; the three above are not used then.
    """

    planner: Callable[[Trainer], Plan]
    planned: Callable[[Trainer, Plan], None]
    target: str
    options: Mapping[str, Any]
    rules: Mapping[str, Any]
    unfused: str | None = None
    tracks: Sequence[TrackWiring] = ()


@dataclass(frozen=True)
class TrackWiring:
    """What one of several optimizers needs; see ``Wiring``."""

    track: Track
    target: str
    options: Mapping[str, Any]
    rules: Mapping[str, Any]


def configure(module: LightningModule, wiring: Wiring) -> LightningModule:
    """Replace the module's ``configure_optimizers`` by one that follows the plan. Nothing else is touched."""

    def configure_optimizers(self: LightningModule) -> Any:
        if wiring.tracks:
            return _several(self, wiring)
        groups = groups_of(self, wiring.rules)
        plan = wiring.planner(self.trainer).with_groups(rates_of(groups))
        if not self.automatic_optimization:
            asked.refuse_several(self)
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


def _several(module: LightningModule, wiring: Wiring) -> tuple[list[Optimizer], list[Any]]:
    """Optimizers and schedulers of a module that has a track for each, in the order in which it makes its own."""
    groups = track_groups(module, wiring.tracks)
    names = {name: [n for group in split for n in group.names] for name, split in groups.items()}
    plan = wiring.planner(module.trainer)
    plan = plan.with_track_groups({name: rates_of(split) for name, split in groups.items()})
    own = asked.of(module)
    order = list(names) if own is None else asked.ordered(own, module, names)
    wiring.planned(module.trainer, plan)
    optimizers, schedulers = [], []
    for each in sorted(wiring.tracks, key=lambda each: order.index(each.track.name)):
        own_plan = plan.tracks[each.track.name]
        bases = [group.options(own_plan.base(group.lr_scale)) for group in groups[each.track.name]]
        with each.track.naming():
            optimizer = optim.build(each.target, each.options, bases, unfused=wiring.unfused)
        scheduler = PlanScheduler(optimizer, own_plan, each.track.name, plan)
        scheduler.write()
        optimizers.append(optimizer)
        schedulers.append(scheduler)
    if own is not None and own.scheduled is not None and own.scheduled != [*range(len(schedulers))]:
        shown = [schedulers[i] for i in own.scheduled]  # `self.lr_schedulers()` in its steps finds as many as it made
        if shown:
            vars(module)["lr_schedulers"] = lambda: shown[0] if len(shown) == 1 else shown
    return optimizers, [{"scheduler": scheduler, "interval": "step"} for scheduler in schedulers]


def track_groups(module: LightningModule, tracks: Sequence[TrackWiring]) -> dict[str, list[grouping.Group]]:
    """The parameter groups of each track.

    Raises:
        ConfigError: the module leaves its steps to Lightning, or a parameter is in no track, or in two.
    """
    if module.automatic_optimization:
        raise needs_manual(type(module).__name__)
    members = assign({name: p.requires_grad for name, p in module.named_parameters()}, [each.track for each in tracks])
    groups = {}
    for each in tracks:
        with each.track.naming():
            groups[each.track.name] = grouping.split(module, each.rules, frozenset(members[each.track.name]))
    return groups


def groups_of(module: LightningModule, rules: Mapping[str, Any]) -> list[grouping.Group]:
    """The parameter groups of a module, by rules that name parameters as their owner knows them."""
    # Without the prefix, that is, which lrkit's own wrapper adds.
    return grouping.split(module.model if isinstance(module, Supervised) else module, rules)


def rates_of(groups: Sequence[grouping.Group]) -> list[GroupRate]:
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
    """How far a run has come: of one optimizer its steps, as Lightning counts them; of several, the batches begun."""
    tracks = any(getattr(each.scheduler, "track", "") for each in trainer.lr_scheduler_configs)
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready if tracks else trainer.global_step


class Supervised(LightningModule):
    """A network with a loss: logs ``train/loss``, ``val/loss`` and, for classes, ``val/accuracy``.

    Args:
        model: maps inputs ``x`` of shape ``(batch, ...)`` to logits ``(batch, [time,] classes)`` or values
            ``(batch, [targets])``.
        loss: ``cross_entropy`` (nats a target) or ``mse``.
    """

    def __init__(self, model: nn.Module, loss: str = "cross_entropy") -> None:
        super().__init__()
        if loss not in ("cross_entropy", "mse"):
            raise ConfigError("data.loss", "must be cross_entropy or mse", loss)
        self.model = model
        self.loss = loss

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the name of each hook in the module, some forty times a step; text in place of text, or of
        # nothing, is no parameter and no submodule, which is what torch would look for.
        if (value is None or type(value) is str) and name in self.__dict__:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.model(x)
        return result

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        loss, _ = self._measure(batch)
        trainer = self.trainer
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        # Where nobody would write it down, it need not be handed over either: that takes as long as a small network.
        if trainer.is_last_batch or (trainer.global_step + 1) % every == 0:
            self.log("train/loss", loss.detach(), batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self._evaluate("test", batch)

    def _evaluate(self, stage: str, batch: Sequence[Tensor]) -> None:
        loss, accuracy = self._measure(batch)
        options: dict[str, Any] = {"on_epoch": True, "sync_dist": True, "batch_size": len(batch[0])}
        self.log(f"{stage}/loss", loss, **options)
        if accuracy is not None:
            self.log(f"{stage}/accuracy", accuracy, **options)

    def _measure(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Loss and, for classes outside of training, accuracy."""
        x, y = batch
        out = self(x)
        loss = self.loss_of(out, y)
        if self.training or self.loss == "mse":
            return loss, None
        right = out.flatten(0, -2).argmax(-1) == y.flatten()
        return loss, right.to(torch.get_default_dtype()).mean()

    def loss_of(self, out: Tensor, y: Tensor) -> Tensor:
        """The loss of what the network said, the mean over all targets: a scalar."""
        if self.loss == "mse":
            return F.mse_loss(out.view_as(y) if out.numel() == y.numel() else out, y)
        return F.cross_entropy(out.flatten(0, -2), y.flatten())

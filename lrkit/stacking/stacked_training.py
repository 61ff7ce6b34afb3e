"""The training of a stack: one loop over optimizer steps, in which each member has its own rates, batches and end.

At each step the losses, and the norms of the gradients, of all members come to the host together; then each member's
guard decides about its step. A member that diverged, was stopped or reached its last step leaves the stack with its
state, and the others go on without it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrkit.base.metric_names import higher_is_better
from lrkit.optim.param_groups import ParamGroup
from lrkit.planning.plan import Plan
from lrkit.stacking.stacked_module import StackedModule
from lrkit.stacking.stacked_optimizer import StackedOptimizer, StepValues, build_stacked_optimizer

__all__ = ["Member", "MemberState", "Record", "StackSettings", "Validation", "train_stack"]

#: Returns the reason against the next step, from the loss and the norm of the gradients; empty for none.
Check = Callable[[float, float], str]


@dataclass(frozen=True)
class Member:
    """A training of a stack, before it begins.

    Args:
        network: its network, initialised.
        groups: the parameter groups of the network; their names are the same in each member.
        plan: its plan, with the same groups.
        order: returns, for an epoch, the indices of the samples of each batch.
        order_key: equal for members with the same order.
        check: decides before each step; see ``Check``.
        watch: is called with the losses after each step, or, if each step is validated, with the validation losses;
            returns a reason to end, or an empty string.
        steps: the optimizer steps to take; None: those of the plan.
    """

    network: nn.Module
    groups: Sequence[ParamGroup]
    plan: Plan
    order: Callable[[int], Sequence[Tensor]]
    order_key: Any = None
    check: Check = lambda loss, norm: ""
    watch: Callable[[Sequence[float]], str] = lambda losses: ""
    steps: int | None = None

    def with_end(self, steps: int | None, watch: Callable[[Sequence[float]], str]) -> Member:
        """Return the member with another end: after ``steps`` steps, or where ``watch`` gives a reason."""
        return replace(self, steps=steps, watch=watch)

    @property
    def last(self) -> int:
        """The number of optimizer steps to take."""
        if self.steps is not None:
            return self.steps
        horizon = self.plan.horizon
        return horizon.require("steps", "horizon.steps") if horizon.end is None else horizon.end


@dataclass(frozen=True)
class StackSettings:
    """The settings that all members of a stack share.

    Args:
        target: class path of the optimizer.
        options: its options, without the rate.
        loss: ``cross_entropy`` or ``mse``.
        fetch: returns inputs and targets of training samples by their indices.
        validation: the batches of a validation; empty: no validation.
        every: epochs between two validations; 0: a validation after each step; infinite: one after the last step.
        clip: largest norm of the gradients (or value), None: no clipping.
        clip_by: ``norm`` or ``value``.
        monitor: the metric whose best value decides which state is kept; None: none is kept.
        batches: batches of an epoch; None: all.
        device: the device that computes.
        interrupted: returns whether to end all members after this step.
        keeps_epochs: whether the record of a member has its states at the ends of its last two complete epochs.
    """

    target: str
    options: Mapping[str, Any]
    loss: str
    fetch: Callable[[Tensor], tuple[Tensor, Tensor]]
    validation: Sequence[tuple[Tensor, Tensor]] = ()
    every: float = 1
    clip: float | None = None
    clip_by: str = "norm"
    monitor: str | None = None
    batches: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    interrupted: Callable[[], bool] = lambda: False
    keeps_epochs: bool = False


@dataclass(frozen=True)
class Validation:
    """The metrics of a validation, after ``step`` optimizer steps, in ``epoch`` (from 0)."""

    step: int
    epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class MemberState:
    """Weights and optimizer state of a member, after ``step`` optimizer steps.

    Args:
        step: the number of steps.
        network: the state dict of the network.
        optimizer: name of a parameter -> its state in the optimizer, by torch's names.
        counts_steps: whether torch's state also has the number of steps.
    """

    step: int
    network: Mapping[str, Tensor]
    optimizer: Mapping[str, Mapping[str, Tensor]]
    counts_steps: bool


@dataclass
class Record:
    """What a member did.

    Args:
        losses: the training loss of each step.
        samples: the number of samples in each step.
        validations: its validations, in order.
        ended: the reason of an end before its last step: of ``watch``, ``interrupted``, or empty.
        against: the reason of the guard against the step after the last one; empty if it did not diverge.
        failed_loss: the loss of that step.
        state: its state at the end.
        best: its state at the best validation, by the monitored metric.
        best_value: the monitored metric there, negated if higher is better.
        epochs: its states at the ends of its last two complete epochs.
    """

    losses: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    validations: list[Validation] = field(default_factory=list)
    ended: str = ""
    against: str = ""
    failed_loss: float = math.nan
    state: MemberState | None = None
    best: MemberState | None = None
    best_value: float = math.nan
    epochs: deque[MemberState] = field(default_factory=lambda: deque(maxlen=2))


INTERRUPTED = "interrupted"  #: why a member ended that ``StackSettings.interrupted`` ended


def train_stack(members: Sequence[Member], settings: StackSettings) -> list[Record]:
    """Train the members of a stack; return the record of each.

    The numbers of a member are those of its own training up to rounding: the operations are the same, but kernels for
    several members may add in another order.
    """
    return _Stack(members, settings).train()


class _Stack:
    """A stack during its training; ``active`` has the members that still train, in the order of the rows."""

    def __init__(self, members: Sequence[Member], settings: StackSettings) -> None:
        self.members, self.settings = members, settings
        self.records = [Record() for _ in members]
        names = [group.names for group in members[0].groups]
        self.module = StackedModule([each.network for each in members], names, settings.device)
        self.optimizer: StackedOptimizer = build_stacked_optimizer(
            settings.target, settings.options, self.module.rows, self.module.segments
        )
        self.validation = [(x.to(settings.device), y.to(settings.device)) for x, y in settings.validation]
        self.active = [*range(len(members))]
        self.step = self.epoch = 0

    def train(self) -> list[Record]:
        self._leave([i for i in self.active if self.members[i].last <= 0])  # else none leaves before its first step
        while self.active:
            orders = {key: self.members[i].order(self.epoch) for key, i in self.first_of.items()}
            count = len(next(iter(orders.values()))[: self.settings.batches])
            for number in range(count):
                self._train_batch(orders, number)
                self._end_step(is_last_batch=number == count - 1)
                if not self.active:
                    break
            self.epoch += 1
        return self.records

    def _choose_indices(self, orders: Mapping[Any, Sequence[Tensor]], number: int) -> Tensor:
        """Return the samples of a batch: (members, samples), or (samples,) if all members have the same."""
        if len(self.first_of) == 1:
            return orders[next(iter(self.first_of))][number]
        return torch.stack([orders[self._order_key(i)][number] for i in self.active])

    def _order_key(self, i: int) -> Any:
        key = self.members[i].order_key
        return ("own", i) if key is None else key

    def _train_batch(self, orders: Mapping[Any, Sequence[Tensor]], number: int) -> None:
        """Take a step of each active member; members whose guard is against it leave before."""
        indices = self._choose_indices(orders, number)
        shared, size = indices.ndim == 1, indices.shape[-1]
        x, y = self._fetch(indices)
        losses = self._compute_losses(self.module.outputs(x, shared, training=True), y, shared)
        gradients = self.module.gradients(losses)
        norms = torch.linalg.vector_norm(gradients, dim=1)
        against = []
        for i, loss, norm in zip(self.active, *torch.stack([losses.detach(), norms]).tolist(), strict=True):
            record = self.records[i]
            if why := self.members[i].check(loss, norm):
                record.against, record.failed_loss = why, loss
                against.append(i)
            else:
                record.losses.append(loss)
                record.samples.append(size)
        if against:
            stays = [row for row, i in enumerate(self.active) if i not in against]
            gradients, norms = gradients[stays], norms[stays]
            self._leave(against)
        if self.active:
            self.optimizer.step(self.module.rows, self._clip(gradients, norms), self._values_of_step())
            self.step += 1

    def _fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self.settings.fetch(indices.flatten())
        x, y = x.to(self.settings.device), y.to(self.settings.device)
        return x.view(*indices.shape, *x.shape[1:]), y.view(*indices.shape, *y.shape[1:])

    def _compute_losses(self, out: Tensor, y: Tensor, shared: bool) -> Tensor:
        """Return the mean loss of each member over its samples."""
        if shared:
            y = y.expand(len(out), *y.shape)
        if self.settings.loss == "mse":
            return F.mse_loss(out, y.view_as(out), reduction="none").flatten(1).mean(1)
        each = F.cross_entropy(out.flatten(0, -2), y.flatten(), reduction="none")
        return each.view(len(out), -1).mean(1)

    def _clip(self, gradients: Tensor, norms: Tensor) -> Tensor:
        """Return the gradients, clipped as ``torch.nn.utils`` clips those of each member."""
        limit = self.settings.clip
        if not limit:
            return gradients
        if self.settings.clip_by == "value":
            return gradients.clamp(-limit, limit)
        factor = (limit / (norms + 1e-6)).clamp(max=1.0)
        return gradients * factor.unsqueeze(1)

    def _values_of_step(self) -> list[StepValues]:
        """Return the rates, weight decays and momenta of this step: the plan's numbers."""
        plans, t = [self.members[i].plan for i in self.active], self.step
        values = []
        for g in range(len(self.module.segments)):
            groups = [plan.groups[g] for plan in plans]
            rates = [plan.lr(group, t) for plan, group in zip(plans, groups, strict=True)]
            if g in self._constant_decays:
                decay = self._constant_decays[g]
            else:
                of_step = [plan.weight_decay(group, t) for plan, group in zip(plans, groups, strict=True)]
                decay = self._column(of_step) if any(of_step) else None
            values.append(StepValues(self._column(rates), decay, self._momenta_of_step(g, t)))
        return values

    def _momenta_of_step(self, g: int, t: int) -> Tensor | None:
        """Return the momentum of each member, where a plan drives one; None if all have the option's."""
        plans = [self.members[i].plan for i in self.active]
        curves = [plan.momentum_of(plan.groups[g]) for plan in plans]
        if all(curve is None for curve in curves):
            return None
        options = self.settings.options
        usual = options["betas"][0] if "betas" in options else options.get("momentum", 0.0)
        return self._column([usual if curve is None else curve(t) for curve in curves])

    def _column(self, numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64, device=self.settings.device).unsqueeze(1)

    def _read_constants(self) -> None:
        """Read what stays until a member leaves: the orders of samples, the weight decays that no curve drives."""
        self.first_of: dict[Any, int] = {}
        for i in self.active:
            self.first_of.setdefault(self._order_key(i), i)
        plans = [self.members[i].plan for i in self.active]
        constant = all(plan.decay_curve is None and not plan.stages for plan in plans)
        self._constant_decays: dict[int, Tensor | None] = {}
        for g in range(len(self.module.segments)) if constant and plans else ():
            decays = [plan.weight_decay(plan.groups[g], 0) for plan in plans]
            self._constant_decays[g] = self._column(decays) if any(decays) else None

    def _end_step(self, is_last_batch: bool) -> None:
        """Validate where it is due, and let the members leave that have ended."""
        stop = self.settings.interrupted()
        finished = [i for i in self.active if self.step >= self.members[i].last]
        every = self.settings.every
        if self.active and self.validation:
            of_epoch = every in (0, math.inf) or (self.epoch + 1) % every == 0  # as Lightning, which skips epochs
            due = every == 0 or (is_last_batch and of_epoch and every != math.inf)
            if due or (finished and of_epoch):
                self._validate([*self.active] if due else finished)
        for row, i in enumerate(self.active):
            record, watch = self.records[i], self.members[i].watch
            seen = [v.metrics["val/loss"] for v in record.validations] if every == 0 else record.losses
            record.ended = INTERRUPTED if stop else watch(seen)
            if is_last_batch and self.settings.keeps_epochs:
                record.epochs.append(self._copy_state(row))
        self._leave([i for i in self.active if self.step >= self.members[i].last or self.records[i].ended])

    @torch.no_grad()
    def _validate(self, members: Sequence[int]) -> None:
        """Validate all members, and keep the metrics of some."""
        names = ("val/loss",) if self.settings.loss == "mse" else ("val/loss", "val/accuracy")
        sums: dict[str, Any] = dict.fromkeys(names, 0.0)
        count = 0
        for x, y in self.validation:
            out = self.module.outputs(x, shared=True, training=False)
            sums["val/loss"] = sums["val/loss"] + self._compute_losses(out, y, shared=True) * len(y)
            if "val/accuracy" in sums:
                correct = (out.argmax(-1) == y).flatten(1).to(torch.get_default_dtype()).mean(1)
                sums["val/accuracy"] = sums["val/accuracy"] + correct * len(y)
            count += len(y)
        numbers = {name: (total / count).tolist() for name, total in sums.items()}
        for row, i in enumerate(self.active):
            if i in members:
                metrics = {name: values[row] for name, values in numbers.items()}
                self.records[i].validations.append(Validation(self.step, self.epoch, metrics))
                self._keep_best(i, row, metrics)

    def _keep_best(self, i: int, row: int, metrics: Mapping[str, float]) -> None:
        """Keep the state of a member if its monitored metric is the best so far."""
        monitor, record = self.settings.monitor, self.records[i]
        if monitor is None:
            return
        value = -metrics[monitor] if higher_is_better(monitor) else metrics[monitor]
        value = math.inf if math.isnan(value) else value
        if record.best is None or value < record.best_value:
            record.best, record.best_value = self._copy_state(row), value

    def _copy_state(self, row: int) -> MemberState:
        moments = {name: self.module.split_rows(rows[row].clone().cpu()) for name, rows in self.optimizer.state.items()}
        own: dict[str, dict[str, Tensor]] = {}
        for name, parts in moments.items():
            for parameter, tensor in parts.items():
                own.setdefault(parameter, {})[name] = tensor
        return MemberState(self.step, self.module.state_of(row), own, self.optimizer.counts)

    def _leave(self, members: Sequence[int]) -> None:
        """Record the state of members that have ended, and go on without them."""
        if not members and self.step:
            return
        for row, i in enumerate(self.active):
            if i in members:
                self.records[i].state = self._copy_state(row)
        stays = [row for row, i in enumerate(self.active) if i not in members]
        if members and stays:
            self.module.keep(stays)
            self.optimizer.keep(stays)
        self.active = [self.active[row] for row in stays]
        self._read_constants()

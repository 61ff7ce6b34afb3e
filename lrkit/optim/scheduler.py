"""The one place where a plan meets an optimizer.

``PlanScheduler`` writes ``plan.lr(group, t)`` into the parameter groups, where ``t`` counts *applied* optimizer
steps. It is stateless but for that count and the gain: rates are recomputed from the plan, never from each other, so
no rounding accumulates, and a restored count is a restored rate.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrkit.planning.guard import Reduction
from lrkit.planning.plan import GroupRate, Plan
from lrkit.planning.plateau import PlateauState
from lrkit.schedules.curve import Curve
from lrkit.schedules.shapes.schedule import check_number

__all__ = ["PlanScheduler"]


class JoinedGroup(NamedTuple):
    """What a group that joined during the run asked for: from then on it follows the plan in proportion.

        lr[t] = lr x (curve(t) x gain(t) / multiplier)

    so that at the step for which it asked, the rate is ``lr`` to the bit.

    Args:
        lr: the rate that it asked for.
        multiplier: curve x gain of the step for which it asked; 1 where that is 0, so that ``lr`` is its base there.
        weight_decay: the base of its weight decay.
    """

    lr: float
    multiplier: float
    weight_decay: float


class PlanScheduler(LRScheduler):
    """Drives an optimizer by a plan; usable wherever torch's ``LRScheduler`` is.

    Constructing it changes nothing. The rates of step ``t`` are written just before the optimizer takes step ``t``
    (and ahead of it by ``step()``, so that a reader in between sees the coming rate). A step that mixed
    precision skipped because of infinite gradients does not count.

    Args:
        optimizer: its groups may carry ``name`` and ``lr_scale``. A group that joins later has exactly the rate it
            comes with at its first step, and follows the plan from there; so it does again whenever its owner (a
            callback such as ``BackboneFinetuning``) writes another rate into it. The rates of the plan's groups stay.
        plan: what to follow.
        track: the name of this optimizer's track, where the run has several.
        run: the plan of the whole run, of which ``plan`` is a track; else they are the same.

    >>> import torch
    >>> from lrkit.planning.resolve import resolve_plan
    >>> from lrkit.schedules.horizon import Horizon
    >>> from lrkit.schedules.shapes import Linear
    >>> sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    >>> scheduler = PlanScheduler(sgd, resolve_plan(lr=0.1, schedule=Linear(), horizon=Horizon(4)))
    >>> rates = []
    >>> for _ in range(4):
    ...     sgd.step()
    ...     rates.append(sgd.param_groups[0]["lr"])
    ...     scheduler.step()
    >>> rates
    [0.1, 0.07500000000000001, 0.05, 0.025]
    """

    def __init__(self, optimizer: Optimizer, plan: Plan, track: str = "", run: Plan | None = None) -> None:
        # LRScheduler.__init__ is not called: it would patch optimizer.step, write to the groups and count for itself.
        self.optimizer = optimizer
        self.plan = plan
        self.track = track
        self.run = plan if run is None else run
        self.applied = 0
        self.gain = 1.0
        self.plateau = PlateauState()
        self.reduction = Reduction()
        self._planned = {
            group.name: (plan.base(group.lr_scale), plan.handed_weight_decay(group)) for group in plan.groups
        }
        self._by_name = {group.name: group for group in plan.groups}
        self._joined: dict[str, JoinedGroup] = {}
        self._groups: list[dict[str, Any]] | None = None  # of the optimizer, when they were looked at last
        self._bases: list[float] = []
        self._late: dict[int, float] = {}  # of groups that joined: the multiplier at which they have their base
        self._several = False  # whether the groups follow several curves
        self._curves, self._followed = _each_once([])  # each of them, and of each group which it follows
        self._momenta, self._cycled = _each_once([])  # the same of momentum
        self._decays: list[float] = []
        self._tensors: dict[int, Tensor] = {}
        self._plain = False  # whether there is nothing to write but floats
        self._rates: list[float | Tensor] = []  # as they were written last, for step ``_written``
        self._written = -1
        self._skipping: list[dict[str, Any]] | None = None
        self.left_out = 0  # steps of this process that ``skip`` left out
        self._reported = False
        # A compiled optimizer must leave its graph for these, and not look inside.
        self._outside: Any = torch.compiler.disable(_call_hook)  # type: ignore[no-untyped-call]
        self._hooks = (
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        )

    @property
    def last_epoch(self) -> int:  # type: ignore[override]
        """Applied optimizer steps, under torch's name for it."""
        return self.applied

    @property
    def total_gain(self) -> float:
        """The factor ``gain``: what was set by hand, times reduce-on-plateau's, times the divergence guard's."""
        gain = self.gain * self.plateau.gain
        return gain * self.reduction.at(self.applied) if self.reduction.times else gain

    def step(self, epoch: int | None = None) -> None:
        """Write the rates of the coming optimizer step. Calling it twice, or without a step, changes nothing."""
        groups = self.optimizer.param_groups
        if groups is not self._groups or len(groups) != len(self._bases):
            if groups is self._groups:
                self._handle_edits(groups)
            self._look_at(groups)
        elif self._rates and [group["lr"] for group in groups] != self._rates:
            self._handle_edits(groups)
        gain = self.total_gain
        self._written = self.applied
        if not self._plain:
            self._write_all(groups, gain)
            return
        if self._several:
            at = [curve(self.applied) for curve in self._curves]
            self._rates = [base * at[i] * gain for base, i in zip(self._bases, self._followed, strict=True)]
        else:
            multiplier = self.plan.curve(self.applied)
            self._rates = [base * multiplier * gain for base in self._bases]
        for group, lr in zip(groups, self._rates, strict=True):
            group["lr"] = lr

    def write(self) -> None:
        """Write every group's rate, and what else the plan drives, for step ``applied``."""
        self.step()

    def _write_all(self, groups: list[dict[str, Any]], gain: float) -> None:
        """The same where rates are tensors, or momentum or weight decay follow curves of their own."""
        plan, t = self.plan, self.applied
        at, momenta = [curve(t) for curve in self._curves], [curve(t) for curve in self._momenta]
        decay = None if plan.decay_curve is None else plan.decay_curve(t)
        written: list[float | Tensor] = []
        for i, (group, base, weight_decay) in enumerate(zip(groups, self._bases, self._decays, strict=True)):
            late, multiplier = self._late.get(i), at[self._followed[i]]
            lr = base * multiplier * gain if late is None else base * (multiplier * gain / late)
            if (tensor := self._tensors.get(i)) is not None:
                # In place, for a compiled optimizer recompiles for a new float but not for a new value.
                tensor.fill_(lr)
            group["lr"] = lr if tensor is None else tensor
            written.append(group["lr"])
            if (cycled := self._cycled[i]) >= 0:
                momentum = momenta[cycled]
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                elif "momentum" in group:
                    group["momentum"] = momentum
            if plan.drives_weight_decay and "weight_decay" in group:
                group["weight_decay"] = weight_decay if decay is None else weight_decay * decay
        self._rates = written

    def _look_at(self, groups: list[dict[str, Any]]) -> None:
        """The groups as they are now: what each has for a base, and whether there is more to write than rates."""
        self._groups = groups
        bases, self._late = [], {}
        for i, group in enumerate(groups):
            base = self._get_base(i, group)
            if isinstance(base, JoinedGroup):
                self._late[i] = base.multiplier
                base = base.lr, base.weight_decay
            bases.append(base)
        self._bases, self._decays = [lr for lr, _ in bases], [decay for _, decay in bases]
        # Tensors of its own, for torch lets all groups, and the caller, share one.
        self._tensors = {i: group["lr"].clone() for i, group in enumerate(groups) if isinstance(group["lr"], Tensor)}
        self._look_at_curves([self._by_name.get(self._get_name(i, group)) for i, group in enumerate(groups)])
        driven = self._momenta or self.plan.drives_weight_decay
        self._plain = not (self._tensors or self._late or driven)

    def _look_at_curves(self, groups: Sequence[GroupRate | None]) -> None:
        """The curves that the groups follow: one that joined, which the plan does not have, follows the run's."""
        plan = self.plan
        self._curves, self._followed = _each_once([plan.curve if g is None else plan.curve_of(g) for g in groups])
        self._several = any(curve is not plan.curve for curve in self._curves)
        self._momenta, self._cycled = _each_once([plan.momentum if g is None else plan.momentum_of(g) for g in groups])

    def set_gain(self, gain: float) -> None:
        """Multiply all rates by ``gain`` from the next step on, on top of schedule and plateau. Checkpointed.

        The supported way to change a rate during a run: what is written into ``param_groups`` directly is undone.
        """
        check_number("gain", gain, None, 0, None)
        self.gain = float(gain)
        self.write()

    def observe(self, metric: float) -> bool:
        """Show reduce-on-plateau one more value of its metric; whether the gain changed."""
        if self.plan.plateau is None:
            return False
        before = self.plateau.gain
        self.plateau = self.plan.plateau.observe(self.plateau, metric)
        self.write()
        return self.plateau.gain != before

    def reduce(self, factor: float, over: int) -> float:
        """Lower all rates by ``factor``, reached from below within ``over`` steps; the new gain. For the guard."""
        self.reduction = self.reduction.once_more(factor, self.applied, over)
        self._rates = []  # the optimizer's state has been put back, and its rates with it: no outside edit
        self.write()
        return self.reduction.gain

    def skip(self, leave_out: bool = True) -> None:
        """Leave out the step that the optimizer is about to take, or not: no weight, no state and no count changes.

        Called between the gradients and the step. Without gradients an optimizer changes neither weights nor their
        state; some count steps in their groups all the same, which is undone.
        """
        self._skipping = None
        if not leave_out:
            return
        self.left_out += 1
        self._skipping = [
            {k: v.clone() if isinstance(v, Tensor) else v for k, v in group.items() if k not in ("params", "lr")}
            for group in self.optimizer.param_groups
        ]
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def get_last_lr(self) -> list[float | Tensor]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def get_lr(self) -> list[float | Tensor]:
        return self.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        return {
            "applied": self.applied,
            "gain": self.gain,
            "plateau": asdict(self.plateau),
            "reduction": asdict(self.reduction),
            "joined": {name: list(joined) for name, joined in self._joined.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.applied = state_dict["applied"]
        self.gain = state_dict["gain"]
        self.plateau = PlateauState(**state_dict["plateau"])
        self.reduction = Reduction(**state_dict.get("reduction", {}))
        # Older checkpoints have two numbers, of which the rate is a base.
        self._joined = {
            name: JoinedGroup(*of) if len(of) == 3 else JoinedGroup(of[0], 1.0, of[1])
            for name, of in state_dict["joined"].items()
        }
        self._groups = None  # to be looked at again
        self._rates = []  # the optimizer's own rates were restored too: no outside edit

    def _get_base(self, i: int, group: dict[str, Any]) -> tuple[float, float] | JoinedGroup:
        """The constant parts of a group's rate and weight decay: the plan's, or what a later group joined with."""
        name = self._get_name(i, group)
        bases = self._planned.get(name) or self._joined.get(name)
        if bases is None:
            bases = self._joined[name] = self._make_joined_group(group["lr"], float(group.get("weight_decay", 0.0)))
        return bases

    def _get_name(self, i: int, group: dict[str, Any]) -> str:
        name: str | None = group.get("name")
        if name is None:  # torch names nothing by itself
            name = self.plan.groups[i].name if i < len(self.plan.groups) else f"group_{i}"
        return name

    def _make_joined_group(self, lr: float | Tensor, weight_decay: float) -> JoinedGroup:
        """A group that is to have the rate ``lr`` at the coming step."""
        return JoinedGroup(float(lr), self.plan.curve(self.applied) * self.total_gain or 1.0, weight_decay)

    def _handle_edits(self, groups: list[dict[str, Any]]) -> None:
        """Take over the rate that the owner of a group that joined gave it; of any other say, once, that it stands."""
        edited = [i for i, lr in enumerate(self._rates) if groups[i]["lr"] is not lr and groups[i]["lr"] != lr]
        for i in self._late.keys() & set(edited):
            name = self._get_name(i, groups[i])
            self._joined[name] = self._make_joined_group(groups[i]["lr"], self._joined[name].weight_decay)
            edited.remove(i)
            self._groups = None
        if self._groups is None:
            self._look_at(groups)
        if self._reported or not edited:
            return
        self._reported = True
        group, lr = groups[edited[0]], self._rates[edited[0]]
        warnings.warn(
            f"the learning rate of group {group.get('name', edited[0])!r} was set to {group['lr']:g} from outside; the"
            f" plan's {lr:g} stands. To change rates during a run use set_gain(x)",
            stacklevel=4,
        )

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Just before a step: the rates were written ahead, and are written again after an outside edit."""
        groups = optimizer.param_groups
        if self._plain and self._written == self.applied and groups is self._groups:
            if [group["lr"] for group in groups] != self._rates:
                self._handle_edits(groups)
                self.write()
        elif torch.compiler.is_compiling():
            self._outside(self._before_step, optimizer)
        else:
            self.write()

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        if not self._plain and torch.compiler.is_compiling():
            self._outside(self._after_step, optimizer)
        elif self._skipping is not None:
            for group, before in zip(optimizer.param_groups, self._skipping, strict=True):
                group.update(before)
            self._skipping = None
            self._rates = []
            self.write()
        else:
            # A fused optimizer under GradScaler is called even when the gradients were infinite, and then does nothing.
            found_inf = getattr(optimizer, "found_inf", None)
            if found_inf is None or not bool(found_inf):
                self.applied += 1


def _each_once(followed: Sequence[Curve | None]) -> tuple[list[Curve], list[int]]:
    """The curves, each once, and for each place which of them it is; -1 for none."""
    curves = {id(curve): curve for curve in followed if curve is not None}
    order = {key: i for i, key in enumerate(curves)}
    return [*curves.values()], [order.get(id(curve), -1) for curve in followed]


def _call_hook(hook: Callable[..., None], *given: Any) -> None:
    hook(*given)

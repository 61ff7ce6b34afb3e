"""Writes the rates of a plan into an optimizer: the only code of lrkit that does.

``PlanScheduler`` writes ``plan.lr(group, t)`` into the parameter groups, where ``t`` counts *applied* optimizer steps.
Its only state is this count and the gain. It computes each rate from the plan, never from an earlier rate: rounding
errors do not accumulate, and a restored count gives the same rate.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrkit.optim.applied_steps import AppliedSteps
from lrkit.optim.joined_group import JoinedGroup
from lrkit.optim.state_creation import is_state_creation
from lrkit.planning.guard import Reduction
from lrkit.planning.plan import GroupRate, Plan
from lrkit.planning.plateau import PlateauState
from lrkit.schedules.curve import Curve
from lrkit.schedules.shapes.schedule import check_number

__all__ = ["PlanScheduler"]


class PlanScheduler(LRScheduler):
    """Sets the rates of an optimizer by a plan, with the interface of torch's ``LRScheduler``.

    The constructor does not change the optimizer. The rates of step ``t`` are written just before the optimizer takes
    step ``t``, and already by ``step()``, so that code in between reads the rate of the next step. A step that mixed
    precision skips because of infinite gradients does not count; where only the GPU knows, ``step()`` takes the last
    step as applied, and the rates are written again before the next one if it was not.

    Args:
        optimizer: the optimizer; its groups may have ``name`` and ``lr_scale``. A group that is added during the run
            has its own rate at its first step, and follows the plan from there. The same holds after other code, such
            as the callback ``BackboneFinetuning``, writes a rate into such a group. The rates of the plan's own groups
            cannot be changed in this way.
        plan: the plan to follow.
        track: the name of this optimizer's track in a run with several optimizers.
        run: the plan of the whole run, if ``plan`` is a track of it; None: ``plan``.

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
        # LRScheduler.__init__ is not called: it would patch optimizer.step, write to the groups and count steps itself.
        self.optimizer = optimizer
        self.plan = plan
        self.track = track
        self.run = plan if run is None else run
        self.steps = AppliedSteps()
        self.gain = 1.0
        self.plateau = PlateauState()
        self.reduction = Reduction()
        self._planned: dict[str, tuple[float, float]] = {}  # constant parts of each group's rate and weight decay
        self._from, self._until = math.inf, math.inf  # the steps for which they hold
        self._share = 1.0  # the factor of the batch size for groups that joined, where it changes
        self._by_name = {group.name: group for group in plan.groups}
        self._joined: dict[str, JoinedGroup] = {}
        self._groups: list[dict[str, Any]] | None = None  # the optimizer's groups at the last check
        self._bases: list[float] = []
        self._joined_multipliers: dict[int, float] = {}  # added groups: where they have their base rate
        self._several = False  # whether the groups follow several curves
        self._curves, self._curve_index = _index_curves([])  # the different curves, and the index of each group's curve
        self._momenta, self._momentum_index = _index_curves([])  # the same for momentum
        self._decays: list[float] = []
        self._tensors: dict[int, Tensor] = {}
        self._has_only_floats = False  # whether all values to write are floats
        self._rates: list[float | Tensor] = []  # the rates written last, for step ``_written``
        self._written = -1
        self._skipping: list[dict[str, Any]] | None = None
        self.left_out = 0  # steps of this process that ``skip`` left out
        self._reported = False
        self.creates_state = False  # whether the current step only creates the optimizer's state
        # A compiled optimizer must call these outside of its graph, and not trace them.
        self._call_uncompiled: Any = torch.compiler.disable(_call_hook)  # type: ignore[no-untyped-call]
        self._hooks = (
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        )

    @property
    def applied(self) -> int:
        """Applied optimizer steps. Waits for a GPU that skips steps itself; ``steps`` has counts that do not."""
        if not self.steps.is_known:
            self._settle()
        return self.steps.at_most

    @applied.setter
    def applied(self, count: int) -> None:
        self.steps.set(count)

    @property
    def last_epoch(self) -> int:  # type: ignore[override]
        """Applied optimizer steps, under torch's name."""
        return self.applied

    @property
    def total_gain(self) -> float:
        """The factor ``gain``: that of ``set_gain``, times reduce-on-plateau's, times the divergence guard's."""
        gain = self.gain * self.plateau.gain
        return gain * self.reduction.at(self.applied) if self.reduction.times else gain

    def step(self, epoch: int | None = None) -> None:
        """Write the rates of the next optimizer step. A second call before that step has no effect."""
        groups = self.optimizer.param_groups
        if not (self.steps.is_known or self._changes_only_count(groups)):
            self._settle()
        t = self.steps.at_most
        if stage := not self._from <= t < self._until:
            self._enter_stage()
        if stage or groups is not self._groups or len(groups) != len(self._bases):
            if groups is self._groups:
                self._handle_edits(groups)
            self._read_groups(groups)
        elif self._rates and [group["lr"] for group in groups] != self._rates:
            self._handle_edits(groups)
        gain = self.total_gain if self.reduction.times else self.gain * self.plateau.gain
        self._written = t
        if not self._has_only_floats:
            self._write_all(groups, gain)
            return
        written: list[float | Tensor] = []
        if self._several:
            at = [curve(t) for curve in self._curves]
            for group, base, i in zip(groups, self._bases, self._curve_index, strict=True):
                group["lr"] = lr = base * at[i] * gain
                written.append(lr)
        else:
            multiplier = self.plan.curve(t)
            for group, base in zip(groups, self._bases, strict=True):
                group["lr"] = lr = base * multiplier * gain
                written.append(lr)
        self._rates = written

    def write(self) -> None:
        """Write every group's rate and other scheduled values for step ``applied``."""
        self.step()

    def _changes_only_count(self, groups: list[dict[str, Any]]) -> bool:
        """Whether nothing but the count has changed since the rates were written: then they can be written again."""
        same = groups is self._groups and len(groups) == len(self._bases) and not self.reduction.times
        return same and self._from < self.steps.at_most < self._until and [g["lr"] for g in groups] == self._rates

    def _settle(self) -> None:
        """Learn whether the last step was skipped; then the rates are written again for the same step."""
        if self.steps.settle() and self._written > self.steps.at_most:
            self.step()

    def _enter_stage(self) -> None:
        """Take the constant parts of the rates for the batch size of this step, and the steps that have this size."""
        plan, t = self.plan, self.applied
        self._from = max((first for first in plan.stages if first <= t), default=0)
        self._until = min((first for first in plan.stages if first > t), default=math.inf)
        self._planned = {
            group.name: (plan.base(group.lr_scale, t), plan.handed_weight_decay(group, t)) for group in plan.groups
        }
        self._share = plan.batch_factor(t) if plan.stages else 1.0

    def _write_all(self, groups: list[dict[str, Any]], gain: float) -> None:
        """Write the values for rates that are tensors, or for scheduled momentum or weight decay."""
        plan, t = self.plan, self.steps.at_most
        at, momenta = [curve(t) for curve in self._curves], [curve(t) for curve in self._momenta]
        decay = None if plan.decay_curve is None else plan.decay_curve(t)
        written: list[float | Tensor] = []
        for i, (group, base, weight_decay) in enumerate(zip(groups, self._bases, self._decays, strict=True)):
            late, multiplier = self._joined_multipliers.get(i), at[self._curve_index[i]]
            lr = base * multiplier * gain if late is None else base * (multiplier * gain * self._share / late)
            if (tensor := self._tensors.get(i)) is not None:
                # In place: a compiled optimizer recompiles for a new float, but not for a new value of a tensor.
                tensor.fill_(lr)
            group["lr"] = lr if tensor is None else tensor
            written.append(group["lr"])
            if (cycled := self._momentum_index[i]) >= 0:
                momentum = momenta[cycled]
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                elif "momentum" in group:
                    group["momentum"] = momentum
            if plan.drives_weight_decay and "weight_decay" in group:
                group["weight_decay"] = weight_decay if decay is None else weight_decay * decay
        self._rates = written

    def _read_groups(self, groups: list[dict[str, Any]]) -> None:
        """Store the base values of the current groups, and whether other values than rates must be written."""
        self._groups = groups
        bases, self._joined_multipliers = [], {}
        for i, group in enumerate(groups):
            base = self._get_base(i, group)
            if isinstance(base, JoinedGroup):
                self._joined_multipliers[i] = base.multiplier
                base = base.lr, base.weight_decay
            bases.append(base)
        self._bases, self._decays = [lr for lr, _ in bases], [decay for _, decay in bases]
        # A tensor for each group: torch lets all groups, and the caller, share one.
        self._tensors = {i: group["lr"].clone() for i, group in enumerate(groups) if isinstance(group["lr"], Tensor)}
        self._read_curves([self._by_name.get(self._get_name(i, group)) for i, group in enumerate(groups)])
        driven = self._momenta or self.plan.drives_weight_decay
        self._has_only_floats = not (self._tensors or self._joined_multipliers or driven)

    def _read_curves(self, groups: Sequence[GroupRate | None]) -> None:
        """Store the curves of the groups. A group that is not in the plan follows the run's curve."""
        plan = self.plan
        self._curves, self._curve_index = _index_curves([plan.curve if g is None else plan.curve_of(g) for g in groups])
        self._several = any(curve is not plan.curve for curve in self._curves)
        self._momenta, self._momentum_index = _index_curves(
            [plan.momentum if g is None else plan.momentum_of(g) for g in groups]
        )

    def set_gain(self, gain: float) -> None:
        """Multiply all rates by ``gain`` from the next step on, beside schedule and plateau. A checkpoint saves it.

        This is the supported way to change a rate during a run: a rate written into ``param_groups`` is replaced.

        Raises:
            ConfigError: ``gain`` is not a finite number >= 0.
        """
        check_number("gain", gain, None, 0, None)
        self.gain = float(gain)
        self.write()

    def observe(self, metric: float) -> bool:
        """Pass one more value of the monitored metric to reduce-on-plateau; return whether the gain changed."""
        if self.plan.plateau is None:
            return False
        before = self.plateau.gain
        self.plateau = self.plan.plateau.observe(self.plateau, metric)
        self.write()
        return self.plateau.gain != before

    def reduce(self, factor: float, over: int) -> float:
        """Lower all rates by ``factor``, with a warmup over ``over`` steps; return the new gain. For the guard."""
        self.reduction = self.reduction.once_more(factor, self.applied, over)
        self._rates = []  # the guard has restored the optimizer's state with its rates: they are not an outside edit
        self.write()
        return self.reduction.gain

    def skip(self, leave_out: bool = True) -> None:
        """Leave out the next optimizer step, if ``leave_out``: no weight, no state and no count changes.

        The caller does this after the gradients and before the step. Without gradients an optimizer changes neither
        weights nor their state; some count steps in their groups, and lrkit restores those counts.
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
        # Older checkpoints have two numbers: the base rate and the base of the weight decay.
        self._joined = {
            name: JoinedGroup(*of) if len(of) == 3 else JoinedGroup(of[0], 1.0, of[1])
            for name, of in state_dict["joined"].items()
        }
        self._groups = None  # checked again before the next write
        self._rates = []  # the optimizer's own rates were restored too: they are not an outside edit

    def _get_base(self, i: int, group: dict[str, Any]) -> tuple[float, float] | JoinedGroup:
        """Return the constant parts of a group's rate and weight decay: the plan's, or those of an added group."""
        name = self._get_name(i, group)
        bases = self._planned.get(name) or self._joined.get(name)
        if bases is None:
            bases = self._joined[name] = self._make_joined_group(group["lr"], float(group.get("weight_decay", 0.0)))
        return bases

    def _get_name(self, i: int, group: dict[str, Any]) -> str:
        name: str | None = group.get("name")
        if name is None:  # torch gives groups no names
            name = self.plan.groups[i].name if i < len(self.plan.groups) else f"group_{i}"
        return name

    def _make_joined_group(self, lr: float | Tensor, weight_decay: float) -> JoinedGroup:
        """Return the base values of an added group that has the rate ``lr`` at the next step."""
        multiplier = self.plan.curve(self.applied) * self.total_gain * self._share
        return JoinedGroup(float(lr), multiplier or 1.0, weight_decay)

    def _handle_edits(self, groups: list[dict[str, Any]]) -> None:
        """Accept a rate that other code wrote into an added group; warn once that other groups keep the plan's rate."""
        edited = [i for i, lr in enumerate(self._rates) if groups[i]["lr"] is not lr and groups[i]["lr"] != lr]
        for i in self._joined_multipliers.keys() & set(edited):
            name = self._get_name(i, groups[i])
            self._joined[name] = self._make_joined_group(groups[i]["lr"], self._joined[name].weight_decay)
            edited.remove(i)
            self._groups = None
        if self._groups is None:
            self._read_groups(groups)
        if self._reported or not edited:
            return
        self._reported = True
        group, lr = groups[edited[0]], self._rates[edited[0]]
        warnings.warn(
            f"the learning rate of group {group.get('name', edited[0])!r} was set to {group['lr']:g} by other code; the"
            f" plan's {lr:g} replaces it. To change rates during a run use set_gain(x)",
            stacklevel=4,
        )

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Before a step: write the rates if they are not written yet, or if other code has changed them."""
        groups = optimizer.param_groups
        if not self.steps.is_known:
            self._call_uncompiled(self._settle)
        if self._has_only_floats and self._written == self.steps.at_most and groups is self._groups:
            as_written = [group["lr"] for group in groups] == self._rates
            if (as_written and any(self._rates)) or self._is_creating_state(groups):
                return
            if not as_written:
                self._handle_edits(groups)
                self.write()
        elif torch.compiler.is_compiling():
            self._call_uncompiled(self._before_step, optimizer)
        elif not self._is_creating_state(groups):
            self.write()

    def _is_creating_state(self, groups: list[dict[str, Any]]) -> bool:
        self.creates_state = is_state_creation(groups, self._rates, self.plan, self.steps.at_most, self.total_gain)
        return self.creates_state

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        if not self._has_only_floats and torch.compiler.is_compiling():
            self._call_uncompiled(self._after_step, optimizer)
        elif self.creates_state:
            self.creates_state = False
        elif self._skipping is not None:
            for group, before in zip(optimizer.param_groups, self._skipping, strict=True):
                group.update(before)
            self._skipping = None
            self._rates = []
            self.write()
        else:
            # GradScaler calls a fused optimizer even with infinite gradients; the optimizer then takes no step.
            found_inf = getattr(optimizer, "found_inf", None)
            if found_inf is None:
                self.steps.add()
            else:
                self._call_uncompiled(self.steps.add, found_inf)


def _index_curves(followed: Sequence[Curve | None]) -> tuple[list[Curve], list[int]]:
    """Return the different curves, and the index of each given curve among them; -1 for None."""
    curves = {id(curve): curve for curve in followed if curve is not None}
    order = {key: i for i, key in enumerate(curves)}
    return [*curves.values()], [order.get(id(curve), -1) for curve in followed]


def _call_hook(hook: Callable[..., None], *given: Any) -> None:
    hook(*given)

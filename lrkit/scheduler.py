"""The one place where a plan meets an optimizer.

``PlanScheduler`` writes ``plan.lr(group, t)`` into the parameter groups, where ``t`` counts *applied* optimizer
steps. It is stateless but for that count and the gain: rates are recomputed from the plan, never from each other, so
no rounding accumulates, and a restored count is a restored rate.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrkit.guard import Reduction
from lrkit.plan import Plan
from lrkit.plateau import PlateauState
from lrkit.schedules import check_number

__all__ = ["PlanScheduler"]


class PlanScheduler(LRScheduler):
    """Drives an optimizer by a plan; usable wherever torch's ``LRScheduler`` is.

    Constructing it changes nothing. The rates of step ``t`` are written just before the optimizer takes step ``t``
    (and ahead of it by ``step()``, so that whoever looks in between sees the coming rate). A step that mixed
    precision skipped because of infinite gradients does not count.

    Args:
        optimizer: its groups may carry ``name`` and ``lr_scale``; groups that join later are picked up with
            the rate they come with as their base.
        plan: what to follow.

    >>> import torch
    >>> from lrkit.plan import resolve
    >>> from lrkit.horizon import Horizon
    >>> from lrkit.schedules import Linear
    >>> sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    >>> scheduler = PlanScheduler(sgd, resolve(lr=0.1, schedule=Linear(), horizon=Horizon(4)))
    >>> rates = []
    >>> for _ in range(4):
    ...     sgd.step()
    ...     rates.append(sgd.param_groups[0]["lr"])
    ...     scheduler.step()
    >>> rates
    [0.1, 0.07500000000000001, 0.05, 0.025]
    """

    def __init__(self, optimizer: Optimizer, plan: Plan) -> None:
        # LRScheduler.__init__ is not called: it would patch optimizer.step, write to the groups and count for itself.
        self.optimizer = optimizer
        self.plan = plan
        self.applied = 0
        self.gain = 1.0
        self.plateau = PlateauState()
        self.reduction = Reduction()
        self._skipping: list[dict[str, Any]] | None = None
        self._planned = {
            group.name: (
                plan.base(group.lr_scale),
                plan.base_weight_decay if group.weight_decay is None else group.weight_decay,
            )
            for group in plan.groups
        }
        self._joined: dict[str, tuple[float, float]] = {}
        self._rates: dict[int, float] = {}
        self._tensors: dict[int, Tensor] = {}
        self._at: tuple[int, float, float | None, float | None] = (-1, 0.0, None, None)
        self._reported = False
        outside: Any = torch.compiler.disable  # a compiled optimizer must leave its graph for these, not look inside
        self._hooks = (
            optimizer.register_step_pre_hook(outside(lambda *_: self.write())),
            optimizer.register_step_post_hook(outside(lambda optimizer, *_: self._after_step(optimizer))),
        )

    @property
    def last_epoch(self) -> int:  # type: ignore[override]
        """Applied optimizer steps, under torch's name for it."""
        return self.applied

    @property
    def total_gain(self) -> float:
        """The factor ``gain``: what was set by hand, times reduce-on-plateau's, times the divergence guard's."""
        return self.gain * self.plateau.gain * self.reduction.at(self.applied)

    def step(self, epoch: int | None = None) -> None:
        """Write the rates of the coming optimizer step. Calling it twice, or without a step, changes nothing."""
        self.write()

    def write(self) -> None:
        """Write every group's rate, and what else the plan drives, for step ``applied``."""
        t, gain, plan = self.applied, self.total_gain, self.plan
        if self._at[0] != t:  # a step is written twice: ahead, and again in case somebody changed something since
            momentum = None if plan.momentum is None else plan.momentum(t)
            self._at = (t, plan.curve(t), momentum, None if plan.decay_curve is None else plan.decay_curve(t))
        _, curve, momentum, decay = self._at
        for i, group in enumerate(self.optimizer.param_groups):
            base, weight_decay = self._bases(i, group)
            lr = base * curve * gain
            if isinstance(group["lr"], Tensor):
                # In place, for a compiled optimizer recompiles for a new float but not for a new value; and into a
                # tensor of its own, for torch lets all groups, and the caller, share one.
                if group["lr"] is not self._tensors.get(i):
                    group["lr"] = self._tensors[i] = group["lr"].clone()
                group["lr"].fill_(lr)
            else:
                self._report(i, group)
                group["lr"] = lr
            self._rates[i] = lr
            if momentum is not None:
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                elif "momentum" in group:
                    group["momentum"] = momentum
            if decay is not None and "weight_decay" in group:
                group["weight_decay"] = weight_decay * decay

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
        self._rates.clear()  # the optimizer's state has been put back, and its rates with it: nobody edited them
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
            "joined": {name: list(bases) for name, bases in self._joined.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.applied = state_dict["applied"]
        self.gain = state_dict["gain"]
        self.plateau = PlateauState(**state_dict["plateau"])
        self.reduction = Reduction(**state_dict.get("reduction", {}))
        self._joined = {name: (lr, decay) for name, (lr, decay) in state_dict["joined"].items()}
        self._rates.clear()  # the optimizer's own rates were restored too: nobody edited them

    def _bases(self, i: int, group: dict[str, Any]) -> tuple[float, float]:
        """The constant parts of a group's rate and weight decay: the plan's, or those a later group joined with."""
        name = group.get("name")
        if name is None:  # torch names nothing by itself
            name = self.plan.groups[i].name if i < len(self.plan.groups) else f"group_{i}"
        bases = self._planned.get(name) or self._joined.get(name)
        if bases is None:
            bases = self._joined[name] = (float(group["lr"]), float(group.get("weight_decay", 0.0)))
        return bases

    def _report(self, i: int, group: dict[str, Any]) -> None:
        """Say, once, that somebody else wrote a rate."""
        written = self._rates.get(i)
        if written is None or group["lr"] == written or self._reported:
            return
        self._reported = True
        warnings.warn(
            f"the learning rate of group {group.get('name', i)!r} was set to {group['lr']:g} from outside; the plan's"
            f" {written:g} stands. To change rates during a run use set_gain(x)",
            stacklevel=4,
        )

    def _after_step(self, optimizer: Optimizer) -> None:
        if self._skipping is not None:
            for group, before in zip(optimizer.param_groups, self._skipping, strict=True):
                group.update(before)
            self._skipping = None
            self._rates.clear()
            self.write()
            return
        # A fused optimizer under GradScaler is called even when the gradients were infinite, and then does nothing.
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is None or not bool(found_inf):
            self.applied += 1

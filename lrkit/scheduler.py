"""The one place where a plan meets an optimizer.

``PlanScheduler`` writes ``plan.lr(group, t)`` into the parameter groups, where ``t`` counts *applied* optimizer
steps. It is stateless but for that count and the gain: rates are recomputed from the plan, never from each other, so
no rounding accumulates, and a restored count is a restored rate.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrkit.plan import Plan
from lrkit.plateau import PlateauState

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
    >>> from lrkit import plan as planning
    >>> from lrkit.horizon import Horizon
    >>> from lrkit.schedules import Linear
    >>> sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    >>> scheduler = PlanScheduler(sgd, planning.resolve(lr=0.1, schedule=Linear(), horizon=Horizon(4)))
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
        self._joined: dict[str, float] = {}
        self._hooks = (
            optimizer.register_step_pre_hook(lambda *_: self.write()),
            optimizer.register_step_post_hook(lambda optimizer, *_: self._after_step(optimizer)),
        )

    @property
    def last_epoch(self) -> int:  # type: ignore[override]
        """Applied optimizer steps, under torch's name for it."""
        return self.applied

    @property
    def total_gain(self) -> float:
        """The factor ``gain``: what was set by hand times what reduce-on-plateau made of it."""
        return self.gain * self.plateau.gain

    def step(self, epoch: int | None = None) -> None:
        """Write the rates of the coming optimizer step. Calling it twice, or without a step, changes nothing."""
        self.write()

    def write(self) -> None:
        """Write every group's learning rate, and its momentum where the plan drives that, for step ``applied``."""
        t, gain = self.applied, self.total_gain
        curve = self.plan.curve(t)
        momentum = None if self.plan.momentum is None else self.plan.momentum(t)
        for i, group in enumerate(self.optimizer.param_groups):
            lr = self._base(i, group) * curve * gain
            if isinstance(group["lr"], Tensor):  # a compiled optimizer recompiles for a new float, not for a new value
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
            if momentum is not None:
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                elif "momentum" in group:
                    group["momentum"] = momentum

    def observe(self, metric: float) -> bool:
        """Show reduce-on-plateau one more value of its metric; whether the gain changed."""
        if self.plan.plateau is None:
            return False
        before = self.plateau.gain
        self.plateau = self.plan.plateau.observe(self.plateau, metric)
        self.write()
        return self.plateau.gain != before

    def get_last_lr(self) -> list[float | Tensor]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def get_lr(self) -> list[float | Tensor]:
        return self.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        return {
            "applied": self.applied,
            "gain": self.gain,
            "plateau": asdict(self.plateau),
            "joined": dict(self._joined),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.applied = state_dict["applied"]
        self.gain = state_dict["gain"]
        self.plateau = PlateauState(**state_dict["plateau"])
        self._joined = dict(state_dict["joined"])

    def _base(self, i: int, group: dict[str, Any]) -> float:
        """The constant part of a group's rate: from the plan, or for a group that joined later from itself."""
        name = group.get("name") or (self.plan.groups[i].name if i < len(self.plan.groups) else f"group_{i}")
        for rate in self.plan.groups:
            if rate.name == name:
                return self.plan.base(rate.lr_scale)
        return self._joined.setdefault(name, float(group["lr"]))

    def _after_step(self, optimizer: Optimizer) -> None:
        # A fused optimizer under GradScaler is called even when the gradients were infinite, and then does nothing.
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is None or not bool(found_inf):
            self.applied += 1

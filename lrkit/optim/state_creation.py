"""Recognises the step by which torch creates the state of an optimizer that has none.

``torch.distributed.checkpoint`` takes it before it loads or saves a state: a step at rate 0 with gradients of zeros,
which must change no weight. With the plan's rate weight decay would change them, and the step is none of the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lrkit.optim.sharded_tensors import local_part
from lrkit.planning.plan import Plan

__all__ = ["is_state_creation"]


def is_state_creation(
    groups: Sequence[dict[str, Any]], written: Sequence[float | Tensor], plan: Plan, step: int, gain: float
) -> bool:
    """Return whether the next step of an optimizer only creates its state.

    Args:
        groups: the optimizer's parameter groups.
        written: the rates that were written last.
        plan, step, gain: the plan, the number of applied steps, and the gain: a step at rate 0 may be planned.
    """
    rates = [group["lr"] for group in groups]
    kept = any(isinstance(lr, Tensor) and lr is rate for lr, rate in zip(written, rates, strict=False))
    if kept or any(rates):  # a rate that torch has not replaced is not read: it may be on a device
        return False
    is_over = plan.horizon.steps is not None and step >= plan.horizon.steps
    if not is_over and not any(plan.lr(group, step, gain) for group in plan.groups):
        return False
    return all(_is_zero(p.grad) for group in groups for p in group["params"])


def _is_zero(gradient: Tensor | None) -> bool:
    """Return whether a gradient is zero, in the part that this process has; waits for its device."""
    if gradient is None:
        return True
    return not bool(local_part(gradient).any())

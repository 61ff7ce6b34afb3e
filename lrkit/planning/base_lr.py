"""The rules for a base learning rate: as the user types it, and after batch-size scaling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrkit.base.errors import ConfigError
from lrkit.base.validation import is_finite

if TYPE_CHECKING:
    from lrkit.planning.plan import Plan

__all__ = ["SANE_LR", "check_lr", "check_scaled_lr"]

SANE_LR = (1e-8, 10.0)


def check_lr(lr: Any, allow_extreme: bool = False) -> None:
    """Refuse a value that cannot be a base learning rate."""
    key = "optimizer.lr"
    if lr is None:
        raise ConfigError(key, "must be set to a positive number", lr)
    if isinstance(lr, list | tuple):
        raise ConfigError(key, "takes one number, not a list; to sweep: -m optimizer.lr=0.1,0.2", lr)
    if isinstance(lr, bool) or not isinstance(lr, int | float):
        hint = "; drop the quotes" if isinstance(lr, str) and _is_numeric_text(lr) else ""
        raise ConfigError(key, f"must be a number{hint}", lr)
    if not is_finite(lr) or lr < 0:
        raise ConfigError(key, "must be a finite number > 0", lr)
    if lr == 0:
        raise ConfigError(key, "must be > 0: with 0 nothing would train", lr)
    low, high = SANE_LR
    if not allow_extreme and not low <= lr <= high:
        raise ConfigError(key, f"must be in [{low:g}, {high:g}]; to allow it: allow_extreme_lr=true", lr)


def _is_numeric_text(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_scaled_lr(plan: Plan) -> None:
    """Refuse a base rate that is extreme after batch-size scaling."""
    low, high = SANE_LR
    if not all(low <= plan.base(1.0, step) <= high for step in (0, *plan.stages)):
        must = f"must be in [{low:g}, {high:g}] after batch-size scaling; to allow it: allow_extreme_lr=true"
        raise ConfigError("optimizer.lr", must, plan.rate_line())

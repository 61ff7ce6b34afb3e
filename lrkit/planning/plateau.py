"""Reduce-on-plateau: feedback from a metric, as a factor beside any schedule.

    gain <- max(gain * factor, min_gain)     when the metric has not improved for more than ``patience`` checks

The rules are those of ``torch.optim.lr_scheduler.ReduceLROnPlateau``, with three differences: there is no ``eps``; a
slightly worse negative metric under ``rel`` is not an improvement, as it is in torch; and a reduction lowers the factor
``gain`` of the learning rate, not the rate itself, so that warmup, schedule and cooldown continue. The options are
frozen; the state is a small value in the checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from lrkit.base.errors import ConfigError
from lrkit.base.validation import is_number, is_whole, one_of
from lrkit.schedules.shapes.schedule import check_number

__all__ = ["Plateau", "PlateauState"]


@dataclass(frozen=True)
class PlateauState:
    """The state of reduce-on-plateau: the best value, checks since then, checks to wait, and the gain."""

    best: float | None = None
    bad: int = 0
    waiting: int = 0
    gain: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """The options of reduce-on-plateau: the condition of a reduction, and its size.

    Args:
        monitor: name of the metric.
        mode: ``min`` or ``max``: the better direction.
        factor: the gain is multiplied by this, in (0, 1).
        patience: checks without improvement before a reduction.
        threshold: the smallest improvement that counts.
        threshold_mode: ``rel``, as a share of the best value, or ``abs``.
        cooldown: checks to wait after a reduction.
        min_gain: the gain never falls below this.

    >>> plateau, state = Plateau(patience=1, factor=0.5), PlateauState()
    >>> for loss in (1.0, 1.0, float("nan"), 1.0):
    ...     state = plateau.observe(state, loss)
    >>> state.gain
    0.5
    """

    monitor: str = "val/loss"
    mode: Literal["min", "max"] = "min"
    factor: float = 0.1
    patience: int = 5
    threshold: float = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: int = 0
    min_gain: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.monitor, str) or not self.monitor:
            raise ConfigError("monitor", "must be the name of a metric", self.monitor)
        one_of("min", "max").check("mode", self.mode)
        one_of("rel", "abs").check("threshold_mode", self.threshold_mode)
        if not is_number(self.factor) or not 0 < self.factor < 1:
            raise ConfigError("factor", "must be in (0, 1)", self.factor)
        for name in ("patience", "cooldown"):
            count = getattr(self, name)
            if not is_whole(count):
                raise ConfigError(name, "must be a whole number of checks >= 0", count)
        check_number("threshold", self.threshold, None, 0, None)
        check_number("min_gain", self.min_gain, None, 0, 1)

    def observe(self, state: PlateauState, metric: float) -> PlateauState:
        """Return the state after one more check. A metric that is not finite does not change the state."""
        if not math.isfinite(metric):
            return state
        if self._is_better(metric, state.best):
            state = replace(state, best=metric, bad=0)
        else:
            state = replace(state, bad=state.bad + 1)
        if state.waiting > 0:
            state = replace(state, waiting=state.waiting - 1, bad=0)
        if state.bad > self.patience:
            gain = max(state.gain * self.factor, self.min_gain)
            state = replace(state, gain=gain, waiting=self.cooldown, bad=0)
        return state

    def _is_better(self, metric: float, best: float | None) -> bool:
        if best is None:
            return True
        sign = 1.0 if self.mode == "min" else -1.0
        margin = self.threshold * abs(best) if self.threshold_mode == "rel" else self.threshold
        return sign * metric < sign * best - margin

"""The divergence guard: the rule for a diverging run, and the reaction to it.

A step is *bad* if its loss or a gradient is not finite, and by further rules of the policy:

    stop     end the run at a bad step, or after ``patience`` losses in a row above ``far`` times the first losses
    skip     leave out an optimizer step that is bad or has a loss spike; after more than ``patience`` in a row end the
             run
    reduce   at a bad step, or after ``patience`` spikes in a row, load the last good weights and lower the rate:
             gain <- gain * ``gain``, with a warmup over ``warmup`` steps; at most ``most`` times, then end the run

    a spike:  loss > median + spike * max(1.4826 MAD, 5 % of the first losses)

over the last ``window`` losses without spikes. The median absolute deviation (MAD) does not grow by one spike, so the
next one is found too; the 5 % prevent that one hard sample counts as a spike when the network fits its data. Chowdhery
et al. 2022 (PaLM, section 5.1) loaded earlier weights and left out the batches around a spike by hand.

This file needs no torch; ``lrkit.callbacks.divergence_guard`` checks the tensors and acts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lrkit.base.errors import ConfigError
from lrkit.base.validation import is_number, one_of, whole
from lrkit.planning.guard_policies import POLICIES, Policy, policy_named
from lrkit.planning.loss_statistics import LossStatistics
from lrkit.schedules.durations import Duration
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes.schedule import check_number

__all__ = ["POLICIES", "Guard", "Reduction"]


@dataclass(frozen=True, kw_only=True)
class Guard:
    """The rule for a diverging run, and the reaction to it.

    Args:
        policy: ``stop``, ``skip`` or ``reduce``.
        far: for ``stop``: a loss above this multiple of the first losses counts; None: only values that are not finite.
        spike: for ``skip`` and ``reduce``: a loss this many deviations above the median is a spike; None: only values
            that are not finite.
        window: number of recent losses for the median.
        patience: number in a row: of losses before ``stop`` or ``reduce`` act, of skipped steps before ``skip`` stops.
        gain: factor by which ``reduce`` lowers the rate, in (0, 1).
        warmup: duration of the warmup after a reduction.
        most: maximum number of reductions; then the run ends.
        every: duration between two copies of the state for ``reduce``.
    """

    policy: str = "stop"
    far: float | None = 20.0
    spike: float | None = 10.0
    window: int = 100
    patience: int = 50
    gain: float = 0.5
    warmup: int | float | str = "2%"
    most: int = 3
    every: int | float | str = "2%"

    def __post_init__(self) -> None:
        one_of(*POLICIES).check("policy", self.policy)
        for name in ("far", "spike"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), None, 1, None)
        for name, least in (("window", LossStatistics.ENOUGH), ("patience", 1), ("most", 1)):
            whole(least).check(name, getattr(self, name))
        if not is_number(self.gain) or not 0 < self.gain < 1:
            raise ConfigError("gain", "must be in (0, 1)", self.gain)
        for name in ("warmup", "every"):
            Duration.parse(getattr(self, name), name)

    @property
    def rules(self) -> Policy:
        """The policy: its rule for a suspicious loss, and its action."""
        return policy_named(self.policy)

    def in_steps(self, horizon: Horizon) -> Guard:
        """Return the guard with its durations in optimizer steps."""
        if not (self.rules.keeps_copies or self.rules.lowers_rate):
            return self
        lengths = {name: Duration.parse(getattr(self, name), f"guard.{name}") for name in ("warmup", "every")}
        steps = {name: max(1, length.steps(horizon, f"guard.{name}")) for name, length in lengths.items()}
        return replace(self, warmup=steps["warmup"], every=steps["every"])

    def line(self) -> str:
        """Return the plan's line about a lower rate; empty if the policy does not lower the rate."""
        return self.rules.describe(self)


@dataclass(frozen=True)
class Reduction:
    """The factor of the guard in the gain: ``gain``, after a rise over ``over`` steps from step ``since``.

    >>> [Reduction(0.5, since=10, over=4).at(step) for step in (10, 11, 12, 13, 99)]
    [0.125, 0.25, 0.375, 0.5, 0.5]
    """

    gain: float = 1.0
    since: int = 0
    over: int = 0
    times: int = 0

    def at(self, step: int) -> float:
        """Return the factor at applied optimizer step ``step``."""
        done = step - self.since + 1
        return self.gain * done / self.over if done < self.over else self.gain

    def once_more(self, factor: float, step: int, over: int) -> Reduction:
        """Return the state after one more reduction, at ``step``."""
        return Reduction(self.gain * factor, step, over, self.times + 1)

"""Rate translation: from the best base rate of one schedule and length to that of another.

    lr = lr_known * shape(curve) / shape(curve_known) * (length / length_known) ** EXPONENT

``shape`` comes from a bound of the last iterate of SGD on a convex problem. With the multipliers ``eta_1 ... eta_T``
of a curve, the base rate ``gamma``, the distance ``D`` to the solution and gradients of norm ``G``, the bound is

    D^2 / (2 gamma sum_t eta_t)
    + gamma G^2 / 2 * [ sum_t eta_t^2 / sum_t eta_t
                        + sum_{k<T} eta_k / sum_{t>k} eta_t * sum_{t>=k} eta_t^2 / sum_{t>=k} eta_t ]

and it is lowest at ``gamma = D / G * shape / sqrt(T)``. The ratio of two shapes knows neither D nor G. The bound says
that the best rate falls with the square root of the length; measured exponents are smaller, so the length has a
measured exponent.

Reference: Schaipp et al. 2025, arXiv:2501.18965, theorem 1 (Defazio et al. 2023, arXiv:2310.07831, theorem 10).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.planning.batch_scaling import RULES
from lrkit.planning.optimizer_traits import traits_of
from lrkit.planning.plan import Plan

__all__ = ["EXPONENT", "WIDTHS", "RateTranslation", "Widths", "bound_terms", "shape_of", "translate"]

#: Best base rate ~ length ** EXPONENT: -0.08 to -0.43 were measured between runs of one pass over the data, and Bjorck
#: et al. 2024, arXiv:2409.19913, report -0.32 for language models. The bound's own exponent is -0.5.
EXPONENT = -0.3
_FAR = 0.2  # curves that differ by this share of their mean are different schedules; closer ones are less uncertain
_QUANTILE = 1.645  # of a 90 % interval

_MOST_POINTS = 20_000  # places of a curve that are summed up
#: Options of an optimizer that choose an implementation, and change no step.
_IMPLEMENTATION = {"_target_", "lr", "fused", "foreach", "capturable", "differentiable"}


@dataclass(frozen=True)
class Widths:
    """Standard deviations of the logarithm of a translated rate.

    Args:
        known: of the known rate, which comes from a grid.
        schedule: between two schedules.
        exponent: of ``EXPONENT``, between tasks.
    """

    known: float
    schedule: float
    exponent: float

    def spread(self, difference: float, log_length: float) -> float:
        """Return the factor from a rate to either end of its 90 % interval.

        >>> round(Widths(0.1, 0.3, 0.2).spread(1.0, 0.0), 2), round(Widths(0.1, 0.3, 0.2).spread(0.0, math.log(4)), 2)
        (1.68, 1.62)
        """
        parts = self.known, self.schedule * difference, self.exponent * log_length
        return math.exp(_QUANTILE * math.hypot(*parts))


#: Measured on four small tasks, see docs/evidence.md.
WIDTHS = Widths(known=0.1, schedule=0.55, exponent=0.38)


@dataclass(frozen=True)
class RateTranslation:
    """A translated base rate. ``str(translation)`` is a page of text.

    Args:
        lr: base rate of the new plan, to three digits.
        low, high: its 90 % interval.
        known: the base rate from which it comes.
        batch_factor: factor for another rule, or base, of batch-size scaling; 1 where both plans have the same.
        shape_factor: factor for the other schedule, by the bound.
        length_factor: factor for the other length.
        difference: how far the two curves differ, from 0 to 1 for different schedules.
        lengths: both lengths, and their unit, in words.
    """

    lr: float
    low: float
    high: float
    known: float
    batch_factor: float
    shape_factor: float
    length_factor: float
    difference: float
    lengths: str

    @property
    def factor(self) -> float:
        """The factor from the known rate to the translated one."""
        return self.batch_factor * self.shape_factor * self.length_factor

    def __str__(self) -> str:
        batch = [f"  x {self.batch_factor:<8.4g} batch-size scaling"] if self.batch_factor != 1.0 else []
        lines = [
            f"lr {self.lr:g}, 90 % interval {self.low:.2g} to {self.high:.2g}",
            f"    {self.known:<8g} the known rate",
            *batch,
            f"  x {self.shape_factor:<8.4g} schedule: lowest bound of the last iterate (Schaipp et al. 2025)",
            f"  x {self.length_factor:<8.4g} length: ({self.lengths}) ** {EXPONENT:g}, measured +- {WIDTHS.exponent:g}",
        ]
        return "\n".join(lines)


def translate(source: Plan, target: Plan) -> RateTranslation:
    """Return the base rate of ``target`` for which the base rate of ``source`` is the best one known.

    Args:
        source: the plan whose base rate was tuned.
        target: the plan of the new run; its base rate is not used.

    Raises:
        ConfigError: the rate cannot be translated: another optimizer, model or data set; another batch size without a
            rule; reduce-on-plateau; momentum that moves; parameter groups with curves of their own.

    >>> import lrkit
    >>> known = lrkit.plan(lr=0.1, schedule="constant", steps=1000, optimizer="adamw")
    >>> new = lrkit.plan(lr=0.1, schedule="linear", steps=1000, optimizer="adamw")
    >>> found = translate(known, new)
    >>> found.lr, round(found.shape_factor, 2), found.length_factor
    (0.29, 2.9, 1.0)
    """
    for prefix, plan in (("from.", source), ("", target)):
        try:
            _refuse_untranslatable(plan)
        except ConfigError as error:
            raise ConfigError(f"{prefix}{error.key}", error.must) from None
    _refuse_different_task(source, target)
    batch_factor = _find_batch_factor(source, target)
    old, new, unit = _find_lengths(source, target)
    points = min(source.horizon.steps or 1, target.horizon.steps or 1, _MOST_POINTS)
    known, wanted = _sample_curve(source, points), _sample_curve(target, points)
    shape_factor = _shape_of_curve(wanted) / _shape_of_curve(known)
    length_factor = (new / old) ** EXPONENT
    lr = source.base_lr * batch_factor * shape_factor * length_factor
    difference = min(1.0, _measure_distance(known, wanted) / _FAR)
    spread = WIDTHS.spread(difference, math.log(new / old))
    return RateTranslation(
        lr=float(f"{lr:.3g}"),
        low=float(f"{lr / spread:.3g}"),
        high=float(f"{lr * spread:.3g}"),
        known=source.base_lr,
        batch_factor=batch_factor,
        shape_factor=shape_factor,
        length_factor=length_factor,
        difference=difference,
        lengths=f"{new} / {old} {unit}",
    )


def shape_of(plan: Plan, points: int | None = None) -> float:
    """Return the best base rate of a plan's curve by the bound, times the square root of its length, for ``D = G = 1``.

    Args:
        plan: its whole curve, also of a run that stops early.
        points: places of the curve, evenly spaced, that stand for its steps; None: every step. The shape of a fixed
            rate falls with the logarithm of their number, so two shapes are compared at the same number.

    >>> import lrkit
    >>> plans = [lrkit.plan(lr=1.0, schedule=name, steps=4000) for name in ("constant", "cosine", "linear")]
    >>> [round(shape_of(plan), 2) for plan in plans]
    [0.32, 0.97, 1.0]
    """
    steps = plan.horizon.steps
    assert steps is not None
    return _shape_of_curve(_sample_curve(plan, steps if points is None else points))


def _shape_of_curve(multipliers: Sequence[float]) -> float:
    distance, noise = bound_terms(multipliers)
    return math.sqrt(distance / noise * len(multipliers))


def _sample_curve(plan: Plan, points: int) -> list[float]:
    """Return the multipliers at evenly spaced places of the run."""
    steps = plan.horizon.steps
    assert steps is not None
    return [plan.curve(i * steps // points) for i in range(points)]


def _measure_distance(old: Sequence[float], new: Sequence[float]) -> float:
    """Return the mean difference of two curves, as a share of their mean."""
    return 2.0 * sum(abs(a - b) for a, b in zip(old, new, strict=True)) / (sum(old) + sum(new))


def bound_terms(multipliers: Sequence[float]) -> tuple[float, float]:
    """Return the two terms of the bound for ``gamma = D = G = 1``; else ``a / gamma + b * gamma``.

    Steps at rate 0 at the end are left out: they do not move the last iterate.

    Raises:
        ConfigError: every multiplier is 0.

    >>> bound_terms([1.0, 1.0])
    (0.25, 1.0)
    """
    rates = list(multipliers)
    while rates and rates[-1] == 0.0:
        rates.pop()
    if not rates:
        raise ConfigError("schedule", "must have a step with a rate above 0: the bound knows no best base rate")
    after, squares, later = 0.0, 0.0, 0.0
    for i in range(len(rates) - 1, -1, -1):
        rate = rates[i]
        upto = after + rate
        squares += rate * rate
        if after > 0.0:
            later += rate / after * squares / upto
        after = upto
    return 1.0 / (2.0 * after), (squares / after + later) / 2.0


def _refuse_untranslatable(plan: Plan) -> None:
    """Refuse a plan for whose rate the bound says nothing."""
    known = traits_of(plan.optimizer)
    if plan.tracks:
        raise ConfigError("optimizers", "must not be set: with several optimizers no rate alone decides")
    if known is not None and known.kind == "lr_free":
        raise ConfigError("optimizer", "must not find the rate itself: its base rate is 1 for every schedule")
    if known is not None and known.schedule_free:
        raise ConfigError("optimizer", "must not be schedule-free: the bound is for the last iterate, not an average")
    if plan.plateau is not None:
        raise ConfigError("plateau", "must be none: when it lowers the rate is not known before the run")
    if plan.momentum is not None:
        must = "must not move momentum, which the bound takes as fixed: set momentum_start and momentum_peak to null"
        raise ConfigError("schedule", must)
    if plan.horizon.batch_sizes is not None:
        raise ConfigError("batch.schedule", "must be null: the bound is for one batch size in a run")
    if plan.group_curves:
        raise ConfigError("param_groups", "must have no schedule, warmup or delay of their own: the bound is for one")
    if plan.horizon.steps is None:
        plan.horizon.require("steps", "horizon.steps")


def _refuse_different_task(source: Plan, target: Plan) -> None:
    """Refuse a rate that was tuned for another optimizer, model or data set."""
    if source.optimizer != target.optimizer:
        must = f"must be the optimizer of the known rate, {source.optimizer or 'none'}"
        raise ConfigError("optimizer", must, target.optimizer)
    if not source.config or not target.config:
        return
    for key in ("optimizer", "model", "data", "param_groups"):
        old, new = source.config.get(key) or {}, target.config.get(key) or {}
        names = ["_target_"] if key == "data" else dict.fromkeys([*old, *new])
        for name in names:
            if key != "optimizer" or name not in _IMPLEMENTATION:
                _refuse_difference(f"{key}.{name}", old.get(name), new.get(name))


def _refuse_difference(key: str, old: Any, new: Any) -> None:
    """Refuse a key with another value than at the known rate."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in {**old, **new}:
            _refuse_difference(f"{key}.{name}", old.get(name), new.get(name))
    elif old != new:
        raise ConfigError(key, f"must be {old!r}, as at the known rate", new)


def _find_batch_factor(source: Plan, target: Plan) -> float:
    """Return the factor between two base rates of the same rate at the batch of ``source``."""
    old, new, scale = source.horizon.batch_size, target.horizon.batch_size, target.scale
    if old == new and source.scale == scale:
        return 1.0
    if old != new and scale.rule == "none":
        must = f"must be a rule, such as auto: the known rate is for a batch of {old}, and this one is {new}"
        raise ConfigError("batch_scaling", must, "none")
    batch = source.horizon.require("batch_size", "from.batch_scaling")
    assert scale.rule == "none" or scale.base is not None
    return source.scale.factor / (1.0 if scale.base is None else RULES[scale.rule](batch / scale.base))


def _find_lengths(source: Plan, target: Plan) -> tuple[int, int, str]:
    """Return the lengths of both runs, in samples where their batches differ."""
    old, new = source.horizon, target.horizon
    assert old.steps is not None and new.steps is not None
    if old.batch_size is None or new.batch_size is None or old.batch_size == new.batch_size:
        return old.steps, new.steps, "steps"
    return old.steps * old.batch_size, new.steps * new.batch_size, "samples"

"""``lrkit.plan`` and ``lrkit.curve``: the plan and the curve of a run, as ``lrkit show`` prints them. No torch.

>>> import lrkit
>>> rate = lrkit.curve("cosine", steps=100, warmup="linear", warmup_length="10%")
>>> rate(10), rate(55)
(1.0, 0.5)
>>> print(lrkit.plan(lr=0.1, schedule="step", steps=90, batch_size=512, batch_scaling="linear").rate_line())
lr 0.2 = 0.1 x 2 (linear: batch 512 / base 256)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lrkit.api.arguments import AnyBatchSchedule, AnyGuard, AnyPlateau, AnyRules, AnySchedule, CurveParts, RunParts
from lrkit.base.errors import ConfigError
from lrkit.planning.plan import Plan
from lrkit.schedules.batch_sizes import resolve_sizes
from lrkit.schedules.curve import Curve
from lrkit.schedules.durations import Length
from lrkit.schedules.horizon import Horizon

if TYPE_CHECKING:
    from torch.optim import Optimizer

__all__ = ["curve", "plan"]


def curve(
    schedule: AnySchedule = "cosine",
    *,
    steps: int | None,
    steps_per_epoch: int | None = None,
    batch_size: int | None = None,
    tokens_per_sample: int | None = None,
    warmup: AnySchedule | None = None,
    warmup_length: Length | None = None,
    cooldown: AnySchedule | None = None,
    cooldown_length: Length | None = None,
) -> Curve:
    """Return the curve ``step -> multiplier`` of a run: warmup, schedule and cooldown, one after the other.

    A schedule is an object of ``lrkit.schedules``, the name of an option of ``conf/schedule`` with its defaults, or a
    mapping with the name and other values. Lengths are durations: ``500`` optimizer steps, ``"5%"`` of the run,
    ``"2ep"`` epochs, ``"64000sp"`` samples, ``"5e6tok"`` tokens.

    Args:
        schedule: the shape between warmup and cooldown.
        steps: optimizer steps of the run; None: unknown.
        steps_per_epoch: optimizer steps in an epoch, for lengths in epochs.
        batch_size: samples in an optimizer step, for lengths in samples.
        tokens_per_sample: tokens in a sample, for lengths in tokens.
        warmup, cooldown: an object, an option of ``conf/warmup`` or ``conf/cooldown``, or a mapping; a warmup may
            overlap the schedule: ``{"name": "linear", "overlap": "join"}``.
        warmup_length, cooldown_length: the length of a warmup or cooldown that is given by name. Default: 5 % and 20 %.

    Raises:
        ConfigError: an unknown name or key, a value out of range, or parts longer than the run.

    >>> curve({"name": "step", "every": "30ep", "gamma": 0.5}, steps=90, steps_per_epoch=1)(31)
    0.5
    >>> curve("cosin", steps=90)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ConfigError: schedule has no option 'cosin'. Did you mean 'cosine'? ...
    """
    parts = CurveParts(
        schedule=schedule,
        warmup=warmup,
        warmup_length=warmup_length,
        cooldown=cooldown,
        cooldown_length=cooldown_length,
    )
    return parts.curve(Horizon(steps, steps_per_epoch, batch_size, tokens_per_sample=tokens_per_sample))


def plan(
    *,
    lr: float,
    schedule: AnySchedule = "cosine",
    steps: int | None,
    steps_per_epoch: int | None = None,
    batch_size: int | None = None,
    tokens_per_sample: int | None = None,
    stop_after: Length | None = None,
    optimizer: str | type[Optimizer] = "adamw",
    options: Mapping[str, Any] | None = None,
    warmup: AnySchedule | None = None,
    warmup_length: Length | None = None,
    cooldown: AnySchedule | None = None,
    cooldown_length: Length | None = None,
    plateau: AnyPlateau | None = None,
    guard: AnyGuard | None = None,
    coschedule: Mapping[str, AnySchedule] | None = None,
    batch_scaling: str = "none",
    base_batch_size: int = 256,
    weight_decay_rule: str = "coupled",
    weight_decay_timescale: Length | None = None,
    param_groups: AnyRules | None = None,
    optimizers: Mapping[str, Mapping[str, Any]] | None = None,
    allow_extreme_lr: bool = False,
    batch_schedule: AnyBatchSchedule | None = None,
) -> Plan:
    """Return the plan of a run: every factor of every learning rate, resolved before the run.

        lr[group, t] = lr x batch scale x group scale[group] x curve[group, t] x gain(t)

    where ``t`` counts optimizer steps. ``print(plan)`` prints it like ``lrkit show``; ``plan.lr(group, t)`` is a rate.

    Args:
        lr: base learning rate, > 0.
        optimizer: the name of an option of ``conf/optimizer``, a class path, or a class.
        options: options of the optimizer without the rate; they replace those of the named option.
        plateau: reduce-on-plateau, as a factor of the curve: ``"reduce"``, a mapping, or a ``Plateau``.
        guard: the divergence guard: ``"stop"``, ``"skip"``, ``"reduce"``, a mapping, or a ``Guard``.
        coschedule: schedules for ``momentum`` and ``weight_decay``, as multiples of their values.
        batch_scaling: ``none``, ``linear``, ``sqrt`` or ``auto``.
        base_batch_size: samples in an optimizer step, at which the factor of the batch size is 1.
        weight_decay_rule: ``coupled``; ``independent`` of ``lr``; or ``timescale``, with ``weight_decay_timescale``, a
            duration.
        param_groups: rules; ``{"no_decay": True}`` or a list of ``{"name", "pattern", "lr_scale", ...}``. A rule may
            have a ``schedule``, ``warmup`` and ``cooldown`` as above, and a ``delay``, during which the rate is 0.
        optimizers: a track for each optimizer of a module with several: ``{"generator": {"every": 5}, "critic":
            {"lr": 4e-4}}``. A track may set ``parameters`` (a pattern), ``every``, ``offset``, and the arguments
            ``lr``, ``optimizer``, ``options``, ``schedule``, ``warmup``, ``cooldown``, their lengths, and
            ``param_groups``. ``steps`` counts batches then.
        allow_extreme_lr: accept an ``lr`` outside of [1e-8, 10].
        batch_schedule: in place of ``batch_size``, pairs of a duration and the samples in an optimizer step from there
            on: ``[[0, 64], ["50%", 128]]``. The factor of ``batch_scaling`` is that of each step's batch.
        stop_after: a duration after which the run stops: it takes the first part of the ``steps``, at their rates.
        schedule, warmup, cooldown, their lengths, steps, steps_per_epoch, batch_size, tokens_per_sample: as for
            ``lrkit.curve``.

    Raises:
        ConfigError: an invalid argument, with the key of the command.

    >>> rules = [{"name": "head", "pattern": "^head", "lr_scale": 2}]
    >>> run = plan(lr=0.1, schedule="linear", steps=100, param_groups=rules)
    >>> [run.lr(group, 50) for group in run.groups]
    [0.1, 0.05]
    """
    parts = RunParts(
        lr=lr,
        schedule=schedule,
        optimizer=optimizer,
        options=options,
        warmup=warmup,
        warmup_length=warmup_length,
        cooldown=cooldown,
        cooldown_length=cooldown_length,
        plateau=plateau,
        guard=guard,
        coschedule=coschedule,
        batch_scaling=batch_scaling,
        base_batch_size=base_batch_size,
        weight_decay_rule=weight_decay_rule,
        weight_decay_timescale=weight_decay_timescale,
        param_groups=param_groups,
        optimizers=optimizers,
        allow_extreme_lr=allow_extreme_lr,
    )
    horizon = Horizon(steps, steps_per_epoch, batch_size, tokens_per_sample=tokens_per_sample)
    return parts.plan(_with_batch_schedule(horizon, parts, batch_schedule).stopping(stop_after, "stop_after"))


def _with_batch_schedule(horizon: Horizon, parts: RunParts, batch_schedule: AnyBatchSchedule | None) -> Horizon:
    """Return the horizon of a run whose batch size changes, if it does."""
    if batch_schedule is None:
        return horizon
    parts.check_batch_schedule(batch_schedule)
    for name in ("steps_per_epoch", "batch_size"):
        if (value := getattr(horizon, name)) is not None:
            must = "and batch_schedule cannot be used together: it sets the samples in a step"
            raise ConfigError(name, must, value)
    tokens = horizon.tokens_per_sample
    sizes, _ = resolve_sizes(batch_schedule, micro=None, batches=None, steps=horizon.steps, tokens_per_sample=tokens)
    return dataclasses.replace(horizon, batch_sizes=sizes)

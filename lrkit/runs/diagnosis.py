"""Diagnoses the learning rate of a run from its curves: a symptom, its evidence in numbers, and the flag to try.

    rate too high       the training loss diverges, never falls below its start, or rises again at the full rate
    rate too low        it falls in an almost straight line, smoothly, and is far from flat at the end
    decayed too early   it fell until the rate decayed in the first half of the run, and is flat for the rest
    overfitting         the validation loss rises after its minimum, while the training loss continues to fall

Wrong advice is worse than none: an effect counts only if it is several times the noise of its curve, and a symptom
only if it has all of its signs. ``docs/diagnosis.md`` says how often each is found, and which cannot be found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median

from lrkit.planning.optimizer_traits import finds_rate
from lrkit.planning.plan import Plan
from lrkit.runs.event_reader import Series
from lrkit.runs.loss_noise import loss_noise
from lrkit.schedules.shapes import Step

__all__ = ["DECAYED_EARLY", "KINDS", "OVERFITTING", "TOO_HIGH", "TOO_LOW", "Curves", "Finding", "diagnose"]

TOO_HIGH, TOO_LOW = "rate too high", "rate too low"
DECAYED_EARLY, OVERFITTING = "decayed too early", "overfitting"
KINDS = (TOO_HIGH, TOO_LOW, DECAYED_EARLY, OVERFITTING)

#: The minimal number of windows of the training loss, and of validations, for a diagnosis.
WINDOWS, VALIDATIONS = 24, 6
#: An effect counts from this multiple of its noise on; for a slope, which is no maximum of many values, it is lower.
CLEAR, CLEAR_SLOPE = 6.0, 4.0
#: Shares of the peak rate: above the first a rate counts as full, below the second as decayed.
FULL, DECAYED = 0.5, 0.03


@dataclass(frozen=True)
class Curves:
    """The recorded curves of a run.

    Args:
        first: the training loss of the first batch, before any step.
        train: the mean training loss of each window of the run, at the last step of the window.
        rates: the learning rate of the first parameter group at the last step of each window.
        validated: the validation loss.
    """

    first: float
    train: Series
    rates: Sequence[float]
    validated: Series = field(default_factory=Series)


@dataclass(frozen=True)
class Finding:
    """One symptom: ``kind``, one of ``KINDS``; ``evidence``, a phrase with numbers; ``advice``, the flags to try."""

    kind: str
    evidence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.evidence}; try {self.advice}"


def diagnose(curves: Curves, plan: Plan | None = None) -> list[Finding]:
    """The symptoms that a run clearly has, the most severe first; none for most runs.

    Args:
        curves: of a run that ended as planned.
        plan: for advice in numbers. If its optimizer finds its rate itself, the rate is not diagnosed.
    """
    adjusts = plan is not None and finds_rate(plan.optimizer)
    lr = None if plan is None else plan.base_lr
    if curves.train.values and not math.isfinite(curves.train.values[-1]):
        found = [] if adjusts else [_find_divergence(curves, lr)]
        return [finding for finding in found if finding is not None]
    run = _Windows.of(curves)
    if run is None:
        return []
    early = _find_early_decay(run, plan)
    rate_findings = (
        []
        if adjusts
        else [
            _find_rate_too_high(run, lr),
            *([] if early or run.decayed_in_first_half else [_find_rate_too_low(run, lr)]),
        ]
    )
    found = [*rate_findings[:1], early, *rate_findings[1:], _find_overfitting(run, plan)]
    return [finding for finding in found if finding is not None]


@dataclass(frozen=True)
class _Windows:
    """The finite part of the curves."""

    first: float
    steps: Sequence[int]
    losses: Sequence[float]
    rates: Sequence[float]
    checks: Sequence[int]
    validated: Sequence[float]

    @classmethod
    def of(cls, curves: Curves) -> _Windows | None:
        """The finite windows; None if they are too few."""
        train = [
            (step, loss, rate)
            for step, loss, rate in zip(curves.train.steps, curves.train.values, curves.rates, strict=True)
            if math.isfinite(loss)
        ]
        checks, validated = curves.validated.steps, curves.validated.values
        if len(train) < WINDOWS or not all(map(math.isfinite, (curves.first, *validated))):
            return None
        steps, losses, rates = zip(*train, strict=True)
        if (
            not max(rates) > 0.0 or min(losses) <= 0.0 or curves.first <= 0.0
        ):  # a diagnosis by shares of the loss needs positive losses
            return None
        return cls(curves.first, steps, losses, rates, checks, validated)

    @property
    def full(self) -> list[int]:
        """The windows at the full rate."""
        peak = max(self.rates)
        return [i for i, rate in enumerate(self.rates) if rate >= FULL * peak]

    @property
    def scatter(self) -> float:
        """The noise of the loss of a window at the full rate."""
        return loss_noise([self.losses[i] for i in self.full])

    @property
    def decayed(self) -> int:
        """The number of windows at the end with a decayed rate."""
        low = DECAYED * max(self.rates)
        return next((n for n, rate in enumerate(reversed(self.rates)) if rate > low), len(self.rates))

    @property
    def decayed_in_first_half(self) -> bool:
        """Whether the rate is decayed in at least half of the run: slow progress is then no sign of a rate too low."""
        return self.decayed >= len(self.losses) // 2

    def level(self, windows: Sequence[int]) -> float:
        """The mean training loss of some windows."""
        return fmean(self.losses[i] for i in windows)

    @property
    def end(self) -> float:
        """The training loss at the end."""
        return fmean(self.losses[-max(3, len(self.losses) // 30) :])


def _find_divergence(curves: Curves, lr: float | None) -> Finding | None:
    """A training loss that grew and then was not finite. Bad data makes a loss infinite without such a rise."""
    losses = curves.train.values
    bad = next((len(losses) - n for n, loss in enumerate(reversed(losses)) if math.isfinite(loss)), 0)
    before = [loss for loss in losses[:bad] if math.isfinite(loss)]
    if not before or not math.isfinite(curves.first) or max(before[-5:]) < 1.5 * min(curves.first, *before):
        return None
    at, rate = curves.train.steps[bad], curves.rates[bad]
    evidence = f"training loss rose from {min(curves.first, *before):.3g} to {max(before[-5:]):.3g}"
    return Finding(
        TOO_HIGH, f"{evidence} and is not finite at step {at}, at a rate of {rate:.3g}", _advise_lower(lr, 10)
    )


def _find_rate_too_high(run: _Windows, lr: float | None) -> Finding | None:
    """A training loss that made no progress, rose again after its minimum, or stayed high with a jumping validation."""
    if len(run.full) < WINDOWS:
        return None
    return _find_no_progress(run, lr) or _find_rise(run, lr) or _find_oscillation(run, lr)


def _find_no_progress(run: _Windows, lr: float | None) -> Finding | None:
    """A training loss that stays near its start after a jump above it: a rate too low would not make it jump."""
    late, highest = run.full[len(run.full) // 2 :], max(run.losses)
    level, scatter = median(run.losses[i] for i in late), run.scatter
    jumped = highest > run.first + max(0.25 * run.first, CLEAR * scatter)
    above = level > run.first + max(0.01 * run.first, 2.0 * scatter * math.sqrt(run.steps[1] - run.steps[0]))
    nothing = min(level, run.end) > 0.95 * run.first and (jumped or above)
    little = min(level, run.end) > 0.5 * run.first and highest > 100.0 * run.first
    if not nothing and not little:
        return None
    up = f", rose to {highest:.3g}" if jumped else ""
    evidence = f"training loss began at {run.first:.3g}{up}, and is at {run.end:.3g} after {run.steps[-1]} steps"
    return Finding(TOO_HIGH, f"{evidence} at rates up to {max(run.rates):.3g}", _advise_lower(lr, 10))


def _find_rise(run: _Windows, lr: float | None) -> Finding | None:
    """A rise, at a rate that has not risen, by half of the fall before it."""
    full = run.full
    width = max(5, len(full) // 16)
    middles = [median(run.losses[j] for j in full[i : i + width]) for i in range(len(full) - width + 1)]
    lowest = min(range(len(middles)), key=middles.__getitem__)
    fall, rise = run.first - middles[lowest], middles[-1] - middles[lowest]
    # The standard error of a median of normal values is 1.25 times the standard error of their mean.
    clear = CLEAR * 1.25 * run.scatter / math.sqrt(width)
    same_rate = max(run.rates[i] for i in full[-width:]) <= 1.1 * fmean(run.rates[i] for i in full[lowest:][:width])
    if not same_rate or fall <= max(clear, 0.02 * run.first) or rise <= max(clear, 0.5 * fall):
        return None
    down = f"from {run.first:.3g} to {middles[lowest]:.3g} until step {run.steps[full[lowest]]}"
    again = f"and was up again, {middles[-1]:.3g}, at step {run.steps[full[-1]]}"
    return Finding(
        TOO_HIGH, f"training loss fell {down} {again} at rates up to {max(run.rates):.3g}", _advise_lower(lr, 3)
    )


def _find_oscillation(run: _Windows, lr: float | None) -> Finding | None:
    """A high plateau at the full rate, during which the validation loss, on the same data each time, jumps."""
    late = run.full[len(run.full) // 2 :]
    begin, end = run.steps[late[0]], run.steps[late[-1]]
    here = [loss for step, loss in zip(run.checks, run.validated, strict=True) if begin <= step <= end]
    level, (slope, _) = median(run.losses[i] for i in late), _fit_line(run, late)
    if len(here) < 4 or level < 0.4 * run.first or -slope * len(late) > 0.1 * level:
        return None
    jump = fmean(max(0.0, after - before) for before, after in pairwise(here))
    if jump < 0.03 * run.first:
        return None
    evidence = (
        f"from step {begin} to {end}, at rates up to {max(run.rates):.3g}, training loss stayed at {level:.3g} (it"
        f" began at {run.first:.3g}) while validation loss went up and down from {min(here):.3g} to {max(here):.3g}"
    )
    return Finding(TOO_HIGH, evidence, _advise_lower(lr, 3))


def _find_rate_too_low(run: _Windows, lr: float | None) -> Finding | None:
    """A small, almost straight and smooth fall of the training loss.

    Straight over the sum of the rates, not over steps: the decay of a schedule must not count as a bend of the curve.
    """
    sixths = _split_in_sixths(run)
    if min(map(len, sixths)) < 3 or len(run.validated) < VALIDATIONS or len(run.full) < 0.45 * len(run.losses):
        return None
    levels, few = [run.level(part) for part in sixths], max(5, len(run.losses) // 50)
    start, end, scatter = fmean(run.losses[:few]), levels[-1], loss_noise(run.losses)
    fall, clear = start - end, CLEAR * scatter / math.sqrt(min(map(len, sixths)))
    if fall < max(clear, 0.005 * start) or any(a <= b for a, b in pairwise(levels)) or end < 0.65 * start:
        return None
    # The mean of a straight line over the first sixth is 1/12 of its fall below the start; between the fourth and the
    # last sixth it falls by 4/12.
    straight = start - levels[0] < 0.25 * fall and levels[3] - levels[5] > 0.2 * fall
    jumped = max(run.losses) > run.first + CLEAR * scatter
    if not straight or jumped or not _is_smooth(start, run.validated) or run.validated[-1] > 1.1 * run.end:
        return None
    evidence = (
        f"training loss falls almost straight, from {start:.3g} to {run.end:.3g} in {run.steps[-1]} steps at rates up"
        f" to {max(run.rates):.3g}, far from flat at the end, and validation loss falls as smoothly"
    )
    return Finding(TOO_LOW, evidence, _advise_higher(lr, 10 if end > 0.8 * start else 3))


def _is_smooth(start: float, validated: Sequence[float]) -> bool:
    """Whether a loss never rises, and falls faster and faster up to some point and slower and slower after it."""
    falls = [before - after for before, after in pairwise([start, *validated])]
    most = max(falls)
    turns = sum(abs(b - a) for a, b in pairwise(falls)) - (2.0 * most - falls[0] - falls[-1])
    return min(falls[1:]) > -0.0005 * (start - validated[-1]) and turns <= 0.2 * most


def _find_early_decay(run: _Windows, plan: Plan | None) -> Finding | None:
    """A falling training loss that is flat after the rate decayed suddenly in the first half of the run."""
    full, count, decayed = run.full, len(run.losses), run.decayed
    cut = count - decayed
    between = sum(i > full[-1] for i in range(cut))
    if (
        not run.decayed_in_first_half
        or decayed < WINDOWS
        or len(full) < 8
        or full[-1] >= cut
        or between > len(full) // 4
    ):
        return None  # during a slow decay the loss has reached its final level
    before, after = full[len(full) // 2 :], range(cut + decayed // 4, count)
    (was, doubt), (now, _) = _fit_line(run, before), _fit_line(run, after)
    level, at = run.level(before[-3:]), run.steps[cut]
    # At its speed the loss would reach 0 well before the end; at half of it, as curves bend, it would still fall far.
    falling = -was > CLEAR_SLOPE * doubt and -was * decayed > 1.5 * level
    flat = abs(now) < 0.1 * -was and abs(now) * len(after) < 0.05 * run.end
    if not falling or not flat or not _is_confirmed_by_validation(run, at):
        return None
    evidence = (
        f"training loss had fallen from {run.first:.3g} to {level:.3g} and was still falling when the rate went below"
        f" {DECAYED:.0%} of its peak, at step {at} of {run.steps[-1]}; since then it has been flat, at {run.end:.3g}"
    )
    steps = plan is not None and any(isinstance(phase.schedule, Step) for phase in plan.curve.phases)
    return Finding(DECAYED_EARLY, evidence, "schedule.every=40%, or schedule=cosine" if steps else "schedule=cosine")


def _is_confirmed_by_validation(run: _Windows, cut: int) -> bool:
    """Whether the validation loss fell in each validation before the decay, and did not rise after it."""
    if not run.validated:
        return True
    before = [loss for step, loss in zip(run.checks, run.validated, strict=True) if step <= cut]
    fell = all(b < 0.97 * a for a, b in pairwise(before))
    return fell and run.validated[-1] < 1.05 * min(run.validated) and run.validated[-1] < 2.5 * run.end


def _find_overfitting(run: _Windows, plan: Plan | None) -> Finding | None:
    """A validation loss that rises after its minimum, while the training loss continues to fall."""
    if len(run.validated) < VALIDATIONS + 2:
        return None
    middles = [median(run.validated[i : i + 3]) for i in range(len(run.validated) - 2)]
    lowest = min(range(len(middles)), key=middles.__getitem__)
    best, at, end = middles[lowest], run.checks[lowest + 1], run.checks[-1]
    since = run.validated[lowest + 2 :]
    if at > 0.75 * end or len(since) < 3:
        return None
    late, scatter = middles[-1], loss_noise(run.validated)
    middle = len(since) // 2
    rises = late - best > max(CLEAR * scatter, 0.1 * best) and fmean(since[middle:]) > fmean(since[:middle])
    around = [loss for step, loss in zip(run.steps, run.losses, strict=True) if abs(step - at) <= 0.05 * end]
    if not rises or len(around) < 3 or run.end > 0.9 * fmean(around) or late < 1.2 * run.end:
        return None
    evidence = (
        f"validation loss was lowest, {best:.3g}, at step {at} of {end} and is {late:.3g} at the end, while training"
        f" loss fell from {fmean(around):.3g} to {run.end:.3g}"
    )
    per_epoch = None if plan is None else plan.horizon.steps_per_epoch
    shorter = "" if per_epoch is None else f"trainer.max_epochs={max(1, round(at / per_epoch))}, "
    return Finding(OVERFITTING, evidence, f"{shorter}more optimizer.weight_decay, or use checkpoints/best.ckpt")


def _split_in_sixths(run: _Windows) -> list[list[int]]:
    """The windows in six parts with equal sums of the rate."""
    parts: list[list[int]] = [[] for _ in range(6)]
    total, done = sum(run.rates), 0.0
    for i, rate in enumerate(run.rates):
        parts[min(5, int(6.0 * (done + rate / 2.0) / total))].append(i)
        done += rate
    return parts


def _fit_line(run: _Windows, windows: Sequence[int]) -> tuple[float, float]:
    """The slope per window of the least-squares line through some windows, and its standard error from their noise."""
    losses = [run.losses[i] for i in windows]
    centre = (len(losses) - 1) / 2.0
    spread = sum((i - centre) ** 2 for i in range(len(losses)))
    slope = sum((i - centre) * loss for i, loss in enumerate(losses)) / spread
    return slope, loss_noise(losses) / math.sqrt(spread)


def _advise_lower(lr: float | None, by: int) -> str:
    return (
        "a lower rate, or lrkit find" if lr is None else f"optimizer.lr={lr / by:.2g} ({_NAMES[by][0]}), or lrkit find"
    )


def _advise_higher(lr: float | None, by: int) -> str:
    return (
        "a higher rate, or lrkit find" if lr is None else f"optimizer.lr={lr * by:.2g} ({_NAMES[by][1]}), or lrkit find"
    )


_NAMES = {3: ("a third", "three times"), 10: ("a tenth", "ten times")}

"""What the curves of a run say about its learning rate: a symptom, the numbers it shows in, and the flag to try.

    rate too high       the training loss blows up, never comes below its start, or rises again at the full rate
    rate too low        it falls in an almost straight line that ends far from flat, and nothing ever jitters
    decayed too early   it fell well until the rate was taken away, most of the run was still to come, and was flat
    overfitting         the validation loss has passed its minimum for good, while the training loss goes on falling

Wrong advice is worse than none: an effect counts where it is several times the noise of the curve that it is seen in,
and where one of the signs of a symptom is missing, nothing is said. How often each is seen, and what cannot be seen
at all: ``docs/diagnosis.md``.
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

#: Windows of the training loss, and validations, of which less say nothing.
WINDOWS, VALIDATIONS = 24, 6
#: An effect counts from so many times its noise; a slope, which is not the largest of many, sooner.
CLEAR, CLEAR_SLOPE = 6.0, 4.0
#: Of the peak: above it a rate counts as full, below it as taken away.
FULL, GONE = 0.5, 0.03


@dataclass(frozen=True)
class Curves:
    """What was recorded of a run.

    Args:
        first: the training loss of the first batch, before any step.
        train: the mean training loss of each window of the run; a window is known by the step that it ends at.
        rates: the rate that each window ends at, of the first parameter group.
        validated: the validation loss.
    """

    first: float
    train: Series
    rates: Sequence[float]
    validated: Series = field(default_factory=Series)


@dataclass(frozen=True)
class Finding:
    """One symptom: ``kind``, one of the four; ``evidence``, a sentence with its numbers; ``advice``, flags to try."""

    kind: str
    evidence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.evidence}; try {self.advice}"


def diagnose(curves: Curves, plan: Plan | None = None) -> list[Finding]:
    """The symptoms that a run clearly shows, the most severe first; mostly none.

    Args:
        curves: of a run that came to its end.
        plan: for advice in numbers; and with an optimizer that finds its rate itself nothing is said about that.
    """
    adjusts = plan is not None and finds_rate(plan.optimizer)
    lr = None if plan is None else plan.base_lr
    if curves.train.values and not math.isfinite(curves.train.values[-1]):
        found = [] if adjusts else [_blown_up(curves, lr)]
        return [finding for finding in found if finding is not None]
    run = _Windows.of(curves)
    if run is None:
        return []
    early = _decayed_early(run, plan)
    about_the_rate = [] if adjusts else [_too_high(run, lr), *([] if early or run.kept_low else [_too_low(run, lr)])]
    found = [*about_the_rate[:1], early, *about_the_rate[1:], _overfitting(run, plan)]
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
        """None where there is too little of them."""
        train = [
            (step, loss, rate)
            for step, loss, rate in zip(curves.train.steps, curves.train.values, curves.rates, strict=True)
            if math.isfinite(loss)
        ]
        checks, validated = curves.validated.steps, curves.validated.values
        if len(train) < WINDOWS or not all(map(math.isfinite, (curves.first, *validated))):
            return None
        steps, losses, rates = zip(*train, strict=True)
        if not max(rates) > 0.0 or min(losses) <= 0.0 or curves.first <= 0.0:  # shares of a loss mean nothing here
            return None
        return cls(curves.first, steps, losses, rates, checks, validated)

    @property
    def full(self) -> list[int]:
        """The windows at the full rate."""
        peak = max(self.rates)
        return [i for i, rate in enumerate(self.rates) if rate >= FULL * peak]

    @property
    def scatter(self) -> float:
        """The noise of a window at the full rate."""
        return loss_noise([self.losses[i] for i in self.full])

    @property
    def gone(self) -> int:
        """How many windows there are at the end in which the rate is as good as taken away."""
        low = GONE * max(self.rates)
        return next((n for n, rate in enumerate(reversed(self.rates)) if rate > low), len(self.rates))

    @property
    def kept_low(self) -> bool:
        """Whether that is most of the run: then it is not the height of the rate that slows it down."""
        return self.gone >= len(self.losses) // 2

    def level(self, windows: Sequence[int]) -> float:
        return fmean(self.losses[i] for i in windows)

    @property
    def end(self) -> float:
        """The training loss at the end."""
        return fmean(self.losses[-max(3, len(self.losses) // 30) :])


def _blown_up(curves: Curves, lr: float | None) -> Finding | None:
    """A loss that ended by not being a number, and had grown before: bad data does not announce itself."""
    losses = curves.train.values
    bad = next((len(losses) - n for n, loss in enumerate(reversed(losses)) if math.isfinite(loss)), 0)
    before = [loss for loss in losses[:bad] if math.isfinite(loss)]
    if not before or not math.isfinite(curves.first) or max(before[-5:]) < 1.5 * min(curves.first, *before):
        return None
    at, rate = curves.train.steps[bad], curves.rates[bad]
    evidence = f"training loss rose from {min(curves.first, *before):.3g} to {max(before[-5:]):.3g}"
    return Finding(TOO_HIGH, f"{evidence} and is not finite at step {at}, at a rate of {rate:.3g}", _lower(lr, 10))


def _too_high(run: _Windows, lr: float | None) -> Finding | None:
    """Nothing was learned, and a jump shows that it was not for short steps; what was won is lost; or all bounces."""
    if len(run.full) < WINDOWS:
        return None
    return _nothing_learned(run, lr) or _lost_again(run, lr) or _bouncing(run, lr)


def _nothing_learned(run: _Windows, lr: float | None) -> Finding | None:
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
    return Finding(TOO_HIGH, f"{evidence} at rates up to {max(run.rates):.3g}", _lower(lr, 10))


def _lost_again(run: _Windows, lr: float | None) -> Finding | None:
    """A rise at a rate that has not risen, by half of what the loss had fallen."""
    full = run.full
    width = max(5, len(full) // 16)
    middles = [median(run.losses[j] for j in full[i : i + width]) for i in range(len(full) - width + 1)]
    lowest = min(range(len(middles)), key=middles.__getitem__)
    won, lost = run.first - middles[lowest], middles[-1] - middles[lowest]
    # The standard error of a median of normal values is 1.25 times that of their mean.
    clear = CLEAR * 1.25 * run.scatter / math.sqrt(width)
    same_rate = max(run.rates[i] for i in full[-width:]) <= 1.1 * fmean(run.rates[i] for i in full[lowest:][:width])
    if not same_rate or won <= max(clear, 0.02 * run.first) or lost <= max(clear, 0.5 * won):
        return None
    down = f"from {run.first:.3g} to {middles[lowest]:.3g} until step {run.steps[full[lowest]]}"
    again = f"and was up again, {middles[-1]:.3g}, at step {run.steps[full[-1]]}"
    return Finding(TOO_HIGH, f"training loss fell {down} {again} at rates up to {max(run.rates):.3g}", _lower(lr, 3))


def _bouncing(run: _Windows, lr: float | None) -> Finding | None:
    """A high plateau at the full rate, on which the validation loss, always of the same data, jumps up and down."""
    late = run.full[len(run.full) // 2 :]
    begin, end = run.steps[late[0]], run.steps[late[-1]]
    here = [loss for step, loss in zip(run.checks, run.validated, strict=True) if begin <= step <= end]
    level, (slope, _) = median(run.losses[i] for i in late), _line(run, late)
    if len(here) < 4 or level < 0.4 * run.first or -slope * len(late) > 0.1 * level:
        return None
    jump = fmean(max(0.0, after - before) for before, after in pairwise(here))
    if jump < 0.03 * run.first:
        return None
    evidence = (
        f"from step {begin} to {end}, at rates up to {max(run.rates):.3g}, training loss stayed at {level:.3g} (it"
        f" began at {run.first:.3g}) while validation loss went up and down from {min(here):.3g} to {max(here):.3g}"
    )
    return Finding(TOO_HIGH, evidence, _lower(lr, 3))


def _too_low(run: _Windows, lr: float | None) -> Finding | None:
    """An almost straight way down, that has not led far, without any sign that a step was ever too long.

    Straight over the sum of the rates, not over steps: what a schedule takes away in the end is no bend of the curve.
    """
    sixths = _sixths(run)
    if min(map(len, sixths)) < 3 or len(run.validated) < VALIDATIONS or len(run.full) < 0.45 * len(run.losses):
        return None
    levels, few = [run.level(part) for part in sixths], max(5, len(run.losses) // 50)
    start, end, scatter = fmean(run.losses[:few]), levels[-1], loss_noise(run.losses)
    fall, clear = start - end, CLEAR * scatter / math.sqrt(min(map(len, sixths)))
    if fall < max(clear, 0.005 * start) or any(a <= b for a, b in pairwise(levels)) or end < 0.65 * start:
        return None
    # A straight line has 1/12 of its fall behind it in the first sixth, on average, and 4/12 in the last half.
    straight = start - levels[0] < 0.25 * fall and levels[3] - levels[5] > 0.2 * fall
    jumped = max(run.losses) > run.first + CLEAR * scatter
    if not straight or jumped or not _smooth(start, run.validated) or run.validated[-1] > 1.1 * run.end:
        return None
    evidence = (
        f"training loss falls almost straight, from {start:.3g} to {run.end:.3g} in {run.steps[-1]} steps at rates up"
        f" to {max(run.rates):.3g}, far from flat at the end, and validation loss falls as smoothly"
    )
    return Finding(TOO_LOW, evidence, _higher(lr, 10 if end > 0.8 * start else 3))


def _smooth(start: float, validated: Sequence[float]) -> bool:
    """Whether a loss never rises, and falls ever faster up to some point and ever slower from there."""
    falls = [before - after for before, after in pairwise([start, *validated])]
    most = max(falls)
    turns = sum(abs(b - a) for a, b in pairwise(falls)) - (2.0 * most - falls[0] - falls[-1])
    return min(falls[1:]) > -0.0005 * (start - validated[-1]) and turns <= 0.2 * most


def _decayed_early(run: _Windows, plan: Plan | None) -> Finding | None:
    """A loss on its way down, stopped by a rate that was cut off before the run was half over."""
    full, count, gone = run.full, len(run.losses), run.gone
    cut = count - gone
    between = sum(i > full[-1] for i in range(cut))
    if not run.kept_low or gone < WINDOWS or len(full) < 8 or full[-1] >= cut or between > len(full) // 4:
        return None  # a rate that faded had let the loss arrive where it was going
    before, after = full[len(full) // 2 :], range(cut + gone // 4, count)
    (was, doubt), (now, _) = _line(run, before), _line(run, after)
    level, at = run.level(before[-3:]), run.steps[cut]
    # At this speed nothing would be left long before the end: half as fast, as curves bend, is a good part still.
    falling = -was > CLEAR_SLOPE * doubt and -was * gone > 1.5 * level
    flat = abs(now) < 0.1 * -was and abs(now) * len(after) < 0.05 * run.end
    if not falling or not flat or not _helps(run, at):
        return None
    evidence = (
        f"training loss had come from {run.first:.3g} to {level:.3g} and was still falling when the rate went below"
        f" {GONE:.0%} of its peak, at step {at} of {run.steps[-1]}; since then it has been flat, at {run.end:.3g}"
    )
    steps = plan is not None and any(isinstance(phase.schedule, Step) for phase in plan.curve.phases)
    return Finding(DECAYED_EARLY, evidence, "schedule.every=40%, or schedule=cosine" if steps else "schedule=cosine")


def _helps(run: _Windows, cut: int) -> bool:
    """Whether validation agrees that more of the same was wanted: its loss fell until the cut, and never rose."""
    if not run.validated:
        return True
    before = [loss for step, loss in zip(run.checks, run.validated, strict=True) if step <= cut]
    fell = all(b < 0.97 * a for a, b in pairwise(before))
    return fell and run.validated[-1] < 1.05 * min(run.validated) and run.validated[-1] < 2.5 * run.end


def _overfitting(run: _Windows, plan: Plan | None) -> Finding | None:
    """A validation loss that has turned for good, while the training loss goes on falling."""
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
        f"validation loss was lowest, {best:.3g}, at step {at} of {end} and is {late:.3g} now, while training loss fell"
        f" from {fmean(around):.3g} to {run.end:.3g}"
    )
    each = None if plan is None else plan.horizon.steps_per_epoch
    shorter = "" if each is None else f"trainer.max_epochs={max(1, round(at / each))}, "
    return Finding(OVERFITTING, evidence, f"{shorter}more optimizer.weight_decay, or checkpoints/best.ckpt as it is")


def _sixths(run: _Windows) -> list[list[int]]:
    """The windows in six parts, through each of which the rate sums up to the same."""
    parts: list[list[int]] = [[] for _ in range(6)]
    total, done = sum(run.rates), 0.0
    for i, rate in enumerate(run.rates):
        parts[min(5, int(6.0 * (done + rate / 2.0) / total))].append(i)
        done += rate
    return parts


def _line(run: _Windows, windows: Sequence[int]) -> tuple[float, float]:
    """The slope of the least-squares line through some windows, per window, and its standard error by their noise."""
    losses = [run.losses[i] for i in windows]
    centre = (len(losses) - 1) / 2.0
    spread = sum((i - centre) ** 2 for i in range(len(losses)))
    slope = sum((i - centre) * loss for i, loss in enumerate(losses)) / spread
    return slope, loss_noise(losses) / math.sqrt(spread)


def _lower(lr: float | None, by: int) -> str:
    return (
        "a lower rate, or lrkit find" if lr is None else f"optimizer.lr={lr / by:.2g} ({_NAMES[by][0]}), or lrkit find"
    )


def _higher(lr: float | None, by: int) -> str:
    return (
        "a higher rate, or lrkit find" if lr is None else f"optimizer.lr={lr * by:.2g} ({_NAMES[by][1]}), or lrkit find"
    )


_NAMES = {3: ("a third", "three times"), 10: ("a tenth", "ten times")}

"""The race that confirms a learning rate: short trainings by the real schedule, compressed, at rates side by side.

A range test sees each rate for a step or two; the loss may still fall at one where a training dies. So candidates are
trained, warmup and all, in a fraction of the steps of the run (a successive halving, Jamieson and Talwalkar 2016,
arXiv:1502.07943, in two heats):

    heat 1    six rates a factor of 2 apart around the minimum of the range test    1/16 of the run each
    heat 2    the best of them and its two neighbours                               1/4 of the run each

Where the best lies at an edge, the heat goes on beyond it. The answer is the minimum of a parabola through the best
of heat 2 and its neighbours, moved by a part of what the best moved from heat 1 to heat 2 for each doubling of the
length that is still missing: with most optimizers the best rate falls, with some it grows, as trainings get longer.
It is then lowered a little, because a rate that is too high costs more than one that is as much too low.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Confirmation", "Round", "confirm_rate", "round_lengths"]

#: Shares of the run that the two heats take, and the steps that they never exceed.
SHARES, LONGEST = (1 / 16, 1 / 4), (500, 2000)
#: What all of it may take, in runs of those lengths times four: 1.5 times the run where that is not too long.
BUDGET = 6.0
#: How much of the drift from heat to heat is continued, and the furthest it may lead, in factors of 2.
DRIFT, FURTHEST = 0.5, 1.5
#: How much lower than the best guess the answer is.
CAUTION = 0.85

Train = Callable[[float, int], float]


@dataclass(frozen=True)
class Round:
    """Trainings of one length.

    Args:
        steps: optimizer steps of each.
        scores: rate -> score at the end, lower is better; infinite where it diverged.
    """

    steps: int
    scores: Mapping[float, float]

    @property
    def best(self) -> float:
        """The rate with the lowest score."""
        return min(self.scores, key=self.scores.__getitem__)

    @property
    def vertex(self) -> float:
        """The minimum of the parabola through the best and its neighbours, over the logarithm of the rate.

        With equal distances it lies within half a distance of the best: towards the better neighbour, and away from
        one that diverged.
        """
        rates = sorted(self.scores)
        at = rates.index(self.best)
        if at in (0, len(rates) - 1):
            return self.best
        left, right = (self.scores[rates[i]] - self.scores[self.best] for i in (at - 1, at + 1))
        if math.isinf(right) or math.isinf(left):
            shift = 0.0 if left == right else -0.5 if math.isinf(right) else 0.5
        else:
            shift = 0.0 if left + right == 0.0 else 0.5 * (left - right) / (left + right)
        return float(self.best * (rates[at + 1] / rates[at]) ** shift)


@dataclass(frozen=True)
class Confirmation:
    """What a race came to.

    Args:
        lr: the rate; None where there is none.
        low, high: rates between which the short trainings ended about as well.
        reason: why there is no rate; else empty.
        heats: what was trained.
    """

    lr: float | None
    low: float | None
    high: float | None
    reason: str
    heats: tuple[Round, ...]


def round_lengths(steps: int | None) -> tuple[int, int]:
    """The steps of a training of each heat, for a run of ``steps``; None where that is not known.

    >>> round_lengths(800), round_lengths(100_000), round_lengths(None)
    ((50, 200), (500, 2000), (100, 400))
    """
    if steps is None:
        return 100, 400
    first, second = (min(most, math.ceil(steps * share)) for share, most in zip(SHARES, LONGEST, strict=True))
    return min(steps, max(first, 8)), min(steps, max(second, 16))


def confirm_rate(train: Train, around: float, steps: int | None) -> Confirmation:
    """Train candidates around a rate.

    Args:
        train: the score of a training at a rate, for so many steps; lower is better, infinite if it diverged.
        around: where the range test has its minimum.
        steps: optimizer steps of the run.

    >>> round(confirm_rate(lambda lr, steps: (math.log10(lr) + 2) ** 2, 0.004, 1000).lr, 6)
    0.0085
    """
    short, long = round_lengths(steps)
    left = BUDGET * long
    spent, first = _heat(train, [around * 2.0**k for k in range(-2, 4)], short, left - 4 * long)
    if math.isinf(first.scores[first.best]):
        return Confirmation(None, None, None, "every short training diverged: lower find.end", (first,))
    top = first.best
    spent, second = _heat(train, [top / 2.0, top, top * 2.0], long, left - spent)
    heats = (first, second)
    best = second.scores[second.best]
    if math.isinf(best):
        return Confirmation(None, None, None, "every longer training diverged", heats)
    worst = max(score for heat in heats for score in heat.scores.values() if math.isfinite(score))
    if worst == best:
        return Confirmation(None, None, None, "the short trainings ended all alike", heats)
    return Confirmation(*_answer(first, second, steps, best + 0.05 * (worst - best)), "", heats)


def _heat(train: Train, rates: list[float], steps: int, budget: float) -> tuple[int, Round]:
    """Train at ``rates``, and beyond an edge at which the best lies while there are steps left; and what it took."""
    scores = {rate: train(rate, steps) for rate in rates}
    while True:
        heat, spent = Round(steps, dict(sorted(scores.items()))), len(scores) * steps
        lowest, *_, highest = heat.scores
        if heat.best not in (lowest, highest) or spent + steps > budget:
            return spent, heat
        beyond = lowest / 2.0 if heat.best == lowest else highest * 2.0
        scores[beyond] = train(beyond, steps)


def _answer(first: Round, second: Round, steps: int | None, limit: float) -> tuple[float, float, float]:
    """Rate, low and high, for the whole run."""
    found, drift = second.vertex, 1.0
    if steps is not None and steps > second.steps > first.steps:
        moved = math.log2(found / first.vertex) / math.log2(second.steps / first.steps)
        onward = DRIFT * moved * math.log2(steps / second.steps)
        drift = 2.0 ** max(-FURTHEST, min(FURTHEST, onward))
    drift *= CAUTION
    # Never further up than has been seen to go well.
    good = [rate for rate, score in second.scores.items() if score <= limit]
    edge = math.sqrt(2.0)
    lr = min(found * drift, max(good) * (edge if max(good) < max(second.scores) else 1.0))
    return lr, min(min(good) * drift / edge, lr), max(min(max(good) * drift, max(good)) * edge, lr)

"""Confirms a learning rate by successive halving: short runs of the compressed schedule at several rates.

A range test uses each rate for a step or two; the loss may still fall at a rate at which a training diverges later. So
candidates are trained by the whole schedule, with its warmup, in a fraction of the run's steps (successive halving,
Jamieson and Talwalkar 2016, arXiv:1502.07943, in two rounds):

    round 1    six rates, a factor of 2 apart, around the minimum of the range test    1/16 of the run each
    round 2    the best of them and its two neighbours                                 1/4 of the run each

If the best rate is the lowest or the highest, the round continues beyond it. The result is the minimum of a parabola
through the best rate of round 2 and its neighbours, moved by a part of the change of the best rate from round 1 to
round 2, for each further doubling of the length: with most optimizers the best rate falls, with some it rises, as
trainings get longer. It is then lowered a little, because a rate that is too high costs more than one too low.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Confirmation", "Round", "confirm_rate", "round_lengths"]

#: Shares of the run for a short run of each round, and the maximal steps of these.
SHARES, LONGEST = (1 / 16, 1 / 4), (500, 2000)
#: Maximal steps of all short runs together, in multiples of the length in round 2: at most 1.5 times the run.
BUDGET = 6.0
#: Share of the drift between the rounds that is continued, and its maximum, in factors of 2.
DRIFT, FURTHEST = 0.5, 1.5
#: Factor by which the result is below the best estimate.
CAUTION = 0.85

Train = Callable[[float, int], float]


@dataclass(frozen=True)
class Round:
    """The short runs of one length.

    Args:
        steps: optimizer steps of each.
        scores: rate -> score at the end, lower is better; infinite for a run that diverged.
    """

    steps: int
    scores: Mapping[float, float]

    @property
    def best(self) -> float:
        """The rate with the lowest score."""
        return min(self.scores, key=self.scores.__getitem__)

    @property
    def vertex(self) -> float:
        """The minimum of the parabola through the best rate and its neighbours, over the logarithm of the rate.

        With equal distances it lies within half a distance of the best rate, on the side of the better neighbour, and
        away from a neighbour that diverged.
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
    """The result of the short runs.

    Args:
        lr: the rate; None without a result.
        low, high: the rates between which the scores are about as good.
        reason: the reason for no result; else empty.
        heats: the rounds.
    """

    lr: float | None
    low: float | None
    high: float | None
    reason: str
    heats: tuple[Round, ...]


def round_lengths(steps: int | None) -> tuple[int, int]:
    """The steps of a short run in each round, for a run of ``steps`` (None: unknown).

    >>> round_lengths(800), round_lengths(100_000), round_lengths(None)
    ((50, 200), (500, 2000), (100, 400))
    """
    if steps is None:
        return 100, 400
    first, second = (min(most, math.ceil(steps * share)) for share, most in zip(SHARES, LONGEST, strict=True))
    return min(steps, max(first, 8)), min(steps, max(second, 16))


def confirm_rate(train: Train, around: float, steps: int | None) -> Confirmation:
    """Train candidates around a rate, and return the best one.

    Args:
        train: trains at a rate for a number of steps; returns a score, lower is better, infinite if it diverged.
        around: the rate at the minimum of the range test.
        steps: optimizer steps of the run.

    >>> round(confirm_rate(lambda lr, steps: (math.log10(lr) + 2) ** 2, 0.004, 1000).lr, 6)
    0.0085
    """
    short, long = round_lengths(steps)
    left = BUDGET * long
    spent, first = _run_round(train, [around * 2.0**k for k in range(-2, 4)], short, left - 4 * long)
    if math.isinf(first.scores[first.best]):
        return Confirmation(None, None, None, "every short run of the first round diverged: lower find.end", (first,))
    top = first.best
    spent, second = _run_round(train, [top / 2.0, top, top * 2.0], long, left - spent)
    heats = (first, second)
    best = second.scores[second.best]
    if math.isinf(best):
        return Confirmation(None, None, None, "every short run of the second round diverged", heats)
    worst = max(score for heat in heats for score in heat.scores.values() if math.isfinite(score))
    if worst == best:
        return Confirmation(None, None, None, "all short runs reached the same score", heats)
    return Confirmation(*_extrapolate(first, second, steps, best + 0.05 * (worst - best)), "", heats)


def _run_round(train: Train, rates: list[float], steps: int, budget: float) -> tuple[int, Round]:
    """Train at ``rates``, and beyond the best one if it is the lowest or highest and the budget allows it.

    Returns:
        The number of steps used, and the round.
    """
    scores = {rate: train(rate, steps) for rate in rates}
    while True:
        heat, spent = Round(steps, dict(sorted(scores.items()))), len(scores) * steps
        lowest, *_, highest = heat.scores
        if heat.best not in (lowest, highest) or spent + steps > budget:
            return spent, heat
        beyond = lowest / 2.0 if heat.best == lowest else highest * 2.0
        scores[beyond] = train(beyond, steps)


def _extrapolate(first: Round, second: Round, steps: int | None, limit: float) -> tuple[float, float, float]:
    """``(rate, low, high)`` for the whole run."""
    found, drift = second.vertex, 1.0
    if steps is not None and steps > second.steps > first.steps:
        moved = math.log2(found / first.vertex) / math.log2(second.steps / first.steps)
        onward = DRIFT * moved * math.log2(steps / second.steps)
        drift = 2.0 ** max(-FURTHEST, min(FURTHEST, onward))
    drift *= CAUTION
    # The rate stays below the highest good one, or half a factor of 2 above it if a higher one was bad.
    good = [rate for rate, score in second.scores.items() if score <= limit]
    edge = math.sqrt(2.0)
    lr = min(found * drift, max(good) * (edge if max(good) < max(second.scores) else 1.0))
    return lr, min(min(good) * drift / edge, lr), max(min(max(good) * drift, max(good)) * edge, lr)

"""Confirms a learning rate by successive halving: short runs of the compressed schedule at several rates.

A range test uses each rate for a step or two; the loss may still fall at a rate at which a training diverges later. So
candidates are trained by the whole schedule, with its warmup, in a fraction of the run's steps (successive halving,
Jamieson and Talwalkar 2016, arXiv:1502.07943, in two or three rounds):

    round 1    six rates, a factor of 2 apart, around the minimum of the range test    1/16 of the run each
    round 2    the best of them and its better neighbour                               1/4 of the run each
    round 3    the same with the best of round 2                                       1/2 of the run each

Without round 3, round 2 begins with both neighbours of the best rate, because the result needs them.
While the best rate of a round is its lowest or its highest, the round continues beyond it; while all its scores are
clearly worse than the best one of the shorter round, it continues below its rates. With three rounds the result
is the minimum of a parabola through the best rate of round 3 and its neighbours: the best rate at half of a run is
close to that of the run. A quarter of a run shows less. With two rounds the minimum is therefore moved by a part of its
change from round 1 to round 2, for each further doubling of the length: with most optimizers the best rate falls, with
some it rises, as trainings get longer. It is then lowered a little, because a rate that is too high costs more than one
too low.

If the last round takes full runs, the result is its best rate itself: nothing is left to estimate. Where a higher rate
is unstable, the best rate can be close below it, and a parabola does not find it; so the last run of that round is half
a factor of 2 above the best one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Confirmation", "Round", "confirm_rate", "round_lengths"]

#: Shares of the run for a short run of each round, and the maximal steps of these.
SHARES, LONGEST = (1 / 16, 1 / 4, 1 / 2), (500, 2000, 4000)
#: Maximal number of short runs in each round: their steps together are at most 3.5 times the run, or, if the last round
#: takes full runs, 6.5 times.
MOST = (8, 4, 4)
#: A round whose best score is worse than that of the shorter round, by this share of the spread so far, has collapsed.
COLLAPSE = 0.25
#: Share of the drift between two rounds that is continued, and its maximum, in factors of 2.
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
        rounds: what was trained, round by round.
    """

    lr: float | None
    low: float | None
    high: float | None
    reason: str
    rounds: tuple[Round, ...]


def round_lengths(steps: int | None, rounds: int = 3, full: bool = False) -> tuple[int, ...]:
    """The steps of a short run in each round, for a run of ``steps`` (None: unknown); ``full``: all in the last one.

    A run of a few steps has no third round, because it would repeat the second.

    >>> round_lengths(800), round_lengths(100_000), round_lengths(None, rounds=2)
    ((50, 200, 400), (500, 2000, 4000), (100, 400))
    >>> round_lengths(800, full=True), round_lengths(100_000, rounds=2, full=True)
    ((50, 200, 800), (500, 100000))
    """
    if steps is None:
        return (100, 400, 800)[:rounds]
    wanted = (min(most, math.ceil(steps * share)) for share, most in zip(SHARES, LONGEST, strict=True))
    lengths = [min(steps, max(length, least)) for length, least in zip(wanted, (8, 16, 16), strict=True)][:rounds]
    if full:
        lengths[-1] = steps
    return tuple(lengths[:2] if lengths[-1] == lengths[1] else lengths)


def confirm_rate(train: Train, around: float, steps: int | None, rounds: int = 3, full: bool = False) -> Confirmation:
    """Train candidates around a rate, and return the best one.

    Args:
        train: trains at a rate for a number of steps; returns a score, lower is better, infinite if it diverged.
        around: the rate at the minimum of the range test.
        steps: optimizer steps of the run.
        rounds: number of rounds, 2 or 3.
        full: whether the last round takes full runs, which needs ``steps``.

    >>> round(confirm_rate(lambda lr, steps: (math.log10(lr) + 2) ** 2, 0.004, 1000).lr, 6)
    0.01
    """
    rates, trained, tolerable = [around * 2.0**k for k in range(-2, 4)], list[Round](), math.inf
    lengths = round_lengths(steps, rounds, full)
    for length, most, ordinal in zip(lengths, MOST, ("first", "second", "third"), strict=False):
        last = _run_round(train, rates, length, most, tolerable)
        trained.append(last)
        best = last.scores[last.best]
        if math.isinf(best):
            advice = ": lower find.end" if ordinal == "first" else ""
            reason = f"every short run of the {ordinal} round diverged{advice}"
            return Confirmation(None, None, None, reason, tuple(trained))
        worst = max(score for each in trained for score in each.scores.values() if math.isfinite(score))
        # Without a third round the second one is the last: it needs both neighbours for its parabola.
        rates = _find_bracket(last) if len(lengths) > 2 else [last.best / 2.0, last.best, last.best * 2.0]
        tolerable = best + COLLAPSE * (worst - best)
    if full:
        last = trained[-1] = _train_above_best(train, last)
        best = last.scores[last.best]
    if worst == best:
        return Confirmation(None, None, None, "all short runs reached the same score", tuple(trained))
    factor = _extrapolate(trained[0], trained[1], steps) if len(trained) == 2 and not full else 1.0
    estimate = last.best if full else last.vertex * factor
    return Confirmation(*_limit_rate(last, estimate, factor, best + 0.05 * (worst - best)), "", tuple(trained))


def _run_round(train: Train, rates: list[float], steps: int, most: int, tolerable: float) -> Round:
    """Train at ``rates``, and beyond the best one while it is the lowest or highest, ``most`` rates in all.

    While all scores are above ``tolerable``, clearly worse than in the shorter round, all rates are too high for a
    longer run, and their order is an accident: the round continues below them.
    """
    scores = {rate: train(rate, steps) for rate in rates}
    while True:
        taken = Round(steps, dict(sorted(scores.items())))
        lowest, *_, highest = taken.scores
        too_high = taken.scores[taken.best] > tolerable
        if len(scores) == most or not (too_high or taken.best in (lowest, highest)):
            return taken
        beyond = lowest / 2.0 if too_high or taken.best == lowest else highest * 2.0
        scores[beyond] = train(beyond, steps)


def _train_above_best(train: Train, last: Round) -> Round:
    """The round with one more run, half a factor of 2 above its best rate."""
    above = last.best * math.sqrt(2.0)
    return Round(last.steps, dict(sorted({**last.scores, above: train(above, last.steps)}.items())))


def _find_bracket(last: Round) -> list[float]:
    """The best rate of a round and its better neighbour, or the rate beyond it; the lower one first."""
    rates, best = list(last.scores), last.best
    lowest, highest = best == rates[0], best == rates[-1]
    if not lowest and (highest or last.vertex > best):
        return [best, best * 2.0]
    return [best / 2.0, best]


def _extrapolate(first: Round, second: Round, steps: int | None) -> float:
    """The factor from the best rate of the second round to the rate for the whole run."""
    drift = 1.0
    if steps is not None and steps > second.steps > first.steps:
        moved = math.log2(second.vertex / first.vertex) / math.log2(second.steps / first.steps)
        onward = DRIFT * moved * math.log2(steps / second.steps)
        drift = 2.0 ** max(-FURTHEST, min(FURTHEST, onward))
    return drift * CAUTION


def _limit_rate(last: Round, estimate: float, factor: float, limit: float) -> tuple[float, float, float]:
    """``(rate, low, high)`` for the whole run, from its estimate and the last round; scores up to ``limit`` are good.

    ``factor`` leads from a rate of the last round to that of the whole run.
    """
    # The rate stays below the highest good one, or half a factor of 2 above it if a higher one was bad.
    good = [rate for rate, score in last.scores.items() if score <= limit]
    edge = math.sqrt(2.0)
    lr = min(estimate, max(good) * (edge if max(good) < max(last.scores) else 1.0))
    return lr, min(min(good) * factor / edge, lr), max(min(max(good) * factor, max(good)) * edge, lr)

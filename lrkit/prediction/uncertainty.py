"""The interval of a predicted loss: what a bootstrap says, and how far the law itself was off on measured runs.

    half = 1.645 * sqrt(bootstrap ** 2 + misfit ** 2 * (schedule ** 2 + (length * log h) ** 2 + (rate * log r) ** 2))

as a share of the loss. The bootstrap draws the runs of each schedule and blocks of their points anew, and covers the
noise. It knows nothing of the law's own error, which is larger: so the second part is the residual of the fit, at least
``LEAST``, times factors that were measured on held-out runs (``SPREAD``). ``h`` and ``r`` are the ratios of length
and peak rate to the nearest fitted ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrkit.prediction.annealing_law import AnnealingLaw, Numbers
from lrkit.prediction.law_fit import LossCurve, refit_law

__all__ = ["LEAST", "SPREAD", "Spread", "draw_laws"]

_QUANTILE = 1.645  # of a 90 % interval
_SAMPLES, _BLOCK = 100, 4  # of the bootstrap: samples, and neighbouring points that are drawn together
#: The smallest misfit, as a share of the loss: a closer fit was not a better prediction.
LEAST = 0.01


@dataclass(frozen=True)
class Spread:
    """Standard deviations of a predicted loss, in units of the misfit.

    Args:
        schedule: for a schedule that was not fitted.
        length: for a length, times the logarithm of its ratio to the nearest fitted one.
        rate: the same for the peak rate.
    """

    schedule: float
    length: float
    rate: float

    def half_width(self, misfit: float, bootstrap: float, log_length: float, log_rate: float) -> float:
        """Return half the width of the 90 % interval, as a share of the loss.

        >>> round(Spread(0.5, 2.0, 1.0).half_width(0.02, 0.0, 0.0, 0.0), 4)
        0.0164
        """
        units = math.hypot(self.schedule, self.length * log_length, self.rate * log_rate)
        return _QUANTILE * math.hypot(bootstrap, max(misfit, LEAST) * units)


#: Measured on three small tasks and a recorded language model, see docs/evidence.md.
SPREAD = Spread(schedule=0.6, length=3.0, rate=3.4)


def draw_laws(
    curves: Sequence[LossCurve], groups: Sequence[int], law: AnnealingLaw, seed: int = 0
) -> list[AnnealingLaw]:
    """Return the laws of a bootstrap: in each sample, the runs of a group and blocks of their points are drawn anew.

    Args:
        curves: those that ``law`` was fitted to.
        groups: for each curve, the number of its group: runs that differ only in the seed.
        law: the law of all runs.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    samples = []
    for _ in range(_SAMPLES):
        runs = np.zeros(len(curves))
        for group in set(groups):
            members = [i for i, own in enumerate(groups) if own == group]
            np.add.at(runs, random.choice(members, len(members)), 1.0)
        samples.append(np.concatenate([runs[i] * _draw_blocks(len(c.steps), random) for i, c in enumerate(curves)]))
    return refit_law(curves, law, samples)


def _draw_blocks(points: int, random: np.random.Generator) -> Numbers:
    """Return how often each point is drawn, with a mean of 1."""
    blocks = math.ceil(points / _BLOCK)
    drawn = np.bincount(random.integers(0, blocks, blocks), minlength=blocks).astype(float)
    found = np.repeat(drawn, _BLOCK)[:points]
    found = found / found.mean() if found.any() else np.ones(points)
    return found

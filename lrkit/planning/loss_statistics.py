"""The statistics of a run's losses: from them the divergence guard computes the limits of a spike and a high loss."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

__all__ = ["LossStatistics"]


class LossStatistics:
    """Statistics of the losses of a run: the first ones, and the recent ones.

    Args:
        window: the number of recent good losses.

    >>> levels = LossStatistics()
    >>> for loss in [2.0, 2.1, 1.9] * 10:
    ...     levels.add(loss)
    >>> 2.5 > levels.limit(10), 5.0 > levels.limit(10)
    (False, True)
    """

    ENOUGH = 20  #: losses before a loss can be a spike
    RENEWED = 10  #: losses between two computations of the MAD, which may take longer than a step of a small network
    FLOOR = 0.05
    FIRST = 5  #: losses that define the beginning of the run

    def __init__(self, window: int = 100) -> None:
        self.recent: deque[float] = deque(maxlen=window)
        self.began: float | None = None
        self.middle = self.spread = 0.0
        self.seen = 0

    def add(self, loss: float) -> None:
        """Add a good loss."""
        self.recent.append(loss)
        self.seen += 1
        if self.seen == self.FIRST:
            self.began = median(self.recent)
        if self.seen < self.ENOUGH or (self.seen - self.ENOUGH) % self.RENEWED:
            return
        self.middle = median(self.recent)
        self.spread = 1.4826 * median(abs(loss - self.middle) for loss in self.recent)

    def limit(self, spike: float | None) -> float:
        """Return the loss above which a loss is a spike."""
        if spike is None or self.began is None or self.seen < self.ENOUGH:
            return math.inf
        return self.middle + spike * max(self.spread, self.FLOOR * abs(self.began))

    def far(self, times: float | None) -> float:
        """Return the loss above which a loss is far above the first losses."""
        if times is None or not self.began:  # multiples of a first loss of 0 have no meaning
            return math.inf
        return self.began + (times - 1.0) * abs(self.began)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs for the same decisions."""
        return {
            "recent": list(self.recent), "began": self.began, "middle": self.middle, "spread": self.spread,
            "seen": self.seen,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state of ``state_dict``."""
        self.recent.clear()
        self.recent.extend(state["recent"])
        self.began, self.middle, self.spread = state["began"], state["middle"], state["spread"]
        self.seen = state["seen"]

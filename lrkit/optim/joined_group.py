"""The base values of a parameter group that is added during a run."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["JoinedGroup"]


class JoinedGroup(NamedTuple):
    """The base values of a group that was added during the run. Its rate is proportional to the curve:

        lr[t] = lr x (curve(t) x gain(t) / multiplier)

    so that the rate at its first step is ``lr``, bit for bit.

    Args:
        lr: the rate that it was added with.
        multiplier: curve x gain at its first step, and x the factor of its batch size if that changes; 1 if that is 0,
            so that ``lr`` is its base.
        weight_decay: the base of its weight decay.
    """

    lr: float
    multiplier: float
    weight_decay: float

"""The shapes that a learning rate follows, and their lengths: pure functions of a step. No torch."""

from lrkit.schedules import shapes
from lrkit.schedules.shapes import *  # noqa: F403 -- `_target_: lrkit.schedules.Cosine` is what configs say

__all__ = shapes.__all__

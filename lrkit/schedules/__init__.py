"""The shapes that a learning rate follows, and their lengths: pure functions of a step. No torch."""

from lrkit.schedules import shapes
from lrkit.schedules.shapes import *  # noqa: F403 -- configs name the classes so: `_target_: lrkit.schedules.Cosine`

__all__ = shapes.__all__

"""What lrkit puts into every checkpoint: the plan, the step, the random numbers, the place in the data."""

from __future__ import annotations

__all__ = []

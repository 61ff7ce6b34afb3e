"""Schedules: the shapes that a learning rate follows, as multipliers of its base value.

The base class is in ``schedule``; every other file holds the shapes of one kind.
"""

from __future__ import annotations

from lrkit.schedules.shapes import (
    constant,
    cycles,
    decays,
    formula,
    inverse,
    one_cycle,
    phases,
    product,
    range_test,
    schedule,
    steps,
    table,
    wsd,
)
from lrkit.schedules.shapes.constant import *  # noqa: F403
from lrkit.schedules.shapes.cycles import *  # noqa: F403
from lrkit.schedules.shapes.decays import *  # noqa: F403
from lrkit.schedules.shapes.formula import *  # noqa: F403
from lrkit.schedules.shapes.inverse import *  # noqa: F403
from lrkit.schedules.shapes.one_cycle import *  # noqa: F403
from lrkit.schedules.shapes.phases import *  # noqa: F403
from lrkit.schedules.shapes.product import *  # noqa: F403
from lrkit.schedules.shapes.range_test import *  # noqa: F403
from lrkit.schedules.shapes.schedule import *  # noqa: F403
from lrkit.schedules.shapes.steps import *  # noqa: F403
from lrkit.schedules.shapes.table import *  # noqa: F403
from lrkit.schedules.shapes.wsd import *  # noqa: F403

__all__: list[str] = []
__all__ += constant.__all__
__all__ += cycles.__all__
__all__ += decays.__all__
__all__ += formula.__all__
__all__ += inverse.__all__
__all__ += one_cycle.__all__
__all__ += phases.__all__
__all__ += product.__all__
__all__ += range_test.__all__
__all__ += schedule.__all__
__all__ += steps.__all__
__all__ += table.__all__
__all__ += wsd.__all__

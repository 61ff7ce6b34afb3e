"""Declarative learning rates for PyTorch Lightning.

``plan``, ``curve``, ``configure``, ``find``, ``train`` and ``compare`` do in Python what the command ``lrkit`` does.
Each name is loaded when it is first used: importing this imports nothing heavy.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which takes longer to import than all of this; type checkers take it for true

if TYPE_CHECKING:
    from lrkit import schedules
    from lrkit.api import compare, configure, curve, find, from_config, plan, train
    from lrkit.base.errors import ConfigError
    from lrkit.optim.scheduler import PlanScheduler
    from lrkit.planning.guard import Guard
    from lrkit.planning.plan import Plan
    from lrkit.planning.plateau import Plateau
    from lrkit.schedules.curve import Curve

__all__ = [
    "ConfigError", "Curve", "Guard", "Plan", "PlanScheduler", "Plateau", "compare", "configure", "curve", "find",
    "from_config", "plan", "schedules", "train",
]  # fmt: skip

#: Where each name is; the block above tells the same to type checkers and editors.
_HOMES = {
    "ConfigError": "lrkit.base.errors",
    "Curve": "lrkit.schedules.curve",
    "Guard": "lrkit.planning.guard",
    "Plan": "lrkit.planning.plan",
    "PlanScheduler": "lrkit.optim.scheduler",
    "Plateau": "lrkit.planning.plateau",
    "compare": "lrkit.api",
    "configure": "lrkit.api",
    "curve": "lrkit.api",
    "find": "lrkit.api",
    "from_config": "lrkit.api",
    "plan": "lrkit.api",
    "schedules": "lrkit",
    "train": "lrkit.api",
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'lrkit' has no attribute {name!r}")
    home = _HOMES[name]
    found: object = import_module(f"lrkit.{name}") if home == "lrkit" else getattr(import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)

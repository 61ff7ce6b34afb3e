"""Declarative learning rates for PyTorch Lightning.

``plan``, ``curve``, ``configure``, ``from_config``, ``find``, ``translate``, ``predict``, ``train`` and ``compare`` are
the features of the command ``lrkit``, as Python functions. Each name is imported when it is first used, so
``import lrkit`` is fast.
"""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing, whose import takes longer; type checkers treat this name as true

if TYPE_CHECKING:
    from lrkit import schedules as schedules
    from lrkit.api import compare as compare
    from lrkit.api import configure as configure
    from lrkit.api import curve as curve
    from lrkit.api import find as find
    from lrkit.api import from_config as from_config
    from lrkit.api import plan as plan
    from lrkit.api import predict as predict
    from lrkit.api import train as train
    from lrkit.base.errors import ConfigError as ConfigError
    from lrkit.optim.scheduler import PlanScheduler as PlanScheduler
    from lrkit.planning.guard import Guard as Guard
    from lrkit.planning.plan import Plan as Plan
    from lrkit.planning.plateau import Plateau as Plateau
    from lrkit.planning.rate_translation import translate as translate
    from lrkit.schedules.curve import Curve as Curve

#: The module of each public name, for the import at its first use. Type checkers read the block above.
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
    "predict": "lrkit.api",
    "schedules": "lrkit",
    "train": "lrkit.api",
    "translate": "lrkit.planning.rate_translation",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'lrkit' has no attribute {name!r}")
    home = _HOMES[name]
    found: object = import_module(f"lrkit.{name}") if home == "lrkit" else getattr(import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)

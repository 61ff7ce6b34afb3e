"""Declarative learning rates for PyTorch Lightning.

``plan``, ``curve`` and ``configure`` do in a notebook what the command ``lrkit`` does; importing this imports no torch.
"""

from lrkit.api import configure, curve, plan
from lrkit.base.errors import ConfigError
from lrkit.planning.guard import Guard
from lrkit.planning.plateau import Plateau

__all__ = ["ConfigError", "Guard", "Plateau", "configure", "curve", "plan"]

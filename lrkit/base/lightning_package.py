"""The choice of the Lightning package of a process: ``pytorch_lightning`` or ``lightning.pytorch``.

The two packages are the same code under two names, but a class of one package is not a class of the other. So a
process uses one package: that of the user's module, data, callbacks and loggers. lrkit refuses a mixture of both, and
a class of one package in a process that already uses the other. This module does not import Lightning:
``lrkit.lightning.imports`` does, once, for all of lrkit.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean

__all__ = ["LIGHTNING", "VARIABLE", "chosen_package", "in_chosen_package", "package_of", "use_package"]

LIGHTNING = ("pytorch_lightning", "lightning.pytorch")
#: The environment variable that decides if no class of the user's does.
VARIABLE = "LRKIT_LIGHTNING"
_SPELLINGS = {"pytorch_lightning": "pytorch_lightning", "lightning": "lightning.pytorch"}

_used: str | None = None


def chosen_package() -> str:
    """Return the package of this process: from ``use_package``, else ``LRKIT_LIGHTNING``, else the installed one.

    Raises:
        ConfigError: ``LRKIT_LIGHTNING`` names another package.
    """
    if _used is not None:
        return _used
    spelling = os.environ.get(VARIABLE)
    if spelling is None:
        return LIGHTNING[0] if importlib.util.find_spec(LIGHTNING[0]) else LIGHTNING[1]
    if spelling not in _SPELLINGS:
        raise ConfigError(VARIABLE, f"must be a Lightning package. {did_you_mean(spelling, _SPELLINGS)}", spelling)
    return _SPELLINGS[spelling]


def use_package(classes: Mapping[str, Any]) -> str:
    """Fix the package of this process: the one that the classes inherit from, else ``chosen_package()``. Return it.

    Args:
        classes: key -> class of the user's.

    Raises:
        ConfigError: the classes need both packages, or not the one that the process already uses.
    """
    global _used
    needs = {key: package for key, cls in classes.items() if (package := package_of(cls)) is not None}
    first, package = next(iter(needs.items()), ("", chosen_package()))
    for key, other in needs.items():
        if other != package:
            must = f"must come from {package}, as {first} does ({_qualified_name(classes[first])}): the two cannot mix"
            raise ConfigError(key, must, f"{_qualified_name(classes[key])}, from {other}")
    if _used not in (None, package):
        must = (
            f"must come from {_used}, which this process already uses: the two cannot mix (in a notebook, set"
            f" {VARIABLE} before you import lrkit)"
        )
        raise ConfigError(first, must, f"{_qualified_name(classes[first])}, from {package}")
    _used = package
    return package


def package_of(cls: Any) -> str | None:
    """Return the Lightning package of a class or of one of its base classes; None for any other class.

    >>> package_of(dict) is None
    True
    """
    for base in getattr(cls, "__mro__", ()):
        for package in LIGHTNING:
            if f"{base.__module__}.".startswith(f"{package}."):
                return package
    return None


def in_chosen_package(target: str) -> str:
    """Return the dotted path of a Lightning class in the package of this process; any other path unchanged.

    >>> in_chosen_package("torch.nn.Linear")
    'torch.nn.Linear'
    """
    for package in LIGHTNING:
        if target.startswith(f"{package}."):
            return chosen_package() + target.removeprefix(package)
    return target


def _qualified_name(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"

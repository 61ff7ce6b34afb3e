"""Which Lightning a process uses: ``pytorch_lightning`` or ``lightning.pytorch``, which have the same classes twice.

The two packages are the same code under two names, and no class of the one passes for a class of the other. So a
process uses one of them: that of the user's own module, data, callbacks and loggers. Where these are of both, or where
the process uses the other one already, that is refused. Nothing of Lightning is imported here:
``lrkit.lightning.classes`` does that, once, for all of lrkit.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean

__all__ = ["LIGHTNING", "VARIABLE", "chosen_package", "in_chosen_package", "package_of", "use_package"]

LIGHTNING = ("pytorch_lightning", "lightning.pytorch")
#: The environment variable that decides where nothing of the user's does.
VARIABLE = "LRKIT_LIGHTNING"
_SPELLINGS = {"pytorch_lightning": "pytorch_lightning", "lightning": "lightning.pytorch"}

_used: str | None = None


def chosen_package() -> str:
    """The package that this process uses, or would: by ``use_package``, else by ``LRKIT_LIGHTNING``, else what is
    installed.

    Raises:
        ConfigError: ``LRKIT_LIGHTNING`` names another package.
    """
    if _used is not None:
        return _used
    spelling = os.environ.get(VARIABLE)
    if spelling is None:
        return LIGHTNING[0] if importlib.util.find_spec(LIGHTNING[0]) else LIGHTNING[1]
    if spelling not in _SPELLINGS:
        raise ConfigError(VARIABLE, f"is not a Lightning package. {did_you_mean(spelling, _SPELLINGS)}", spelling)
    return _SPELLINGS[spelling]


def use_package(classes: Mapping[str, Any]) -> str:
    """Decide for the package that these classes need, or for ``chosen_package()`` where they need none; from now on it
    stays.

    Args:
        classes: what the user has given, by its key.

    Raises:
        ConfigError: they need both packages, or another one than the process uses already.
    """
    global _used
    needs = {key: package for key, cls in classes.items() if (package := package_of(cls)) is not None}
    first, package = next(iter(needs.items()), ("", chosen_package()))
    for key, other in needs.items():
        if other != package:
            must = f"must be of {package}, as {first} is ({_name(classes[first])}): the two packages do not mix"
            raise ConfigError(key, must, f"{_name(classes[key])}, of {other}")
    if _used not in (None, package):
        must = (
            f"must be of {_used}, which this process uses already: the two packages do not mix (in a notebook, set"
            f" {VARIABLE} before lrkit is imported)"
        )
        raise ConfigError(first, must, f"{_name(classes[first])}, of {package}")
    _used = package
    return package


def package_of(cls: Any) -> str | None:
    """The Lightning package that a class comes from, itself or by what it inherits from; None for any other.

    >>> package_of(dict) is None
    True
    """
    for base in getattr(cls, "__mro__", ()):
        for package in LIGHTNING:
            if f"{base.__module__}.".startswith(f"{package}."):
                return package
    return None


def in_chosen_package(target: str) -> str:
    """The dotted path of a class of Lightning's own, in the package that is used, whichever it is written with.

    >>> in_chosen_package("torch.nn.Linear")
    'torch.nn.Linear'
    """
    for package in LIGHTNING:
        if target.startswith(f"{package}."):
            return chosen_package() + target.removeprefix(package)
    return target


def _name(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"

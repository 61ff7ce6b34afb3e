"""Whether an optional package is installed."""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["is_installed"]


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not imported for this.

    >>> is_installed("json"), is_installed("no_such_package")
    (True, False)
    """
    # None in place of a module says that it must not be imported.
    found = sys.modules[package] if package in sys.modules else importlib.util.find_spec(package)
    return found is not None

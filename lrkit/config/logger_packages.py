"""The packages that loggers need, checked before data is read; nothing is imported."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from typing import Any

from lrkit.base.errors import ConfigError

__all__ = ["check_installed"]

#: Class of Lightning -> its package, which is also the name of lrkit's extra.
_PACKAGES = {"MLFlowLogger": "mlflow", "WandbLogger": "wandb"}


def check_installed(loggers: Mapping[str, Any]) -> None:
    """Refuse a logger whose package is not installed.

    Raises:
        ConfigError: the message has the command that installs it.

    >>> check_installed({"csv": {"_target_": "pytorch_lightning.loggers.CSVLogger"}})
    """
    for name, node in loggers.items():
        package = _PACKAGES.get(str(node.get("_target_")).rpartition(".")[2])
        if package is None or package in sys.modules or importlib.util.find_spec(package) is not None:
            continue
        raise ConfigError(f"logger.{name}", f"needs the package {package}: pip install 'lrkit[{package}]'")

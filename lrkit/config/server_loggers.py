"""Lightning's loggers that send results to a server: their packages, and the ids of their runs. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lrkit.base.errors import ConfigError
from lrkit.base.installed_packages import is_installed

__all__ = ["SERVER_LOGGERS", "ServerLogger", "check_installed", "find_server_logger"]


class ServerLogger(NamedTuple):
    """A logger that creates runs on a server.

    Args:
        name: the option of the group ``logger``, which is also the name of the package and of lrkit's extra.
        class_name: the name of Lightning's class.
        id_argument: the argument that continues a run.
        id_attribute: the attribute with the id of the run.
    """

    name: str
    class_name: str
    id_argument: str
    id_attribute: str


SERVER_LOGGERS = (
    ServerLogger("mlflow", "MLFlowLogger", "run_id", "run_id"),
    ServerLogger("wandb", "WandbLogger", "id", "version"),
)


def find_server_logger(class_path: str) -> ServerLogger | None:
    """Return the entry of a class, by its name or dotted path; None for another logger.

    >>> find_server_logger("pytorch_lightning.loggers.WandbLogger").name
    'wandb'
    """
    name = class_path.rpartition(".")[2]
    return next((each for each in SERVER_LOGGERS if each.class_name == name), None)


def check_installed(loggers: Mapping[str, Any]) -> None:
    """Refuse a logger whose package is not installed.

    Raises:
        ConfigError: the message has the command that installs it.

    >>> check_installed({"csv": {"_target_": "pytorch_lightning.loggers.CSVLogger"}})
    """
    for name, node in loggers.items():
        known = find_server_logger(str(node.get("_target_")))
        if known is not None and not is_installed(known.name):
            must = f"needs the package {known.name}: pip install 'lrkit[{known.name}]'"
            raise ConfigError(f"logger.{name}", must)

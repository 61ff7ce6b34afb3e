"""The data module of a config."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from lrkit.config import compose as configs
from lrkit.config import trusted_targets
from lrkit.lightning.imports import LightningDataModule

__all__ = ["accepted_arguments", "data_node", "data_of"]


def data_of(config: Mapping[str, Any]) -> LightningDataModule:
    """The data module of a config."""
    data = configs.build(data_node(config), "data", config.get("trust", ()))
    assert isinstance(data, LightningDataModule)
    return data


def data_node(config: Mapping[str, Any]) -> dict[str, Any]:
    """The node ``data`` for its class. Options that only lrkit reads are not passed to a class of the user."""
    node = config["data"]
    trust = config.get("trust", ())
    cls = trusted_targets.resolve_class(node.get("_target_"), "data._target_", trust)
    for_lrkit = {"batch_size", "train_samples", "drop_last", "targets", "class_axis"} - accepted_arguments(cls)
    unset = {name for name in ("batch_size", "train_samples", "targets", "class_axis") if node.get(name) is None}
    return {k: v for k, v in node.items() if k not in for_lrkit | unset}


def accepted_arguments(cls: Any) -> frozenset[str]:
    """The names of the arguments of a class or a function."""
    try:
        return frozenset(inspect.signature(cls).parameters)
    except (TypeError, ValueError):  # building it will raise an error
        return frozenset()

"""The nodes of schedules in a config: short forms of those inside a list or a rule.

Each key that is not set has the value of the option in ``conf/schedule/``. Nodes with ``_target_`` stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.config.shipped_options import read_option
from lrkit.config.trusted_targets import TARGET

__all__ = ["NAME", "complete_schedule"]

#: The key that names the option of a schedule inside another node.
NAME = "name"


def complete_schedule(node: Any, key: str, group: str = "schedule") -> Any:
    """The node of a schedule, with ``_target_`` and all keys in place of each short form; other values stay.

    Args:
        node: as it is written: the name of an option, a group of keys with ``name``, or a node with ``_target_``.
        key: where the node stands, for the error.
        group: the group of the option: ``schedule``, ``warmup`` or ``cooldown``.

    Raises:
        ConfigError: there is no such option, or a node has both ``name`` and ``_target_``.

    >>> complete_schedule("linear", "param_groups.rules[0].schedule")
    {'_target_': 'lrkit.schedules.Linear', 'start': 1.0, 'end': 0.0, 'length': None}
    """
    if isinstance(node, str):
        node = {NAME: node}
    if not isinstance(node, Mapping):
        return node
    if NAME in node:
        if TARGET in node:
            raise ConfigError(f"{key}.{NAME}", f"and {key}.{TARGET} exclude each other", node[NAME])
        keys = {name: value for name, value in node.items() if name != NAME}
        node = {**read_option(group, node[NAME], f"{key}.{NAME}"), **keys}
    return dict(node)

"""The nodes of schedules in a config: short forms inside a list or a rule, and tables from files.

A schedule inside another one is written by the name of its option, or as a group of keys with ``name``:

    schedule:
      _target_: lrkit.schedules.Piecewise
      phases: [{name: linear, start: 0.1, end: 1, length: 10%}, cosine]

A key that is not set has its value in ``conf/schedule/``. Nodes with ``_target_`` are not changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.config.shipped_options import read_option
from lrkit.config.trusted_targets import TARGET
from lrkit.schedules.table_file import read_table

__all__ = ["NAME", "complete_schedule", "with_read_tables"]

#: The key that names the option of a schedule inside another node.
NAME = "name"
_LISTS = ("phases", "factors")
_SHAPE = "shape"
_TABLE = "lrkit.schedules.Table"
#: The groups with schedules.
_GROUPS = ("schedule", "warmup", "cooldown", "coschedule", "param_groups", "optimizers")


def complete_schedule(node: Any, key: str) -> Any:
    """Return the node of a schedule, with ``_target_`` and all keys in place of each short form.

    Args:
        node: the name of an option, a group of keys with ``name``, or a node with ``_target_``.
        key: the key of the node. If it ends in ``warmup`` or ``cooldown``, the node has the options of that group; if
            it ends in ``shape``, the shape of a decay, it has those of ``cooldown`` without the length.

    Raises:
        ConfigError: an unknown option, or a node with both ``name`` and ``_target_``.

    >>> node = complete_schedule("linear", "param_groups.rules[0].schedule")
    >>> node["_target_"], node["start"], node["floor"]
    ('lrkit.schedules.Linear', 1.0, 0.0)
    >>> node = complete_schedule({"name": "linear", "start": 0.1}, "param_groups.rules[0].warmup")
    >>> node["length"], node["start"], node["overlap"]
    ('5%', 0.1, 'none')
    """
    if isinstance(node, str):
        node = {NAME: node}
    if not isinstance(node, Mapping):
        return node
    if NAME in node:
        if TARGET in node:
            raise ConfigError(f"{key}.{NAME}", f"and {key}.{TARGET} cannot be set together", node[NAME])
        keys = {name: value for name, value in node.items() if name != NAME}
        last = key.rpartition(".")[2]
        group = {"warmup": "warmup", "cooldown": "cooldown", _SHAPE: "cooldown"}.get(last, "schedule")
        option = read_option(group, node[NAME], f"{key}.{NAME}")
        if last == _SHAPE:
            option = {name: value for name, value in option.items() if name != "length"}
        node = {**option, **keys}
    return {name: _complete_inner(name, value, key) for name, value in node.items()}


def _complete_inner(name: str, value: Any, key: str) -> Any:
    if name == _SHAPE and isinstance(value, Mapping):
        return complete_schedule(value, f"{key}.{name}")
    if name not in _LISTS or not isinstance(value, list):
        return value
    return [complete_schedule(inner, f"{key}.{name}[{i}]") for i, inner in enumerate(value)]


def with_read_tables(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a config with the rows of each table of a schedule, in place of the path of its file.

    The plan, the saved config and the checkpoint then do not depend on the file, which may change.

    Raises:
        ConfigError: a file that is not a table; with the key, the file and the line.
    """
    return {name: _read_tables(node, name) if name in _GROUPS else node for name, node in config.items()}


def _read_tables(node: Any, key: str) -> Any:
    if isinstance(node, list):
        return [_read_tables(inner, f"{key}[{i}]") for i, inner in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    node = {name: _read_tables(inner, f"{key}.{name}") for name, inner in node.items()}
    path = node.get("table")
    if not isinstance(path, str) or node.get(TARGET, node.get(NAME)) not in (_TABLE, "table"):
        return node
    try:
        rows = read_table(path, node.get("column"), rates=node.get("normalise") is not None)
    except ConfigError as error:
        raise error.under(key) from None
    return {**node, "table": [list(row) for row in rows], "column": None}

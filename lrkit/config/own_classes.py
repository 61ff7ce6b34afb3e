"""Classes of the user's own in place of the class of an option: the keys that they have."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from lrkit.base.errors import ConfigError
from lrkit.config.hydra_form import GROUPS_OF_SCHEDULES
from lrkit.config.trusted_targets import TARGET, resolve_class

__all__ = ["with_keys_of_class"]


def with_keys_of_class(config: Mapping[str, Any], parsed: Sequence[Override]) -> dict[str, Any]:
    """A config without the keys of an option that the class does not have, where the command line names the class.

    A key that the command line sets stays, so that an unknown one is refused.

    Args:
        config: composed and resolved, with ``trust``.
        parsed: the overrides.
    """
    typed = {override.key_or_group for override in parsed}
    made = dict(config)
    for group in GROUPS_OF_SCHEDULES:
        node = made.get(group)
        if f"{group}.{TARGET}" not in typed or not isinstance(node, Mapping) or TARGET not in node:
            continue
        try:
            cls = resolve_class(node[TARGET], f"{group}.{TARGET}", config.get("trust", ()))
            parameters = inspect.signature(cls).parameters
        except (ConfigError, TypeError, ValueError):
            continue  # refused when it is built
        if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            continue
        made[group] = {
            name: value
            for name, value in node.items()
            if name in parameters or str(name).startswith("_") or f"{group}.{name}" in typed
        }
    return made

"""The keys of a user's own class that replaces the class of an option by ``_target_``."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from lrkit.base.errors import ConfigError
from lrkit.config.hydra_form import GROUPS_OF_SCHEDULES
from lrkit.config.optimizer_options import SIGNATURES
from lrkit.config.shipped_options import option_names, read_shipped_file
from lrkit.config.trusted_targets import TARGET, resolve_class

__all__ = ["with_keys_of_class"]


def with_keys_of_class(config: Mapping[str, Any], parsed: Sequence[Override]) -> dict[str, Any]:
    """Return a config without those keys of an option that the user's own class does not have.

    This concerns the nodes whose ``_target_`` is set on the command line. A key from the command line stays, so that
    an unknown one is refused.

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
    if f"optimizer.{TARGET}" in typed and isinstance(made.get("optimizer"), Mapping):
        made["optimizer"] = _drop_unknown_defaults(made["optimizer"], typed, config.get("trust", ()))
    return made


def _drop_unknown_defaults(node: Mapping[str, Any], typed: Collection[str], trust: Sequence[str]) -> dict[str, Any]:
    """Return the node of an optimizer without the defaults of an option that its class does not have.

    A class without a recorded signature is imported.
    """
    target = node.get(TARGET)
    if target in SIGNATURES:
        names: Collection[str] = SIGNATURES[target]
    else:
        try:
            parameters = inspect.signature(resolve_class(target, f"optimizer.{TARGET}", trust)).parameters
        except (ConfigError, TypeError, ValueError):
            return dict(node)  # refused when it is built
        names = [name for name, each in parameters.items() if each.kind is not each.VAR_KEYWORD]
    return {
        name: value
        for name, value in node.items()
        if name in (TARGET, "lr", *names) or f"optimizer.{name}" in typed or not _is_default(name, value)
    }


def _is_default(name: str, value: Any) -> bool:
    """Return whether this value of a key is the default of an option of the group optimizer."""
    files = (read_shipped_file(f"optimizer/{option}.yaml") for option in option_names("optimizer"))
    return any(name in file and file[name] == value for file in files)

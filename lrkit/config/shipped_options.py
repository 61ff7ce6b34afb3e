"""The options that lrkit ships, by group and name, read from the files in ``conf/``. No Hydra."""

from __future__ import annotations

import dataclasses
from functools import cache
from importlib import import_module
from typing import Any

from lrkit import schedules
from lrkit.base.errors import ConfigError
from lrkit.config.conf_folder import CONF_DIR, SHARED
from lrkit.config.near_names import suggest_option
from lrkit.schedules.shapes import Schedule

__all__ = [
    "CONF_DIR",
    "SHARED",
    "class_of_option",
    "option_names",
    "read_option",
    "read_shipped_file",
    "schedule_defaults",
]


@cache
def option_names(group: str) -> tuple[str, ...]:
    """The names of a group's options.

    >>> option_names("batch_scaling")
    ('auto', 'linear', 'none', 'sqrt')
    """
    return tuple(sorted(file.stem for file in (CONF_DIR / group).glob("*.yaml")))


def read_option(group: str, name: str, key: str) -> dict[str, Any]:
    """The keys and values of an option; empty for one such as ``none``.

    Args:
        group: a folder of ``conf/``, such as ``schedule``.
        name: of the option.
        key: what the user calls it, for the error.

    Raises:
        ConfigError: the group has no such option.

    >>> read_option("schedule", "step", "schedule")["gamma"]
    0.1
    """
    if name not in option_names(group):
        raise ConfigError(key, f"has no option {str(name)!r}. {suggest_option(group, str(name), option_names(group))}")
    node = read_shipped_file(f"{group}/{name}.yaml")
    own = dict(node.get(group, node))  # an option that sets other groups too is a file of the whole config
    own.pop("defaults", None)
    shared = f"{SHARED}/{group}"
    has_shared = any(str(entry).startswith(f"/{shared}@") for entry in node.get("defaults", ()))
    return {**(read_shipped_file(f"{shared}.yaml") if has_shared else {}), **own}


def class_of_option(target: str) -> Any:
    """The class that a shipped option names by ``_target_``; of lrkit itself, so nothing foreign is imported."""
    module, _, name = target.rpartition(".")
    assert module.partition(".")[0] == "lrkit", target
    return getattr(import_module(module), name)


def schedule_defaults(target: object) -> dict[str, Any]:
    """The options of one of lrkit's schedules, by its class path, with the defaults of the class; else nothing.

    >>> schedule_defaults("lrkit.schedules.Linear")["end"], schedule_defaults("mycode.Schedule")
    (0.0, {})
    """
    module, _, name = str(target).rpartition(".")
    kind = getattr(schedules, name, None) if module in ("lrkit.schedules", "lrkit.schedules.shapes") else None
    if not (isinstance(kind, type) and issubclass(kind, Schedule)):
        return {}
    return {field.name: field.default for field in dataclasses.fields(kind)}


@cache
def read_shipped_file(path: str) -> dict[str, Any]:
    """The content of one of lrkit's own files, by its path in ``conf/``; not to be changed."""
    from omegaconf import OmegaConf

    node = OmegaConf.to_container(OmegaConf.load(CONF_DIR / path))
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}

"""Reads the options that lrkit ships from the files in ``conf/``, by group and name. No Hydra."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from importlib import import_module
from typing import Any

import yaml

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
    "parse_shipped_yaml",
    "read_option",
    "read_shipped_file",
    "schedule_defaults",
]

_FLOAT = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")


@cache
def option_names(group: str) -> tuple[str, ...]:
    """Return the names of a group's options.

    >>> option_names("batch_scaling")
    ('auto', 'linear', 'none', 'sqrt')
    """
    return tuple(sorted(file.stem for file in (CONF_DIR / group).glob("*.yaml")))


def read_option(group: str, name: str, key: str) -> dict[str, Any]:
    """Return the keys and values of an option; an option such as ``none`` is empty.

    Args:
        group: a folder of ``conf/``, such as ``schedule``.
        name: the name of the option.
        key: the key for the error, as the user types it.

    Raises:
        ConfigError: an unknown option.

    >>> read_option("schedule", "step", "schedule")["gamma"]
    0.1
    """
    if name not in option_names(group):
        raise ConfigError(key, f"has no option {str(name)!r}. {suggest_option(group, str(name), option_names(group))}")
    node = read_shipped_file(f"{group}/{name}.yaml")
    own = dict(node.get(group, node))  # an option that also sets other groups has the keys of the whole config
    own.pop("defaults", None)
    shared = f"{SHARED}/{group}"
    has_shared = any(str(entry).startswith(f"/{shared}@") for entry in node.get("defaults", ()))
    return {**(read_shipped_file(f"{shared}.yaml") if has_shared else {}), **own}


def class_of_option(target: str) -> Any:
    """Import the class that a shipped option names by ``_target_``: always one of lrkit's own."""
    module, _, name = target.rpartition(".")
    assert module.partition(".")[0] == "lrkit", target
    return getattr(import_module(module), name)


def schedule_defaults(target: object) -> dict[str, Any]:
    """Return the options of one of lrkit's schedules, with the defaults of the class; empty for another class path.

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
    """Return the content of one of lrkit's own files, by its path in ``conf/``. The caller must not change it."""
    node = parse_shipped_yaml((CONF_DIR / path).read_text(encoding="utf-8"))
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def parse_shipped_yaml(text: str) -> Any:
    """Return the content of an own file of lrkit's as ``OmegaConf.load`` does, by the parser in C, 20 times faster."""
    content = yaml.load(text, _make_loader())
    return {} if content is None else content


@cache
def _make_loader() -> type[Any]:
    """Make a loader with OmegaConf's rules for the types of scalars: ``1e-3`` is a float, a date is a text.

    YAML 1.1 takes ``1e-3`` for a text, because it has no point.
    """
    loader = type("Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {})
    loader.yaml_implicit_resolvers = {  # type: ignore[attr-defined]
        first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:timestamp"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))  # type: ignore[attr-defined]
    return loader

"""The error for a key that does not exist: the key that the user probably means, and the words to type."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache

from lrkit.base.errors import ConfigError, name_some
from lrkit.config.documented_options import DocumentedOptions
from lrkit.config.near_names import known_key, nearest_key
from lrkit.config.optimizer_options import SIGNATURES
from lrkit.config.overrides import default_choices
from lrkit.config.shipped_options import option_names, read_option
from lrkit.schedules.warmup import moot_reason

__all__ = ["key_of_name", "keys_of_options", "unknown_key"]


def unknown_key(
    key: str, keys: Sequence[str], chosen: Mapping[str, str] | None = None, own: Collection[str] = ()
) -> ConfigError:
    """The error for a key that is not among ``keys``.

    Args:
        key: the unknown key.
        keys: the dotted paths that there are.
        chosen: the option of each group; None if the caller does not know them.
        own: the groups whose class is the user's.
    """
    group, name = key.partition(".")[0], key.rpartition(".")[2]
    having = keys_of_options().get(key, ())
    if group in keys and default_choices().get(group) == "none":  # chosen, and empty: such as warmup=none
        others = ", ".join(option for option in option_names(group) if option != "none")
        return ConfigError(key, f"is not a key of {group}=none; other options of {group}: {others}")
    if group in keys and group in default_choices():  # empty at first, such as callbacks
        if having:
            return ConfigError(key, f"is a key of {_name_options(group, having)}, which is not chosen")
        return ConfigError(key, f"does not exist; to add it write +{key}=...")
    if (reason := moot_reason(group, name)) is not None and key.count(".") == 1:
        return ConfigError(key, reason)
    if group in own and not nearest_key(key, keys).startswith("Did"):
        return ConfigError(key, f"is not a key; for an argument of your class write +{key}=...")
    if group == "optimizer" and chosen and name in SIGNATURES.get(_class_of(group, chosen[group]), ()):
        return ConfigError(key, f"is not a key yet; to add it write +{key}=...")
    hint = nearest_key(key, keys, keys_of_options())
    if having and not hint.startswith("Did") and key.count(".") == 1:
        instead = f", not of {group}={chosen[group]}" if chosen and group in chosen else ""
        return ConfigError(key, f"is not a key. It is one of {_name_options(group, having)}{instead}. {hint}")
    return ConfigError(key, f"is not a key. {hint}")


def _class_of(group: str, option: str) -> str:
    """The class of an option that lrkit ships; empty for any other."""
    return str(read_option(group, option, group).get("_target_")) if option in option_names(group) else ""


def _name_options(group: str, names: Sequence[str]) -> str:
    return f"{group}={name_some(names)}"


def key_of_name(name: str) -> str:
    """The group, or the key without its group, of a name here or in another library; empty if it is not one of them.

    >>> key_of_name("lr"), key_of_name("epochs"), key_of_name("nope")
    ('optimizer.lr', 'trainer.max_epochs', '')
    """
    name = name.replace("-", "_")
    if name in default_choices():
        return name
    if known := known_key(name):
        return known
    keys = [*keys_of_options(), *(key.path for key in _read_options().settings)]
    found = [name] if name in keys else [key for key in keys if key.rpartition(".")[2] == name]
    return found[0] if len(found) == 1 else ""


@cache
def _read_options() -> DocumentedOptions:
    return DocumentedOptions()


@cache
def keys_of_options() -> dict[str, tuple[str, ...]]:
    """Each key of the options that lrkit ships, and the options that have it.

    >>> keys_of_options()["schedule.milestones"]
    ('multistep', 'wsd')
    """
    options = _read_options()
    found: dict[str, list[str]] = {}
    for group in options.groups:
        if "@" in group.name or group.added:
            continue
        for name in options.names(group.name):
            option = options.read(group.name, name)
            for key in (*option.keys, *option.shared):
                found.setdefault(key.path, []).append(name)
    return {key: tuple(names) for key, names in found.items()}

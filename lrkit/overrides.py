"""The command line, read with care: ``key=value`` overrides, sweeps of them, and what was meant by a wrong one.

Hydra composes; what it refuses is said again here in one line that names the key, what was received and what is
accepted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lrkit.errors import ConfigError, did_you_mean

__all__ = ["check_group", "expand", "explained", "parse", "swept"]

MAX_JOBS = 1000


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides; each must be ``key=value``, and no key may come twice.

    >>> parse(["optimizer.lr"])  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ConfigError: optimizer.lr has no value: write optimizer.lr=...
    """
    parsed: list[Override] = []
    seen: dict[str, str] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals and not text.startswith("~"):
            raise ConfigError(text, f"has no value: write {text}=...")
        if equals and not value:
            raise ConfigError(key, f"has no value: write {key}=...")
        if key != key.strip() or value.startswith(" "):
            raise ConfigError(key.strip(), f"must be written without spaces: {key.strip()}={value.strip()}", text)
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            must = "cannot be read: put quotes around what has special characters, such as pattern: '^head'"
            raise ConfigError(key, must, value) from None
        name = override.key_or_group + (f"@{override.package}" if override.package else "")
        if name in seen:
            raise ConfigError(name, f"is given twice: {seen[name]} and {text}")
        seen[name] = text
        parsed.append(override)
    return parsed


def swept(override: Override) -> list[str]:
    """The overrides that one override stands for: itself, or one for each value that it sweeps."""
    text = str(override.input_line)
    if not override.is_sweep_override():
        return [text]
    key = text.partition("=")[0]
    # One more than may be: a range of 10**12 values must not be walked to its end.
    return [f"{key}={value}" for value in itertools.islice(override.sweep_string_iterator(), MAX_JOBS + 1)]


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The jobs of a sweep: every combination of the swept values, the last key moving fastest."""
    choices = [swept(override) for override in parse(overrides)]
    jobs = 1
    for choice in choices:
        jobs *= len(choice)
        if jobs > MAX_JOBS:
            raise ConfigError("-m", f"must make at most {MAX_JOBS} jobs, and this sweep has more")
    return [list(job) for job in itertools.product(*choices)]


def check_group(override: Override) -> None:
    """A group takes the name of one of its options. Needs Hydra to be initialised."""
    group = override.key_or_group
    if group not in _groups():
        return
    options = GlobalHydra.instance().config_loader().get_group_options(group)
    if override.type == OverrideType.DEL:
        instead = "none" if "none" in options else "constant" if group == "schedule" else "default"
        raise ConfigError(group, f"cannot be removed: use {group}={instead if instead in options else options[0]}")
    value = override.value()
    if isinstance(value, list):
        names = ",".join(str(v) for v in value)
        raise ConfigError(group, f"takes one option; to sweep: -m {group}={names}", value)
    if not isinstance(value, str) or value not in options:
        raise ConfigError(group, f"has no option {str(value)!r}. {did_you_mean(str(value), options)}")


def explained(error: Exception, parsed: Sequence[Override], config_name: str = "train") -> ConfigError:
    """What Hydra refused, said with the key and the nearest keys there are. Needs Hydra to be initialised."""
    chosen = [str(o.input_line) for o in parsed if o.key_or_group in _groups()]
    plain = ConfigError("config", "cannot be composed: " + " ".join(str(error).split()))
    try:
        reference = OmegaConf.to_container(compose(config_name, overrides=chosen))
    except (HydraException, OmegaConfBaseException):
        return plain
    keys = list(_leaves(reference))
    for override in parsed:
        key = override.key_or_group
        known = key in keys or any(k.startswith(f"{key}.") for k in keys)
        if not known and key not in _groups() and not key.startswith("hydra.") and override.type == OverrideType.CHANGE:
            section = key.partition(".")[0]
            if section in _groups() and section in keys:  # chosen, and empty: such as warmup=none
                options = GlobalHydra.instance().config_loader().get_group_options(section)
                others = ", ".join(name for name in options if name != "none")
                return ConfigError(key, f"is not a key of {section}=none; other options of {section}: {others}")
            return ConfigError(key, f"is not a key. {nearest(key, keys)}")
    return plain


def nearest(key: str, keys: Sequence[str]) -> str:
    """The key that was probably meant: one of its section, one that ends alike, or the most similar of all.

    >>> nearest("optimizer.lrr", ["optimizer.lr", "schedule.gamma"])
    "Did you mean 'lr'? Accepted: lr"
    >>> nearest("lr", ["optimizer.lr", "schedule.gamma"])
    "Did you mean 'optimizer.lr'?"
    """
    section, _, name = key.rpartition(".")
    inside = [k.rpartition(".")[2] for k in keys if section and k.rpartition(".")[0] == section]
    if inside:
        return did_you_mean(name, [n for n in inside if not n.startswith("_")])
    alike = [k for k in keys if k.rpartition(".")[2] == name]
    if alike:
        return f"Did you mean {alike[0]!r}?"
    hint = did_you_mean(key, keys).partition(" Accepted: ")[0]
    return hint if hint.startswith("Did") else did_you_mean(key, {k.partition(".")[0] for k in keys})


def _groups() -> set[str]:
    groups = GlobalHydra.instance().config_loader().list_groups("")
    return {group for group in groups if not group.startswith("_") and group != "hydra"}


def _leaves(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted paths of everything that is not a group of keys."""
    if not isinstance(node, Mapping) or not node:
        yield prefix
        return
    for key, value in node.items():
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))

"""Plans of many overrides in little time: options are read, and values set, without Hydra's composition."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping
from functools import cache
from typing import Any

from lrkit.config.compose import CONF_DIR, Config, compose, plan, with_trust
from lrkit.config.overrides import parse_overrides
from lrkit.config.shipped_options import read_option
from lrkit.planning.plan import Plan

__all__ = ["composed", "one_of_each_form", "plan_of", "quickly_composed", "words_of"]

GROUPS = {path.name for path in CONF_DIR.iterdir() if path.is_dir()}


def words_of(overrides: str, steps: int | None, epoch: int | None = None) -> list[str]:
    """The overrides of a row, with the length of the run, and a base rate of 1 where none is set."""
    words = shlex.split(overrides)
    defaults = {"horizon.steps": steps, "horizon.steps_per_epoch": epoch, "optimizer.lr": 1.0, "allow_extreme_lr": True}
    said = {word.partition("=")[0] for word in words}
    return words + [f"{key}={value}" for key, value in defaults.items() if value is not None and key not in said]


@cache
def plan_of(overrides: str, steps: int | None, epoch: int | None = None) -> Plan:
    """The plan of a row."""
    return plan(quickly_composed(words_of(overrides, steps, epoch)))


def composed(words: list[str]) -> Config:
    """What the command composes."""
    return compose(words)


def one_of_each_form(overrides: Mapping[str, str]) -> list[str]:
    """One name for each set of keys and options that the overrides of a row have, whatever the values."""
    forms = {
        tuple(sorted(word if is_choice(word) else word.partition("=")[0] for word in shlex.split(text))): name
        for name, text in overrides.items()
    }
    return sorted(forms.values())


def quickly_composed(words: list[str]) -> Config:
    """What the command composes, in a fraction of the time; slow tests compare the two."""
    chosen = [word for word in words if is_choice(word)]
    config = copy.deepcopy(_composed_defaults())
    for word in chosen:
        group, _, option = word.partition("=")
        config[group] = copy.deepcopy(read_option(group, option, group))
    for override in parse_overrides([word for word in words if word not in chosen]):
        assert override.key_or_group is not None
        *parents, last = override.key_or_group.split(".")
        node = config
        for name in parents:
            node = node.setdefault(name, {})
        value: Any = override.value()
        node[last] = (
            {**node[last], **value} if isinstance(value, Mapping) and isinstance(node.get(last), Mapping) else value
        )
    return with_trust(config, parse_overrides(words))


@cache
def _composed_defaults() -> Config:
    return compose([])


def is_choice(word: str) -> bool:
    """Whether an override chooses an option of a group: ``schedule=cosine``, ``+logger=csv``."""
    key = word.partition("=")[0].lstrip("+")
    return key.partition("@")[0] in GROUPS and "." not in key.partition("@")[0]

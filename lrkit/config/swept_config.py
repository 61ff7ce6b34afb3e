"""The swept values from the command line and from files, and the check of a sweep before its first job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

import hydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lrkit.base.errors import ConfigError
from lrkit.config.compose import check, compose
from lrkit.config.hydra_errors import explain_hydra_error
from lrkit.config.overrides import (
    check_group,
    default_choices,
    hydra_initialised,
    is_group,
    named_classes,
    parse_overrides,
    with_added_tracks,
)
from lrkit.config.sweep_values import Choice, expand_jobs, list_choices

__all__ = ["BASIC_SWEEPER", "SweptConfig", "check_sweep", "sweep_of_files"]

#: Hydra's sweeper for all combinations of the values.
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
#: Overrides that may choose a sweeper.
_SWEEPERS = ("+launcher=", "launcher=", "hydra/sweeper=")


class SweptConfig(NamedTuple):
    """A composed sweep.

    Args:
        words: the overrides, with the swept values of files.
        searches: whether the sweeper picks values from ranges, and does not run all combinations.
    """

    words: list[str]
    searches: bool


def check_sweep(overrides: Sequence[str], config_dir: str | None = None, searches: bool = False) -> None:
    """Check a sweep before its first job: each value of each swept key once, with the first values of the other keys.

    In a range that a sweeper searches, both ends are checked.
    """
    choices = list_choices(overrides, config_dir, searches=searches)
    _check_chooses_once(choices, config_dir)
    if not searches:
        expand_jobs(overrides, config_dir)
    _check_engine_takes_pairs(choices, searches)
    first = [choice.alternatives[0] for choice in choices]
    check(compose([*chain.from_iterable(first)], config_dir))
    for i, choice in enumerate(choices):
        for words in choice.alternatives[1:]:
            check(compose([*chain.from_iterable([*first[:i], words, *first[i + 1 :]])], config_dir))


def sweep_of_files(overrides: Sequence[str], config_dir: str | None = None) -> SweptConfig:
    """Return the swept values of the command line, and those of ``hydra.sweeper.params`` for other keys."""
    choices = list_choices(overrides, config_dir, searches=True)
    first = [word for choice in choices for word in choice.alternatives[0]]
    parsed = parse_overrides(first)
    _check_chooses_once(choices, config_dir)
    with hydra_initialised(config_dir):
        for override in parsed:
            check_group(override)
        try:
            composed = hydra.compose("train", overrides=with_added_tracks(first), return_hydra_config=True)
        except ConfigError:
            raise
        except Exception as error:
            raise explain_hydra_error(error, parsed, config_dir) from None
        sweeper = composed.hydra.sweeper
        searches = sweeper.get("_target_") != BASIC_SWEEPER
        params = {str(key): str(values) for key, values in (sweeper.get("params") or {}).items()}
    given = {key.lstrip("+~"): choice.text for choice in choices for key in choice.keys}
    more = [f"{key}={values}" for key, values in params.items() if not _is_replaced(key, given)]
    for choice in list_choices(more, config_dir, searches=True):
        _check_file_sweeps(choice)
    return SweptConfig([*overrides, *more], searches)


def _is_replaced(key: str, given: Mapping[str, str]) -> bool:
    """Return whether the command line replaces a key, or all paired keys, of ``hydra.sweeper.params``.

    Raises:
        ConfigError: it sets only some of the paired keys, and the others would have no values.
    """
    names = [name.strip().lstrip("+~") for name in key.split(",")]
    there = [name for name in names if name in given]
    if there and len(there) < len(names):
        must = f"are paired in hydra.sweeper.params: set all of these keys or none; {given[there[0]]}"
        raise ConfigError(key, f"{must} sets only {there[0]}")
    return bool(there)


def _check_engine_takes_pairs(choices: Sequence[Choice], searches: bool) -> None:
    """Refuse paired values for a sweeper that picks a value for each key separately."""
    paired = next((choice for choice in choices if choice.is_paired), None)
    if searches and paired is not None:
        named = next((choice.text for choice in choices if choice.text.startswith(_SWEEPERS)), "hydra/sweeper")
        must = f"has paired values, but {named} picks a value for each key separately: use a sweep without it"
        raise ConfigError(",".join(paired.keys), must, paired.text.partition("=")[2])


def _check_chooses_once(choices: Sequence[Choice], config_dir: str | None) -> None:
    """Refuse a sweep over options that configure the sweep itself: Hydra reads them before the first job."""
    for choice in choices:
        for i, key in enumerate(choice.keys):
            group = key.lstrip("+~").partition("@")[0]
            if choice.is_swept and group.startswith("sweep."):
                raise ConfigError(group, "takes one value: it configures the sweep, and a job cannot", choice.text)
            if not choice.is_swept or (config_dir is None and group in default_choices()):
                continue  # no option of lrkit's own groups does
            with hydra_initialised(config_dir):
                if not is_group(group):
                    continue
            for words in choice.alternatives:
                if group in ("sweep", "launcher") or _configures_hydra(words[i], config_dir):
                    must = "takes one option: it configures the sweep, and a job cannot"
                    raise ConfigError(group, must, choice.text.partition("=")[2])


def _configures_hydra(choice: str, config_dir: str | None) -> bool:
    """Return whether a chosen option sets keys of Hydra."""

    def of_hydra(overrides: list[str]) -> Any:
        composed = hydra.compose("train", overrides=overrides, return_hydra_config=True).hydra
        return OmegaConf.to_container(OmegaConf.masked_copy(composed, ["sweeper", "launcher"]), resolve=False)

    with hydra_initialised(config_dir), suppress(HydraException, OmegaConfBaseException):  # another check reports these
        return bool(of_hydra([choice]) != of_hydra([]))
    return False


def _check_file_sweeps(choice: Choice) -> None:
    """Refuse a file that sweeps keys which only the command line may set."""
    for words in choice.alternatives:
        for override in parse_overrides(words):
            key = override.key_or_group.partition(".")[0].partition("/")[0]
            if key in ("hydra", "trust") or override.package is not None or named_classes([override]):
                must = "must not be swept by hydra.sweeper.params of a file: sweep it on the command line"
                raise ConfigError(override.key_or_group, must)

"""The swept values of a sweep, and the check of its jobs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import hydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lrkit.base.errors import ConfigError
from lrkit.config.compose import check, compose
from lrkit.config.hydra_errors import explain_hydra_error
from lrkit.config.overrides import (
    check_group,
    default_choices,
    expand_jobs,
    expand_override,
    extreme_values,
    hydra_initialised,
    is_group,
    named_classes,
    parse_overrides,
    with_added_tracks,
)

__all__ = ["SweptConfig", "check_sweep", "sweep_of_files"]


class SweptConfig(NamedTuple):
    """A composed sweep.

    Args:
        words: the overrides, with the values that the config itself sweeps.
        searches: whether its sweeper picks values from ranges, instead of taking all that are listed.
    """

    words: list[str]
    searches: bool


def check_sweep(overrides: Sequence[str], config_dir: str | None = None, searches: bool = False) -> None:
    """Check a sweep before its first job: each value of each swept key once, the other keys at their first values.

    Of a range that is searched, both ends are checked.
    """
    _check_chooses_once(overrides, config_dir)
    if not searches:
        expand_jobs(overrides, config_dir)
    values = extreme_values if searches else expand_override
    choices = [values(override, config_dir) for override in parse_overrides(overrides)]
    first = [choice[0] for choice in choices]
    check(compose(first, config_dir))
    for i, choice in enumerate(choices):
        for text in choice[1:]:
            check(compose([*first[:i], text, *first[i + 1 :]], config_dir))


def sweep_of_files(overrides: Sequence[str], config_dir: str | None = None) -> SweptConfig:
    """The swept values: of the command line, and of ``hydra.sweeper.params`` for other keys."""
    first = [extreme_values(override, config_dir)[0] for override in parse_overrides(overrides)]
    parsed = parse_overrides(first)
    _check_chooses_once(overrides, config_dir)
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
        searches = sweeper.get("_target_") != "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
        params = {str(key): str(values) for key, values in (sweeper.get("params") or {}).items()}
    given = {override.partition("=")[0].lstrip("+~") for override in overrides}
    more = [f"{key}={values}" for key, values in params.items() if key not in given]
    for override in parse_overrides(more):
        _check_file_sweeps(override, config_dir)
    return SweptConfig([*overrides, *more], searches)


def _check_chooses_once(overrides: Sequence[str], config_dir: str | None) -> None:
    """Refuse to sweep over options that configure the sweep itself: they are fixed before the first job."""
    for override in parse_overrides(overrides):
        group = override.key_or_group
        if not override.is_sweep_override() or (config_dir is None and group in default_choices()):
            continue  # lrkit's own groups have none that do
        with hydra_initialised(config_dir):
            if not is_group(group):
                continue
        for text in expand_override(override, config_dir):
            if group in ("sweep", "launcher") or _sets_hydra(text, config_dir):
                must = "takes one option: it says what is swept, or by whom, which no job can say for itself"
                raise ConfigError(group, must, str(override.input_line).partition("=")[2])


def _sets_hydra(choice: str, config_dir: str | None) -> bool:
    """Whether an option that is chosen sets keys of Hydra's."""

    def of_hydra(overrides: list[str]) -> Any:
        composed = hydra.compose("train", overrides=overrides, return_hydra_config=True).hydra
        return OmegaConf.to_container(OmegaConf.masked_copy(composed, ["sweeper", "launcher"]), resolve=False)

    with hydra_initialised(config_dir), suppress(HydraException, OmegaConfBaseException):  # which is told elsewhere
        return bool(of_hydra([choice]) != of_hydra([]))
    return False


def _check_file_sweeps(override: Override, config_dir: str | None) -> None:
    """Refuse swept values of a file that only the command line may set."""
    key = override.key_or_group.partition(".")[0].partition("/")[0]
    named = [name for text in extreme_values(override, config_dir) for name in named_classes(parse_overrides([text]))]
    if key in ("hydra", "trust") or override.package is not None or named:
        must = "must not be swept by hydra.sweeper.params of a file: say it on the command line"
        raise ConfigError(override.key_or_group, must)

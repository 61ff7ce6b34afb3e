"""From overrides to a checked config. Hydra composes; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import hydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from lrkit.base import launcher_environment
from lrkit.base.errors import ConfigError
from lrkit.base.moved_classes import with_current_paths
from lrkit.config import resume_options, saved_config, trusted_targets, yaml_screening
from lrkit.config.devices import accumulation, replicas_of, world_of
from lrkit.config.find_options import AUTO
from lrkit.config.hydra_errors import explain_hydra_error
from lrkit.config.hydra_form import with_added_keys
from lrkit.config.instantiate import build
from lrkit.config.key_checks import check_keys, check_values, top_keys
from lrkit.config.overrides import (
    VERSION_BASE,
    check_group,
    hydra_initialised,
    parse_overrides,
    trusted_names,
    with_added_tracks,
)
from lrkit.config.own_classes import with_keys_of_class
from lrkit.config.plan_of_config import plan, schedule_of
from lrkit.config.schedule_nodes import with_read_tables
from lrkit.config.shipped_options import CONF_DIR, read_shipped_file
from lrkit.config.translated_rate import with_translated_rate
from lrkit.planning import tracks
from lrkit.planning.optimizer_traits import finds_rate
from lrkit.planning.plan import Plan
from lrkit.schedules.curve import depends_on_length
from lrkit.schedules.durations import Duration

__all__ = [
    "CONF_DIR",
    "VERSION_BASE",
    "accumulation",
    "build",
    "check",
    "check_values",
    "compose",
    "plan",
    "replicas_of",
    "schedule_of",
    "with_world",
    "world_of",
]

Config = dict[str, Any]


def compose(overrides: Sequence[str] = (), config_dir: str | None = None, trust: Sequence[str] = ()) -> Config:
    """The config of one run: composed, resolved to plain containers, every key checked.

    With ``resume.path`` it is the config of the resumed run, with the overrides on top.

    Args:
        overrides: as on the command line.
        config_dir: a folder of the user's own groups and options; where both have one, theirs is taken.
        trust: packages whose classes files may name too; what the overrides name themselves needs no more.

    Raises:
        ConfigError: one line about the first thing that is wrong.

    >>> compose(["schedule=step", "schedule.gamma=0.5"])["schedule"]["gamma"]
    0.5
    """
    parsed = parse_overrides(with_added_keys(overrides))
    path = saved_config.resume_path_in(parsed)
    base = None if path is None else saved_config.config_beside(path)
    with hydra_initialised(config_dir):
        for override in parsed:
            check_group(override)
        try:
            composed = (
                hydra.compose("train", overrides=with_added_tracks(overrides))
                if base is None
                else saved_config.rebase_overrides(base, parsed)
            )
        except ConfigError:  # from one of the user's files
            raise
        except Exception as error:  # Hydra's, OmegaConf's, and whatever a file that is no config provokes
            raise explain_hydra_error(error, parsed, config_dir) from None
    if not isinstance(composed, DictConfig):
        raise ConfigError("train.yaml", "must be a group of keys")
    for name in sorted(top_keys() - set(composed)):
        raise ConfigError(name, "cannot be removed")
    raw: Any = OmegaConf.to_container(composed)
    if (many := yaml_screening.count_expanded(raw)) > yaml_screening.WIDEST:
        raise ConfigError("config", f"must not have interpolations that stand for {many} values or more")
    try:
        config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", None) or "config")
        if isinstance(error, MissingMandatoryValue):
            raise ConfigError(key, "must be set") from None
        raise ConfigError(key, "cannot be resolved: " + str(error).splitlines()[0].rstrip(".")) from None
    assert isinstance(config, dict)
    named = with_current_paths({str(key): value for key, value in config.items()})
    checked = with_trust(with_typed_track_order(named, parsed), parsed, trust)
    check_keys(checked)
    if base is not None:
        checked = saved_config.with_found_interval(checked, base)
    try:
        trusted_targets.check(checked)
        trusted_targets.check_addresses(checked, overrides)
    except ConfigError as error:
        if base is None:
            raise
        must = f"{error.must}; keys that are not typed keep the values of the run in {path}"
        raise ConfigError(error.key, must, error.received) from None
    checked = with_read_tables(with_keys_of_class(checked, parsed))
    if not checked[tracks.KEY]:  # which have no cooldown to go on with, and are told so
        resume_options.check_cooldown(checked)
    return with_translated_rate(with_world(checked, parsed))


def with_world(config: Config, parsed: Sequence[Override]) -> Config:
    """A composed config on as many processes as a launcher has started, where there is one.

    Raises:
        ConfigError: ``trainer.devices`` or ``trainer.num_nodes`` was said, and is another number.
    """
    trainer, shipped = config["trainer"], read_shipped_file("trainer/default.yaml")
    typed = {override.key_or_group.removeprefix("trainer.") for override in parsed}
    changed = {name for name in ("devices", "num_nodes") if trainer.get(name) != shipped[name]}  # by a file
    return {**config, "trainer": launcher_environment.with_launched_devices(trainer, typed | changed)}


def with_typed_track_order(config: Config, parsed: Sequence[Override]) -> Config:
    """A composed config with the tracks in the order of the command line, which Hydra's merging does not keep."""
    node = config.get(tracks.KEY)
    if not isinstance(node, Mapping):
        return config
    listed: list[Any] = []
    mentioned: list[Any] = []
    for override in parsed:
        if override.key_or_group == tracks.KEY and isinstance(value := override.value(), Mapping):
            listed += [str(name) for name in value]
        path = override.package or override.key_or_group
        if path.startswith(f"{tracks.KEY}."):
            mentioned.append(path.split(".")[1])
    order = listed if listed else mentioned if {*node} <= {*mentioned} else []
    return {**config, tracks.KEY: {name: node[name] for name in dict.fromkeys([*order, *node]) if name in node}}


def with_trust(config: Config, parsed: Sequence[Override], more: Sequence[str] = ()) -> Config:
    """A composed config with all that its ``_target_``s may name: what the command line says, and no file."""
    said = trusted_names([override for override in parsed if override.key_or_group == "trust"])
    if config["trust"] != said:
        raise ConfigError("trust", "must be said on the command line, by --trust: no file may set it", config["trust"])
    return {**config, "trust": trusted_names(parsed, more)}


def screen_files(overrides: Sequence[str], config_dir: str) -> None:
    """Refuse files of ``config_dir`` that must not come before Hydra. What else is wrong Hydra says itself.

    Raises:
        ConfigError: naming the file.
    """
    with hydra_initialised(config_dir), suppress(HydraException, OmegaConfBaseException):
        hydra.compose("train", overrides=with_added_tracks(overrides), return_hydra_config=True)


def _says_steps(config: Mapping[str, Any]) -> bool:
    """Whether the config alone says how many optimizer steps the run has; an epoch may have to be counted first."""
    steps, horizon = config["horizon"].get("steps"), config["horizon"]
    if config["data"].get("train_samples") is not None or not isinstance(steps, str):
        return config["data"].get("train_samples") is not None or steps is not None
    return Duration.parse(steps, "horizon.steps").unit != "epochs" or horizon.get("steps_per_epoch") is not None


def check(config: Mapping[str, Any]) -> Plan | None:
    """Refuse what can be refused before there is data; the plan, where the config says how long the run is."""
    check_values(config)
    if config["optimizer"].get("lr") == AUTO:  # to be found; the rest is checked as if it had been
        lr = 1.0 if finds_rate(str(config["optimizer"].get("_target_"))) else 1e-3
        config = {**config, "optimizer": {**config["optimizer"], "lr": lr}}
    if _says_steps(config):
        return plan(config)
    # The length of the run is not known: try it on a long one, so that only what is wrong anyway is refused.
    steps = 10**6
    horizon = config["horizon"]
    if horizon.get("stop_after") is not None:
        Duration.parse(horizon["stop_after"], "horizon.stop_after")
    long = {"steps": steps, "steps_per_epoch": 10**3, "batch_size": 64}
    long |= {"tokens_per_sample": horizon.get("tokens_per_sample")}
    ends = {"max_steps": steps} if config["trainer"].get("max_steps") not in (None, -1) else {}
    try:
        plan({**config, "horizon": long, "trainer": {**config["trainer"], **ends}})
    except ConfigError as error:
        if not depends_on_length(error):
            raise
    return None

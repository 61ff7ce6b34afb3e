"""Composes the config of a run by Hydra, and checks it. No torch."""

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
from lrkit.config.config_file import read_config_file, split_config_file
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
from lrkit.planning import optimizer_tracks
from lrkit.planning.optimizer_traits import finds_rate
from lrkit.planning.plan import Plan
from lrkit.schedules.batch_sizes import spread_stages
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
    "compose_with_hydra",
    "plan",
    "replicas_of",
    "schedule_of",
    "with_world",
    "world_of",
]

Config = dict[str, Any]


def compose(overrides: Sequence[str] = (), config_dir: str | None = None, trust: Sequence[str] = ()) -> Config:
    """Return the config of one run: composed, resolved to plain containers, every key checked.

    With ``resume.path`` it is the saved config of that run, and with ``--config`` that of the file, changed by the
    overrides.

    Args:
        overrides: as on the command line.
        config_dir: a folder with the user's own groups and options; they replace lrkit's options of the same name.
        trust: packages whose classes files may name too. Classes that the overrides name need no entry.

    Raises:
        ConfigError: the first error of the config, in one line.

    >>> compose(["schedule=step", "schedule.gamma=0.5"])["schedule"]["gamma"]
    0.5
    """
    return compose_with_hydra(overrides, config_dir, trust)[0]


def compose_with_hydra(
    overrides: Sequence[str], config_dir: str | None = None, trust: Sequence[str] = ()
) -> tuple[Config, DictConfig | None]:
    """Return the config of ``compose``, and the same as Hydra composed it, with its node ``hydra``, to run it.

    A saved config, and that of a file, has no such form: None. The arguments and errors are those of ``compose``.
    """
    overrides, parsed, base, source = _find_base(overrides)
    composed = _compose_groups(overrides, parsed, base, config_dir)
    # Of Hydra's composing, its own node is no key; in a config of a file, such a key is refused below.
    own = composed if base is not None else OmegaConf.masked_copy(composed, [str(k) for k in composed if k != "hydra"])
    config = _resolve_interpolations(own)
    checked = with_trust(with_typed_track_order(with_current_paths(config), parsed), parsed, trust)
    check_keys(checked)
    if base is not None:
        checked = saved_config.with_found_interval(checked, base)
    try:
        trusted_targets.check(checked)
        trusted_targets.check_addresses(checked, overrides)
    except ConfigError as error:
        if base is None:
            raise
        must = f"{error.must}; keys that are not typed keep the values of {source}"
        raise ConfigError(error.key, must, error.received) from None
    checked = with_read_tables(with_keys_of_class(checked, parsed))
    if not checked[
        optimizer_tracks.KEY
    ]:  # resume_policies refuses the policy cooldown for tracks, with another message
        resume_options.check_cooldown(checked)
    return with_translated_rate(with_world(checked, parsed)), composed if base is None else None


def _compose_groups(
    overrides: Sequence[str], parsed: Sequence[Override], base: Mapping[str, Any] | None, config_dir: str | None
) -> DictConfig:
    """Return what Hydra composes of the groups, or a saved config with the overrides, with its interpolations."""
    with hydra_initialised(config_dir):
        for override in parsed:
            check_group(override)
        try:
            composed = (
                hydra.compose("train", overrides=with_added_tracks(overrides), return_hydra_config=True)
                if base is None
                else saved_config.rebase_overrides(base, parsed)
            )
        except ConfigError:  # from one of the user's files
            raise
        except Exception as error:  # of Hydra, of OmegaConf, or of any class, if a file is not a config
            raise explain_hydra_error(error, parsed, config_dir) from None
    if not isinstance(composed, DictConfig):
        raise ConfigError("train.yaml", "must be a group of keys")
    return composed


def _resolve_interpolations(composed: DictConfig) -> Config:
    """Return a config in plain containers, with the values of its interpolations."""
    for name in sorted(top_keys() - set(composed)):
        raise ConfigError(name, "cannot be removed")
    raw: Any = OmegaConf.to_container(composed)
    if (many := yaml_screening.count_expanded(raw)) > yaml_screening.WIDEST:
        raise ConfigError("config", f"must have interpolations of fewer than {many} values in all")
    try:
        config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", None) or "config")
        if isinstance(error, MissingMandatoryValue):
            raise ConfigError(key, "must be set") from None
        raise ConfigError(key, "cannot be resolved: " + str(error).splitlines()[0].rstrip(".")) from None
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _find_base(overrides: Sequence[str]) -> tuple[list[str], list[Override], Mapping[str, Any] | None, str]:
    """Return the overrides without the file of ``--config``; the same, parsed; the saved config that they change, and
    its origin in words.

    Raises:
        ConfigError: there are two of them, or a file is the config of a run that began from a checkpoint.
    """
    file, words = split_config_file(overrides)
    parsed = parse_overrides(with_added_keys(words))
    path = saved_config.find_resume_path(parsed)
    if file is None:
        return words, parsed, None if path is None else saved_config.read_saved_config(path), f"the run in {path}"
    if path is not None:
        raise ConfigError("--config", "and resume.path exclude each other: a resumed run keeps its own config", file)
    config = read_config_file(file)
    resume = config.get("resume") or {}
    if resume.get("policy") is not None and not any(o.key_or_group == "resume.policy" for o in parsed):
        must = (
            f"is the config of a run that began from the checkpoint {resume.get('path')}: repeat its command, or say"
            " resume.policy=null to train it from the beginning"
        )
        raise ConfigError("--config", must, file)
    return words, parsed, config, file


def with_world(config: Config, parsed: Sequence[Override]) -> Config:
    """Return a composed config with the number of processes that a launcher has started, if there is a launcher.

    Raises:
        ConfigError: ``trainer.devices`` or ``trainer.num_nodes`` is set to another number.
    """
    trainer, shipped = config["trainer"], read_shipped_file("trainer/default.yaml")
    typed = {override.key_or_group.removeprefix("trainer.") for override in parsed}
    changed = {name for name in ("devices", "num_nodes") if trainer.get(name) != shipped[name]}  # by a file
    return {**config, "trainer": launcher_environment.with_launched_devices(trainer, typed | changed)}


def with_typed_track_order(config: Config, parsed: Sequence[Override]) -> Config:
    """Return a composed config with the tracks in the order of the command line, which Hydra does not keep."""
    node = config.get(optimizer_tracks.KEY)
    if not isinstance(node, Mapping):
        return config
    listed: list[Any] = []
    mentioned: list[Any] = []
    for override in parsed:
        if override.key_or_group == optimizer_tracks.KEY and isinstance(value := override.value(), Mapping):
            listed += [str(name) for name in value]
        path = override.package or override.key_or_group
        if path.startswith(f"{optimizer_tracks.KEY}."):
            mentioned.append(path.split(".")[1])
    order = listed if listed else mentioned if {*node} <= {*mentioned} else []
    return {
        **config,
        optimizer_tracks.KEY: {name: node[name] for name in dict.fromkeys([*order, *node]) if name in node},
    }


def with_trust(config: Config, parsed: Sequence[Override], more: Sequence[str] = ()) -> Config:
    """Return a composed config with the entries of ``trust``, which only the command line may set."""
    typed = trusted_names([override for override in parsed if override.key_or_group == "trust"])
    if config["trust"] != typed:
        raise ConfigError("trust", "must be set on the command line, by --trust: no file may set it", config["trust"])
    return {**config, "trust": trusted_names(parsed, more)}


def screen_files(overrides: Sequence[str], config_dir: str) -> None:
    """Refuse files of ``config_dir`` that Hydra must not read. Other errors are left to ``compose``.

    Raises:
        ConfigError: with the name of the file.
    """
    with hydra_initialised(config_dir), suppress(HydraException, OmegaConfBaseException):
        hydra.compose("train", overrides=with_added_tracks(overrides), return_hydra_config=True)


def _has_steps(config: Mapping[str, Any]) -> bool:
    """Whether the config alone says how many optimizer steps the run has; an epoch may have to be counted first."""
    steps, horizon = config["horizon"].get("steps"), config["horizon"]
    if config["data"].get("train_samples") is not None or not isinstance(steps, str):
        return config["data"].get("train_samples") is not None or steps is not None
    return Duration.parse(steps, "horizon.steps").unit != "epochs" or horizon.get("steps_per_epoch") is not None


def check(config: Mapping[str, Any]) -> Plan | None:
    """Check a config before data is loaded; return its plan if the config has the length of the run, else None."""
    check_values(config)
    if config["optimizer"].get("lr") == AUTO:  # the rest is checked with any rate
        lr = 1.0 if finds_rate(str(config["optimizer"].get("_target_"))) else 1e-3
        config = {**config, "optimizer": {**config["optimizer"], "lr": lr}}
    if _has_steps(config):
        return plan(config)
    # The length of the run is unknown: a plan for a long run shows the errors that do not depend on the length.
    steps = 10**6
    horizon = config["horizon"]
    if horizon.get("stop_after") is not None:
        Duration.parse(horizon["stop_after"], "horizon.stop_after")
    long = {"steps": steps, "steps_per_epoch": 10**3, "batch_size": 64}
    long |= {"tokens_per_sample": horizon.get("tokens_per_sample")}
    known: dict[str, Any] = {}
    if (schedule := config["batch"].get("schedule")) is not None:  # which sets the samples of a step
        stages = spread_stages(schedule, steps)
        batches = 10**3 * (1 + max(size for _, size in stages) // (config["data"].get("batch_size") or 1))
        long, known = {name: long[name] for name in ("steps", "tokens_per_sample")}, {"batches": batches}
        config = {**config, "batch": {**config["batch"], "schedule": stages}}
    ends = {"max_steps": steps} if config["trainer"].get("max_steps") not in (None, -1) else {}
    try:
        plan({**config, "horizon": long, "trainer": {**config["trainer"], **ends}}, **known)
    except ConfigError as error:
        if not depends_on_length(error):
            raise
    return None

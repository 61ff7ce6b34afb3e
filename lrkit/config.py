"""From overrides to a config, and from a config to a plan. Hydra composes; nothing here imports torch."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lrkit import plan as planning
from lrkit.durations import Duration
from lrkit.errors import ConfigError, did_you_mean
from lrkit.families import family
from lrkit.horizon import Loader, horizon_of
from lrkit.overrides import (
    CONF_DIR, VERSION_BASE, check_group, defaults, expand, explained, initialised, leaves, meant, nearest, parse, swept,
    unknown,
)  # fmt: skip
from lrkit.plan import GroupRate, Plan
from lrkit.plateau import Plateau
from lrkit.rules import group_rates
from lrkit.scaling import batch_scale
from lrkit.schedules import Schedule

__all__ = ["CONF_DIR", "VERSION_BASE", "accumulation", "build", "check_sweep", "compose", "plan", "world_of"]

Config = dict[str, Any]


def compose(overrides: Sequence[str] = (), config_dir: str | None = None) -> Config:
    """The config of one run: composed, resolved to plain containers, every key checked.

    Args:
        overrides: as on the command line.
        config_dir: a folder of the user's own groups and options; where both have one, theirs is taken.

    Raises:
        ConfigError: one line about the first thing that is wrong.

    >>> compose(["schedule=step", "schedule.gamma=0.5"])["schedule"]["gamma"]
    0.5
    """
    parsed = parse(overrides)
    with initialised(config_dir) as search:
        for override in parsed:
            check_group(override, search)
        try:
            composed = hydra.compose("train", overrides=[*search, *overrides])
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise explained(error, parsed, search) from None
    try:
        config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", None) or "config")
        raise ConfigError(key, "cannot be resolved: " + str(error).splitlines()[0].rstrip(".")) from None
    assert isinstance(config, dict)
    checked: Config = {str(key): value for key, value in config.items()}
    _check_keys(checked)
    return checked


def check_sweep(overrides: Sequence[str], config_dir: str | None = None) -> None:
    """Check a sweep before its first job: each value of each swept key once, the other keys at their first values."""
    expand(overrides, config_dir)
    choices = [swept(override, config_dir) for override in parse(overrides)]
    first = [choice[0] for choice in choices]
    check(compose(first, config_dir))
    for i, choice in enumerate(choices):
        for text in choice[1:]:
            check(compose([*first[:i], text, *first[i + 1 :]], config_dir))


def check(config: Mapping[str, Any]) -> Plan | None:
    """Refuse what can be refused before there is data; the plan, where the config says how long the run is."""
    declared = config["data"].get("train_samples") is not None or config["horizon"].get("steps") is not None
    if declared:
        return plan(config)
    # The length of the run is not known: try it on a long one, so that only what is wrong anyway is refused.
    plan({**config, "horizon": {"steps": 10**6, "steps_per_epoch": 10**3, "batch_size": 64}})
    return None


def plan(
    config: Mapping[str, Any],
    *,
    world: int | None = None,
    batches: int | None = None,
    notes: Sequence[str] = (),
) -> Plan:
    """Resolve a config into a plan.

    Args:
        config: what ``compose`` returned.
        world: devices x nodes, where they are known better than the config can say.
        batches: batches per epoch and process, where they were counted.
        notes: lines for the plan's warnings.
    """
    _check_values(config)
    data, node, rule = config["data"], config["optimizer"], config["batch_scaling"]
    if world is None:
        world, assumed = world_of(config["trainer"])
        notes = [*notes, *(["trainer.devices=auto: the plan assumes 1; a number makes it certain"] if assumed else [])]
    loader = Loader(data.get("train_samples"), data.get("batch_size"), bool(data.get("drop_last", False)))
    trainer = {**config["trainer"], "accumulate_grad_batches": accumulation(config, world)}
    horizon = horizon_of(loader, trainer, world=world, batches=batches, overrides=config["horizon"])
    target = str(node.get("_target_", ""))
    return planning.resolve(
        lr=node.get("lr"),
        optimizer=target,
        momentum=_momentum(target, node),
        horizon=horizon,
        schedule=_shape(config, "schedule") or _no_schedule(),
        warmup=_shape(config, "warmup"),
        cooldown=_shape(config, "cooldown"),
        plateau=_plateau(config),
        scale=batch_scale(rule.get("rule"), rule.get("base_batch_size"), horizon.batch_size, target),
        groups=[GroupRate(*rate) for rate in group_rates(config["param_groups"])],
        warnings=notes,
        allow_extreme_lr=bool(config.get("allow_extreme_lr")),
        config=config,
    )


def build(node: Mapping[str, Any] | None, key: str) -> Any:
    """The object that a ``_target_`` node describes; None for an empty node. Errors name keys under ``key``."""
    if not node:
        return None
    arguments(node, key)
    try:
        return hydra.utils.instantiate(OmegaConf.create(dict(node)), _convert_="all")
    except HydraException as error:
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            raise (cause if cause.key.startswith(key) else cause.under(key)) from None
        raise ConfigError(key, "cannot be built: " + str(cause or error).splitlines()[0].rstrip(".")) from cause


def arguments(node: Mapping[str, Any], key: str) -> frozenset[str]:
    """The names that the target of a node accepts; an error where the node has another one."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{key}._target_", "must be set")
    parameters = inspect.signature(_locate(str(node["_target_"]), f"{key}._target_")).parameters
    accepted = frozenset(name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD)
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name, value in node.items():
        if not (name in accepted or anything or (name.startswith("_") and name.endswith("_"))):
            raise ConfigError(f"{key}.{name}", f"is not a key. {did_you_mean(name, accepted)}")
        for i, inner in enumerate(value if isinstance(value, list) else []):
            if isinstance(inner, Mapping) and "_target_" in inner:
                arguments(inner, f"{key}.{name}[{i}]")
    return accepted


def world_of(trainer: Mapping[str, Any]) -> tuple[int, bool]:
    """Devices x nodes as the config says it, and whether that had to be assumed (``auto``)."""
    devices, nodes = trainer.get("devices"), trainer.get("num_nodes") or 1
    if isinstance(devices, str) and devices not in ("auto", "-1"):
        devices = [d for d in devices.split(",") if d.strip()] if "," in devices else _whole(devices)
    if devices in ("auto", "-1", -1, None):
        return nodes, True
    count = len(devices) if isinstance(devices, list) else devices
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError("trainer.devices", "must be a number >= 1, a list of devices, or auto", devices)
    return count * nodes, False


def accumulation(config: Mapping[str, Any], world: int) -> int:
    """Micro-batches in an optimizer step: as written, or as many as ``batch.effective`` needs."""
    written, effective = config["trainer"].get("accumulate_grad_batches") or 1, config["batch"].get("effective")
    if effective is None:
        return int(written)
    _check_count("batch.effective", effective)
    size = config["data"].get("batch_size")
    if written != 1:
        raise ConfigError("batch.effective", f"and trainer.accumulate_grad_batches={written} both set accumulation")
    if size is None:
        raise ConfigError("batch.effective", "needs data.batch_size, which is not set")
    if effective % (size * world):
        product = f"{size * world} = data.batch_size {size} x {world} device(s)"
        raise ConfigError("batch.effective", f"must be a multiple of {product}", effective)
    return int(effective // (size * world))


def _shape(config: Mapping[str, Any], name: str) -> Schedule | None:
    shape = build(config[name], name)
    if shape is not None and not isinstance(shape, Schedule):
        raise ConfigError(f"{name}._target_", "must be a schedule (see lrkit.schedules)", config[name]["_target_"])
    return shape


def _no_schedule() -> Schedule:
    raise ConfigError("schedule", "must not be empty: for a fixed rate use schedule=constant")


def _plateau(config: Mapping[str, Any]) -> Plateau | None:
    plateau = build(config["plateau"], "plateau")
    if plateau is not None and not isinstance(plateau, Plateau):
        raise ConfigError("plateau._target_", "must be lrkit.plateau.Plateau", config["plateau"]["_target_"])
    return plateau


def _momentum(target: str, node: Mapping[str, Any]) -> float | None:
    """The optimizer's momentum: ``momentum``, or the first of ``betas``; None where it has none."""
    known = family(target)
    name = known.momentum if known else next((n for n in ("momentum", "betas") if n in node), None)
    value = node.get(name) if name else None
    if name == "betas":
        value = value[0] if isinstance(value, list) and value else 0.9  # every Adam's own default
    return float(value) if isinstance(value, int | float) else None


def _locate(target: str, key: str) -> Any:
    """The object at a dotted path."""
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ConfigError(key, f"cannot be imported ({error})", target) from None
    if not hasattr(module, name):
        public = [n for n in getattr(module, "__all__", dir(module)) if not n.startswith("_")]
        hint = did_you_mean(name, public).partition(" Accepted: ")[0]
        hint = f". {hint.rstrip('?')}" if hint.startswith("Did") else ""
        raise ConfigError(key, f"names nothing: {module_name} has no {name}{hint}", target)
    return getattr(module, name)


def _check_values(config: Mapping[str, Any]) -> None:
    """Types and ranges of the keys that belong to no object of their own."""
    for name in ("data", "model", "optimizer", "trainer", "horizon", "batch", "batch_scaling", "callbacks", "logger"):
        if not isinstance(config.get(name), Mapping):
            raise ConfigError(name, "must be a group of keys", config.get(name))
    seed, trainer = config["seed"], config["trainer"]
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ConfigError("seed", "must be a whole number in [0, 4294967295]", seed)
    if config["data"].get("batch_size") is not None:
        _check_count("data.batch_size", config["data"]["batch_size"])
    for name in ("max_epochs", "max_steps", "accumulate_grad_batches", "num_nodes", "log_every_n_steps"):
        value = trainer.get(name)
        if value is not None and not (name.startswith("max_") and value == -1 and value is not True):
            _check_count(f"trainer.{name}", value)
    if all(trainer.get(name) in (None, -1) for name in ("max_epochs", "max_steps", "max_time")):
        raise ConfigError("trainer.max_epochs", "or trainer.max_steps must be set: a run needs an end")
    for name in ("limit_train_batches", "limit_val_batches", "val_check_interval"):
        value = trainer.get(name)
        if value is None or (name == "limit_val_batches" and value == 0 and value is not False):
            continue
        share = isinstance(value, float) and 0 < value <= 1
        if isinstance(value, bool) or not (share or (isinstance(value, int) and value >= 1)):
            raise ConfigError(
                f"trainer.{name}", "must be a number of batches >= 1, or a share of them in (0, 1]", value
            )


def _check_count(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(key, "must be a whole number >= 1", value)


def _check_keys(config: Config) -> None:
    """Refuse keys that mean nothing, also those that came in through ``+`` or from a file."""
    top, sections = _known_keys()
    for name in config:
        if name not in top:
            raise ConfigError(name, f"is not a key. {did_you_mean(name, top)}")
    for section, known in sections.items():
        node = config[section]
        for name in node if isinstance(node, Mapping) else ():
            if name not in known:
                raise ConfigError(f"{section}.{name}", f"is not a key. {did_you_mean(str(name), known)}")


@cache
def _known_keys() -> tuple[frozenset[str], dict[str, frozenset[str]]]:
    """The keys at the top, and those of the sections that describe no object; read from the shipped files."""

    def keys(path: str, *inside: str) -> frozenset[str]:
        node = OmegaConf.to_container(OmegaConf.load(CONF_DIR / path))
        for name in inside:
            node = node[name]  # type: ignore[index, call-overload]
        return frozenset(str(key) for key in node)  # type: ignore[union-attr]

    groups = {p.name for p in CONF_DIR.iterdir() if p.is_dir() and not p.name.startswith("_")}
    sections = {
        "trainer": keys("trainer/default.yaml"),
        "batch_scaling": keys("batch_scaling/linear.yaml"),
        "batch": keys("train.yaml", "batch"),
        "horizon": keys("train.yaml", "horizon"),
    }
    return frozenset((keys("train.yaml") - {"defaults", "hydra"}) | groups), sections


def _whole(text: str) -> Any:
    return int(text) if text.strip().isdigit() else text

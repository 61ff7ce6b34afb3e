"""From overrides to a config, and from a config to a plan. Hydra composes; nothing here imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple, TypeVar

import hydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from lrkit.base import launcher
from lrkit.base.errors import ConfigError
from lrkit.base.moved_classes import with_current_paths
from lrkit.config import (
    node_options,
    optimizer_options,
    resume_options,
    saved_config,
    timeout,
    trainer_options,
    trusted_targets,
    yaml_screening,
)
from lrkit.config.callback_conflicts import conflict_of_path
from lrkit.config.find_options import AUTO, Search
from lrkit.config.instantiate import build
from lrkit.config.overrides import (
    CONF_DIR,
    VERSION_BASE,
    check_group,
    default_choices,
    expand_jobs,
    expand_override,
    explain_hydra_error,
    extreme_values,
    hydra_initialised,
    is_group,
    leaf_paths,
    named_classes,
    nearest_key,
    parse_overrides,
    suggest_name,
    trusted_names,
    unknown_key,
    with_added_tracks,
)  # fmt: skip
from lrkit.config.trainer_options import check_count
from lrkit.planning import tracks
from lrkit.planning.base_lr import check_scaled_lr
from lrkit.planning.batch_scaling import batch_scale
from lrkit.planning.group_rules import group_rates
from lrkit.planning.guard import POLICIES, Guard
from lrkit.planning.optimizer_traits import finds_rate, momentum_of
from lrkit.planning.plan import GroupRate, Plan
from lrkit.planning.plateau import Plateau
from lrkit.planning.resolve import resolve_plan
from lrkit.schedules.durations import Duration
from lrkit.schedules.horizon import Horizon, LoaderSize, horizon_of, limit_batches
from lrkit.schedules.shapes import Schedule

__all__ = [
    "CONF_DIR",
    "VERSION_BASE",
    "accumulation",
    "build",
    "check",
    "check_sweep",
    "check_values",
    "compose",
    "plan",
    "replicas_of",
    "sweep_of_files",
    "with_world",
    "world_of",
]

Config = dict[str, Any]
T = TypeVar("T")


def compose(overrides: Sequence[str] = (), config_dir: str | None = None, trust: Sequence[str] = ()) -> Config:
    """The config of one run: composed, resolved to plain containers, every key checked.

    With ``resume.path`` it is the config of the run that is gone on with, and on top of it what the overrides say.

    Args:
        overrides: as on the command line.
        config_dir: a folder of the user's own groups and options; where both have one, theirs is taken.
        trust: packages whose classes files may name too; what the overrides name themselves needs no more.

    Raises:
        ConfigError: one line about the first thing that is wrong.

    >>> compose(["schedule=step", "schedule.gamma=0.5"])["schedule"]["gamma"]
    0.5
    """
    parsed = parse_overrides(overrides)
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
    for name in sorted(_top() - set(composed)):
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
    _check_keys(checked)
    if base is not None:
        checked = saved_config.with_found_interval(checked, base)
    try:
        trusted_targets.check(checked)
        trusted_targets.check_addresses(checked, overrides)
    except ConfigError as error:
        if base is None:
            raise
        must = f"{error.must}; what is not typed is as the run in {path} has it"
        raise ConfigError(error.key, must, error.received) from None
    if not checked[tracks.KEY]:  # which have no cooldown to go on with, and are told so
        resume_options.check_cooldown(checked)
    return with_world(checked, parsed)


def with_world(config: Config, parsed: Sequence[Override]) -> Config:
    """A composed config on as many processes as a launcher has started, where there is one.

    Raises:
        ConfigError: ``trainer.devices`` or ``trainer.num_nodes`` was said, and is another number.
    """
    trainer, shipped = config["trainer"], _shipped("trainer/default.yaml")
    typed = {override.key_or_group.removeprefix("trainer.") for override in parsed}
    changed = {name for name in ("devices", "num_nodes") if trainer.get(name) != shipped[name]}  # by a file
    return {**config, "trainer": launcher.with_launched_devices(trainer, typed | changed)}


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


class SweptConfig(NamedTuple):
    """A sweep as it is composed.

    Args:
        words: the overrides, with what the config sweeps by itself.
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
    """What a sweep sweeps: the command line, and ``hydra.sweeper.params`` where the command line says nothing."""
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
    """Refuse to sweep over options that say what is swept, and by whom: that is settled before there is a job."""
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
    """What a file sweeps becomes words of the command line; it must not say there what only the user may."""
    key = override.key_or_group.partition(".")[0].partition("/")[0]
    named = [name for text in extreme_values(override, config_dir) for name in named_classes(parse_overrides([text]))]
    if key in ("hydra", "trust") or override.package is not None or named:
        must = "must not be swept by hydra.sweeper.params of a file: say it on the command line"
        raise ConfigError(override.key_or_group, must)


def check_values(config: Mapping[str, Any]) -> None:
    """Refuse what a key cannot be by itself, whatever plan a run that is gone on with takes."""
    trusted_targets.check(config)
    _check_values(config)


def check(config: Mapping[str, Any]) -> Plan | None:
    """Refuse what can be refused before there is data; the plan, where the config says how long the run is."""
    check_values(config)
    if config["optimizer"].get("lr") == AUTO:  # to be found; the rest is checked as if it had been
        lr = 1.0 if finds_rate(str(config["optimizer"].get("_target_"))) else 1e-3
        config = {**config, "optimizer": {**config["optimizer"], "lr": lr}}
    declared = config["data"].get("train_samples") is not None or config["horizon"].get("steps") is not None
    if declared:
        return plan(config)
    # The length of the run is not known: try it on a long one, so that only what is wrong anyway is refused.
    steps = 10**6
    long = {"steps": steps, "steps_per_epoch": 10**3, "batch_size": 64}
    ends = {"max_steps": steps} if config["trainer"].get("max_steps") not in (None, -1) else {}
    plan({**config, "horizon": long, "trainer": {**config["trainer"], **ends}})
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
        world: processes that see batches of their own, where they are known better than the config can say.
        batches: batches per epoch and process, where they were counted.
        notes: lines for the plan's warnings.
    """
    trusted_targets.check(config)
    _check_values(config)
    data, node = config["data"], config["optimizer"]
    if world is None:
        world, assumed = replicas_of(config["trainer"])
        notes = [*notes, *(["trainer.devices=auto: the plan assumes 1; a number makes it certain"] if assumed else [])]
    if (launch := launcher.detect_launch()) is not None and launch.world > 1:
        notes = [*notes, str(launch)]
    if config["trainer"].get("max_time"):
        notes = [*notes, "trainer.max_time may end the run before its schedule has ended"]
    loader = LoaderSize(data.get("train_samples"), data.get("batch_size"), bool(data.get("drop_last", False)))
    trainer = {**config["trainer"], "accumulate_grad_batches": accumulation(config, world)}
    _check_fills(loader, trainer, world)
    if (
        batches is not None
        and trainer.get("limit_train_batches") is None
        and trainer["accumulate_grad_batches"] > batches
    ):
        must = f"must be at most {batches}, the batches of an epoch"
        raise ConfigError("trainer.accumulate_grad_batches", must, trainer["accumulate_grad_batches"])
    horizon = horizon_of(loader, trainer, world=world, batches=batches, overrides=config["horizon"])
    trainer_options.check_horizon(trainer, config["horizon"].get("steps"))
    if node.get("lr") == AUTO:
        raise ConfigError("optimizer.lr", "is auto, and only lrkit train and lrkit find can measure it: set a number")
    several = tracks.parse_tracks(config[tracks.KEY])
    if not several:
        resolved = _resolved(config, horizon, notes)
        return dataclasses.replace(resolved, config={k: v for k, v in config.items() if k != tracks.KEY})
    shared = _resolved({**config, "coschedule": {}}, horizon, ())  # whose optimizers run with momentum the tracks say
    return dataclasses.replace(
        shared.on_tracks({track.name: _on_track(track, config, horizon) for track in several}, notes), config=config
    )


def _on_track(track: tracks.Track, run: Mapping[str, Any], horizon: Horizon) -> Plan:
    """The plan of one track of a run."""
    config = track.config(run)
    with track.naming():
        own = _resolved({**config, "guard": {}, "find": {}}, tracks.horizon_of(horizon, track.every, track.offset), ())
    return dataclasses.replace(own, config=track.summary(config), every=track.every, offset=track.offset)


def _resolved(config: Mapping[str, Any], horizon: Horizon, notes: Sequence[str]) -> Plan:
    """The plan of one optimizer, by the nodes that shape its rate."""
    node, rule, extreme = config["optimizer"], config["batch_scaling"], config["allow_extreme_lr"]
    target = str(node.get("_target_", ""))
    optimizer_options.check(node)
    groups = group_rates(config["param_groups"])
    optimizer_options.check_groups(target, groups, config["param_groups"].get("layer_decay"))
    try:
        resolved = resolve_plan(
            lr=node.get("lr"),
            optimizer=target,
            momentum=momentum_of(target, node),
            weight_decay=_number(node.get("weight_decay")),
            coschedule=_coschedule(config),
            horizon=horizon,
            schedule=schedule_of(config, "schedule") or _no_schedule(),
            warmup=schedule_of(config, "warmup"),
            cooldown=schedule_of(config, "cooldown"),
            plateau=_part(config, "plateau", Plateau),
            guard=_part(config, "guard", Guard),
            scale=batch_scale(rule.get("rule"), rule.get("base_batch_size"), horizon.batch_size, target),
            groups=[GroupRate(*rate) for rate in groups],
            warnings=notes,
            allow_extreme_lr=extreme,
            found=_interval(config),
            config=config,
        )
    except ArithmeticError as error:
        raise ConfigError("schedule", f"leads to numbers that cannot be computed: {error}") from None
    if not extreme:
        check_scaled_lr(resolved)
    return resolved


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


def replicas_of(trainer: Mapping[str, Any]) -> tuple[int, bool]:
    """Processes that see batches of their own: all of them, but where one model is divided among several (tensor
    parallel). And whether the number of devices had to be assumed."""
    world, assumed = world_of(trainer)
    strategy = trainer.get("strategy")
    if not isinstance(strategy, Mapping) or not str(strategy.get("_target_")).endswith(".ModelParallelStrategy"):
        return world, assumed
    nodes = trainer.get("num_nodes") or 1
    sizes = {"data_parallel_size": nodes, "tensor_parallel_size": world // nodes}
    for name in sizes:
        if strategy.get(name, "auto") != "auto":
            trainer_options.check_count(f"trainer.strategy.{name}", strategy[name])
            sizes[name] = strategy[name]
    data, tensor = sizes.values()
    if data * tensor != world and not assumed:
        must = f"x tensor_parallel_size ({tensor}) must be {world}, the processes of trainer.devices x num_nodes"
        raise ConfigError("trainer.strategy.data_parallel_size", must, data)
    return data, assumed


def accumulation(config: Mapping[str, Any], world: int) -> int:
    """Micro-batches in an optimizer step: as written, or as many as ``batch.effective`` needs."""
    written, effective = config["trainer"].get("accumulate_grad_batches") or 1, config["batch"].get("effective")
    if effective is None:
        return int(written)
    check_count("batch.effective", effective)
    size = config["data"].get("batch_size")
    if written != 1:
        raise ConfigError("batch.effective", f"and trainer.accumulate_grad_batches={written} both set accumulation")
    if size is None:
        raise ConfigError("batch.effective", "needs data.batch_size, which is not set")
    if effective % (size * world):
        product = f"{size * world} = data.batch_size {size} x {world} device(s)"
        raise ConfigError("batch.effective", f"must be a multiple of {product}", effective)
    return int(effective // (size * world))


def schedule_of(config: Mapping[str, Any], name: str) -> Schedule | None:
    """The schedule of a group, or None where it is empty."""
    shape = _part(config, name, Schedule)
    if name == "schedule" and shape is not None and shape.length is not None and not Duration.parse(shape.length).value:
        raise ConfigError("schedule.length", "must be longer than 0, or null for the rest of the run", shape.length)
    moot = {"warmup": "end", "cooldown": "start"}.get(name, "")
    if config[name].get(moot, 1.0) not in (1.0, None):
        meets = "ends where the schedule begins" if name == "warmup" else "starts where the schedule arrived"
        raise ConfigError(f"{name}.{moot}", f"must not be set: a {name} {meets}", config[name][moot])
    return shape


def _part(config: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    """The object of a group that must be of one kind; None where the group is empty. Nothing else is ever called."""
    node = config[name]
    if not node:
        return None
    if "_target_" not in node:
        raise unknown_key(f"{name}.{next(iter(node))}", [name])
    part = build(node, name, config.get("trust", ()))
    assert isinstance(part, kind)
    return part


def _coschedule(config: Mapping[str, Any]) -> dict[str, Schedule]:
    """The schedules that drive momentum and weight decay."""
    nodes = {f"coschedule.{name}": node for name, node in config["coschedule"].items()}
    nodes["trust"] = config.get("trust", ())
    parts = {name: _part(nodes, f"coschedule.{name}", Schedule) for name in config["coschedule"]}
    return {name: part for name, part in parts.items() if part is not None}


def _interval(config: Mapping[str, Any]) -> tuple[float, float] | None:
    """Between which rates the base rate was found, if it was."""
    found = config["find"].get("interval")
    return None if found is None else (float(found[0]), float(found[1]))


def _number(value: Any) -> float:
    """A value that has been, or will be, refused elsewhere where it is no number."""
    return float(value) if isinstance(value, int | float) else 0.0


def _no_schedule() -> Schedule:
    raise ConfigError("schedule", "must not be empty: for a fixed rate use schedule=constant")


def _check_values(config: Mapping[str, Any]) -> None:
    """Types and ranges of the keys that belong to no object of their own."""
    for name in (
        "data",
        "model",
        "optimizer",
        "trainer",
        "horizon",
        "batch",
        "batch_scaling",
        "callbacks",
        "logger",
        "find",
        tracks.KEY,
    ):
        if not isinstance(config.get(name), Mapping):
            raise ConfigError(name, "must be a group of keys", config.get(name))
    Search.of(config["find"])
    if config["jobs"] != "auto":
        check_count("jobs", config["jobs"])
    timeout.seconds(config.get("timeout"))
    if config["on_error"] not in ("continue", "stop"):
        raise ConfigError("on_error", "must be continue or stop", config["on_error"])
    if not isinstance(config["test"], bool):
        raise ConfigError("test", "must be true or false", config["test"])
    if config[tracks.KEY]:
        tracks.parse_tracks(config[tracks.KEY])
        tracks.refuse_combinations(config)
    resume_options.check(config)
    seed, trainer, data = config["seed"], config["trainer"], config["data"]
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ConfigError("seed", "must be a whole number in [0, 4294967295]", seed)
    if not isinstance(config["monitor"], str):
        raise ConfigError("monitor", "must be the name of a metric, or auto", config["monitor"])
    if not isinstance(config["allow_extreme_lr"], bool):
        raise ConfigError("allow_extreme_lr", "must be true or false", config["allow_extreme_lr"])
    for name in ("batch_size", "train_samples"):
        if data.get(name) is not None:
            check_count(f"data.{name}", data[name])
    for name in ("data", "model"):
        node_options.check(name, config[name], suggest_name)
    for group in ("callbacks", "logger"):
        for name, node in config[group].items():
            if not isinstance(node, Mapping) or "_target_" not in node:
                raise ConfigError(f"{group}.{name}._target_", "must be set")
    for name, node in config["callbacks"].items():
        target = str(node["_target_"])
        if (why := conflict_of_path(target)) is not None:
            raise ConfigError(f"callbacks.{name}", why, target.rpartition(".")[2])
    trainer_options.check(trainer)
    if trainer.get("limit_val_batches") == 0 and config["monitor"].startswith("val"):
        raise ConfigError("monitor", "needs a validation, and trainer.limit_val_batches is 0", config["monitor"])
    guard = config["guard"] or {}
    if guard.get("_target_") == "lrkit.planning.guard.Guard" and guard.get("policy") in POLICIES:
        known = _shipped(f"guard/{guard['policy']}.yaml")
        for name in guard:
            if name not in known:
                must = f"has no effect under guard.policy={guard['policy']}: choose guard={guard['policy']}"
                raise ConfigError(f"guard.{name}", must, guard[name])
    monitor = (config["plateau"] or {}).get("monitor")
    if trainer.get("limit_val_batches") == 0 and str(monitor).startswith("val"):
        raise ConfigError("plateau.monitor", "needs a validation, and trainer.limit_val_batches is 0", monitor)


def _check_fills(loader: LoaderSize, trainer: Mapping[str, Any], world: int) -> None:
    """Refuse a batch that the data cannot fill: the rate would be scaled for samples that are not there."""
    if loader.samples is None or loader.batch_size is None:
        return
    share, batches = -(-loader.samples // world), loader.batches(world) or 0
    if loader.batch_size > share:
        must = f"must be at most {share} where data.train_samples is {loader.samples} on {world} device(s)"
        raise ConfigError("data.batch_size", must, loader.batch_size)
    accumulate, interval = trainer["accumulate_grad_batches"], trainer.get("val_check_interval")
    if accumulate > batches > 0:
        must = f"must be at most {batches}, the batches of an epoch"
        raise ConfigError("trainer.accumulate_grad_batches", must, accumulate)
    there = limit_batches(batches, trainer.get("limit_train_batches")) if batches else 0
    if isinstance(interval, int) and interval > there > 0 and trainer.get("check_val_every_n_epoch") is not None:
        must = f"must be at most {there}, the batches of an epoch, or trainer.check_val_every_n_epoch null"
        raise ConfigError("trainer.val_check_interval", must, interval)


def _check_keys(config: Config) -> None:
    """Refuse keys that mean nothing, also those that came in through ``+`` or from a file."""
    sections = {
        "trainer": _shipped("trainer/default.yaml"),
        "batch_scaling": _shipped("batch_scaling/linear.yaml"),
        "batch": _shipped("train.yaml")["batch"],
        "horizon": _shipped("train.yaml")["horizon"],
        "resume": _shipped("train.yaml")["resume"],
        "find": _shipped("train.yaml")["find"],
    }
    for name in config:
        if name not in _top():
            there = [key for key in leaf_paths(config) if key.partition(".")[0] in _top()]
            raise ConfigError(name, f"is not a key. {nearest_key(name, there)}")
    for name in {*sections, *default_choices(), "coschedule", tracks.KEY}:
        if not isinstance(config[name], Mapping):
            raise ConfigError(name, "must be a group of keys", config[name])
    for section, known in sections.items():
        for name in config[section]:
            if name not in known:
                raise ConfigError(f"{section}.{name}", f"is not a key. {suggest_name(str(name), known)}")


def _top() -> set[str]:
    return {*_shipped("train.yaml"), *default_choices()} - {"defaults", "hydra"}


@cache
def _shipped(path: str) -> dict[str, Any]:
    """What one of lrkit's own files says."""
    node = OmegaConf.to_container(OmegaConf.load(CONF_DIR / path))
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def _whole(text: str) -> Any:
    return int(text) if text.strip().isdigit() else text

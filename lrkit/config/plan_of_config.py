"""Resolves a checked config into a plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lrkit.base import launcher_environment
from lrkit.base.errors import ConfigError
from lrkit.base.validation import whole
from lrkit.config import node_options, optimizer_options, trainer_options
from lrkit.config.devices import accumulation, replicas_of
from lrkit.config.find_options import AUTO
from lrkit.config.key_checks import check_values
from lrkit.config.plan_objects import build_part, build_rules, build_schedule
from lrkit.planning import optimizer_tracks
from lrkit.planning.base_lr import check_scaled_lr
from lrkit.planning.batch_scaling import batch_scale
from lrkit.planning.group_rules import group_rates
from lrkit.planning.guard import Guard
from lrkit.planning.optimizer_traits import momentum_of
from lrkit.planning.plan import GroupRate, Plan
from lrkit.planning.plateau import Plateau
from lrkit.planning.resolve import resolve_plan
from lrkit.planning.weight_decay_rule import COUPLED, WeightDecayRule, check_decoupled, resolve_rule
from lrkit.schedules.horizon import Horizon, LoaderSize, apply_trial_options, horizon_of, limit_batches, limit_key
from lrkit.schedules.shapes import Schedule

__all__ = ["find_uncompressible", "plan", "schedule_of"]


def plan(
    config: Mapping[str, Any],
    *,
    world: int | None = None,
    batches: int | None = None,
    notes: Sequence[str] = (),
) -> Plan:
    """Resolve a config into a plan.

    Args:
        config: a config of ``compose``.
        world: the number of processes with batches of their own; None: from the config.
        batches: counted batches per epoch and process.
        notes: lines for the plan's warnings.
    """
    check_values(config)
    data, node = config["data"], config["optimizer"]
    if world is None:
        world, assumed = replicas_of(config["trainer"])
        notes = [
            *notes,
            *(["trainer.devices=auto: the plan assumes 1 device; set the number for an exact plan"] if assumed else []),
        ]
    if (launch := launcher_environment.detect_launch()) is not None and launch.world > 1:
        notes = [*notes, str(launch)]
    if config["trainer"].get("max_time"):
        notes = [*notes, "trainer.max_time may end the run before its schedule has ended"]
    loader = LoaderSize(
        data.get("train_samples"),
        data.get("batch_size"),
        bool(data.get("drop_last", False)),
        node_options.tokens_per_sample(data),
    )
    trainer = {**config["trainer"], "accumulate_grad_batches": accumulation(config, world)}
    _check_batch_is_filled(config, loader, trainer, world)
    if batches is not None and limit_key(trainer) is None:
        _check_accumulation(config, trainer["accumulate_grad_batches"], batches)
    known, batch = config["horizon"], config["batch"]
    horizon = horizon_of(loader, trainer, world=world, batches=batches, overrides=known, batch=batch)
    trainer_options.check_horizon(trainer, None if known.get("steps") is None else horizon.steps, horizon)
    if node.get("lr") == AUTO:
        raise ConfigError("optimizer.lr", "must be a number: only lrkit train and lrkit find can measure auto")
    several = optimizer_tracks.parse_tracks(config[optimizer_tracks.KEY])
    if not several:
        resolved = _resolve_compressed(config, horizon, notes)
        return dataclasses.replace(resolved, config={k: v for k, v in config.items() if k != optimizer_tracks.KEY})
    shared = _resolve_one({**config, "coschedule": {}}, horizon, ())  # each track checks its own momentum
    return dataclasses.replace(
        shared.on_tracks({track.name: _resolve_track(track, config, horizon) for track in several}, notes),
        config=config,
    )


def _resolve_compressed(config: Mapping[str, Any], horizon: Horizon, notes: Sequence[str]) -> Plan:
    """Return the plan of a run with one optimizer, whose curve may be the compressed one of a longer run."""
    whole_run = _find_whole_run(config, horizon)
    if whole_run is None:
        return _resolve_one(config, horizon, notes)
    source = f"{horizon.sources.get('steps', 'given')}; the whole curve of {whole_run.steps} steps"
    told = dataclasses.replace(horizon, sources=MappingProxyType({**horizon.sources, "steps": source}))
    return _resolve_one(config, whole_run, notes).compressed(told)


def find_uncompressible(config: Mapping[str, Any], stops: bool) -> list[tuple[str, str]]:
    """Return the keys of a config whose curve has no meaning in fewer steps, each with the reason.

    Args:
        config: the resolved config.
        stops: whether the run ends before its last step.
    """
    table = (
        ("batch.schedule", config["batch"].get("schedule") is not None, "the batch size would change at other steps"),
        ("plateau", bool(config["plateau"]), "its patience counts validations, of which a shorter run has fewer"),
        ("horizon.stop_after", stops, "a compressed run takes all its steps"),
    )
    return [(key, why) for key, given, why in table if given]


def _find_whole_run(config: Mapping[str, Any], horizon: Horizon) -> Horizon | None:
    """Return the horizon of the longer run whose curve this run takes in its own steps; None: this run has its own.

    Raises:
        ConfigError: the longer run is shorter, or its curve has no meaning in fewer steps.
    """
    key, steps = "horizon.compressed_from", config["horizon"].get("compressed_from")
    if steps is None:
        return None
    whole(1).check(key, steps)
    for other, why in find_uncompressible(config, horizon.stop_after is not None):
        raise ConfigError(key, f"and {other} cannot be used together: {why}")
    short = horizon.require("steps", key)
    if steps < short:
        raise ConfigError(key, f"must be at least {short}, the optimizer steps of this run, or null", steps)
    return dataclasses.replace(horizon, steps=steps)


def _resolve_track(track: optimizer_tracks.Track, run: Mapping[str, Any], horizon: Horizon) -> Plan:
    """Return the plan of one track of a run."""
    config = track.config(run)
    with track.naming():
        own = _resolve_one(
            {**config, "guard": {}, "find": {}}, optimizer_tracks.horizon_of(horizon, track.every, track.offset), ()
        )
    return dataclasses.replace(own, config=track.summary(config), every=track.every, offset=track.offset)


def _resolve_one(config: Mapping[str, Any], horizon: Horizon, notes: Sequence[str]) -> Plan:
    """Return the plan of one optimizer."""
    node, rule, extreme = config["optimizer"], config["batch_scaling"], config["allow_extreme_lr"]
    target, trust = str(node.get("_target_", "")), config.get("trust", ())
    optimizer_options.check(node)
    groups, rules = group_rates(config["param_groups"]), build_rules(config["param_groups"], trust)
    optimizer_options.check_groups(target, groups, rules)
    try:
        resolved = resolve_plan(
            lr=node.get("lr"),
            optimizer=target,
            momentum=momentum_of(target, node),
            weight_decay=_number_or_zero(node.get("weight_decay")),
            weight_decay_rule=_resolve_weight_decay_rule(config, groups, horizon),
            coschedule=_build_coschedule(config),
            horizon=horizon,
            schedule=schedule_of(config, "schedule") or _refuse_no_schedule(),
            warmup=schedule_of(config, "warmup"),
            cooldown=schedule_of(config, "cooldown"),
            plateau=build_part(config["plateau"], "plateau", Plateau, trust),
            guard=build_part(config["guard"], "guard", Guard, trust),
            scale=batch_scale(rule.get("rule"), rule.get("base_batch_size"), horizon.samples_in(0), target),
            groups=[GroupRate(*rate) for rate in groups],
            rules=rules,
            warnings=notes,
            allow_extreme_lr=extreme,
            found=_read_found_interval(config),
            config=config,
        )
    except ArithmeticError as error:
        raise ConfigError("schedule", f"has values that cannot be computed: {error}") from error
    if not extreme:
        check_scaled_lr(resolved)
    origin = config["find"].get("origin")
    return dataclasses.replace(resolved.with_groups(resolved.groups, rules.notes), origin=origin)


def schedule_of(config: Mapping[str, Any], name: str) -> Schedule | None:
    """Return the schedule of a group; None if the group is empty."""
    return build_schedule(config[name], name, config.get("trust", ()))


def _build_coschedule(config: Mapping[str, Any]) -> dict[str, Schedule]:
    """Return the schedules of momentum and weight decay."""
    trust = config.get("trust", ())
    parts = {name: build_schedule(node, f"coschedule.{name}", trust) for name, node in config["coschedule"].items()}
    return {name: part for name, part in parts.items() if part is not None}


def _resolve_weight_decay_rule(
    config: Mapping[str, Any], groups: Sequence[tuple[str, float, float | None]], horizon: Horizon
) -> WeightDecayRule:
    """Return the weight-decay rule, after a check that the optimizer and its groups support it."""
    said, node = config.get("weight_decay_rule") or {}, config["optimizer"]
    rule = resolve_rule(said.get("rule", COUPLED.rule), said.get("timescale"), horizon)
    target = str(node.get("_target_", ""))
    options = {**optimizer_options.SIGNATURES.get(target, {}), **node}
    check_decoupled(rule, target, options, [(name, weight_decay) for name, _, weight_decay in groups])
    return rule


def _read_found_interval(config: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the interval of a base rate from a search; None for another rate."""
    found = config["find"].get("interval")
    return None if found is None else (float(found[0]), float(found[1]))


def _number_or_zero(value: Any) -> float:
    """Return the number, or 0 for a value that another check refuses."""
    return float(value) if isinstance(value, int | float) else 0.0


def _refuse_no_schedule() -> Schedule:
    raise ConfigError("schedule", "must not be empty: for a fixed rate use schedule=constant")


def _check_batch_is_filled(
    config: Mapping[str, Any], loader: LoaderSize, trainer: Mapping[str, Any], world: int
) -> None:
    """Refuse a batch larger than the data: the rate would be scaled for samples that do not exist."""
    if loader.samples is None or loader.batch_size is None:
        return
    share, batches = -(-loader.samples // world), loader.batches(world) or 0
    if loader.batch_size > share:
        must = f"must be at most {share}, with data.train_samples={loader.samples} on {world} device(s)"
        raise ConfigError("data.batch_size", must, loader.batch_size)
    if not batches:
        return
    _check_accumulation(config, trainer["accumulate_grad_batches"], batches)
    if trainer.get("fast_dev_run"):  # it validates once, whatever the interval
        return
    there, interval = limit_batches(batches, apply_trial_options(trainer)), trainer.get("val_check_interval")
    if isinstance(interval, int) and interval > there and trainer.get("check_val_every_n_epoch") is not None:
        limited = "" if limit_key(trainer) is None else f" under {limit_key(trainer)}"
        must = f"must be at most {there}, the batches of an epoch{limited}, or trainer.check_val_every_n_epoch null"
        raise ConfigError("trainer.val_check_interval", must, interval)


def _check_accumulation(config: Mapping[str, Any], accumulate: int, batches: int) -> None:
    """Refuse accumulation over more batches than an epoch has, by the key that sets it."""
    if accumulate <= batches:
        return
    effective = config["batch"].get("effective")
    if effective is None:
        must = f"must be at most {batches}, the batches of an epoch"
        raise ConfigError("trainer.accumulate_grad_batches", must, accumulate)
    most = effective // accumulate * batches
    raise ConfigError("batch.effective", f"must be at most {most}, the samples in the batches of an epoch", effective)

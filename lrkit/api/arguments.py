"""The arguments of the Python functions: checked like the keys of the command, and turned into a plan."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.config import optimizer_options
from lrkit.config.shipped_options import class_of_option, read_option
from lrkit.planning import optimizer_tracks
from lrkit.planning.base_lr import check_scaled_lr
from lrkit.planning.batch_scaling import batch_scale
from lrkit.planning.group_rules import Rules, group_rates, parse_rules
from lrkit.planning.guard import Guard
from lrkit.planning.guard_policies import policies_for_several
from lrkit.planning.optimizer_traits import momentum_of
from lrkit.planning.plan import GroupRate, Plan
from lrkit.planning.plateau import Plateau
from lrkit.planning.resolve import resolve_plan
from lrkit.planning.weight_decay_rule import WeightDecayRule, check_decoupled, resolve_rule
from lrkit.schedules.batch_sizes import parse_stages, resolve_sizes, spread_stages
from lrkit.schedules.curve import Curve, depends_on_length
from lrkit.schedules.durations import Length
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Schedule
from lrkit.schedules.warmup import moot_reason

if TYPE_CHECKING:
    from torch.optim import Optimizer

__all__ = [
    "AnyBatchSchedule",
    "AnyGuard",
    "AnyPlateau",
    "AnyRules",
    "AnySchedule",
    "CurveParts",
    "RunParts",
    "class_path",
]

#: A schedule: an object, the name of an option, or a mapping such as ``{"name": "step", "every": "30ep"}``.
AnySchedule = Schedule | str | Mapping[str, Any]
AnyPlateau = Plateau | str | Mapping[str, Any]
AnyGuard = Guard | str | Mapping[str, Any]
#: Pairs of a duration and the samples in an optimizer step from there on.
AnyBatchSchedule = Sequence[Sequence[Length]]
AnyRules = Mapping[str, Any] | Sequence[Mapping[str, Any]]

Part = TypeVar("Part")

#: The arguments that a module with several optimizers may set for each of them.
_TRACK = (
    "lr", "optimizer", "options", "schedule", "warmup", "warmup_length", "cooldown", "cooldown_length", "param_groups",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CurveParts:
    """The arguments of ``lrkit.curve``, without the length of the run."""

    schedule: AnySchedule = "cosine"
    warmup: AnySchedule | None = None
    warmup_length: Length | None = None
    cooldown: AnySchedule | None = None
    cooldown_length: Length | None = None

    def curve(self, horizon: Horizon) -> Curve:
        """Return the curve for a run of this length."""
        schedule = _build_schedule(self.schedule, "schedule")
        return Curve.build(schedule, horizon, warmup=self.build_edge("warmup"), cooldown=self.build_edge("cooldown"))

    def schedule_class(self) -> type[Schedule]:
        """Return the class of the schedule."""
        return type(_build_schedule(self.schedule, "schedule"))

    def build_edge(self, name: str) -> Schedule | None:
        """Return the warmup or the cooldown, with the length argument or the length of its option."""
        part, length = getattr(self, name), getattr(self, f"{name}_length")
        if length is not None:
            if isinstance(part, Schedule) or (isinstance(part, Mapping) and "length" in part):
                raise ConfigError(f"{name}_length", f"must be None, because the {name} has its own length", length)
            if part in (None, "none"):
                raise ConfigError(f"{name}_length", f"needs a {name}: {name}='linear'", length)
            part = {**(part if isinstance(part, Mapping) else {"name": part}), "length": length}
        return _build_option(part, name, Schedule)


@dataclass(frozen=True, kw_only=True)
class RunParts(CurveParts):
    """The arguments of ``lrkit.plan``, without the length of the run."""

    lr: float
    optimizer: str | type[Optimizer] = "adamw"
    options: Mapping[str, Any] | None = None
    plateau: AnyPlateau | None = None
    guard: AnyGuard | None = None
    coschedule: Mapping[str, AnySchedule] | None = None
    batch_scaling: str = "none"
    base_batch_size: int = 256
    weight_decay_rule: str = "coupled"
    weight_decay_timescale: Length | None = None
    param_groups: AnyRules | None = None
    optimizers: Mapping[str, Mapping[str, Any]] | None = None
    allow_extreme_lr: bool = False
    trust: Sequence[str] = ()  #: packages whose classes the rules of ``param_groups`` may name

    def plan(self, horizon: Horizon) -> Plan:
        """Return the plan for a run of this length.

        Raises:
            ConfigError: an invalid argument, or two arguments that contradict each other.
        """
        return self._plan_tracks(horizon) if self.optimizers else self._plan_one_optimizer(horizon)

    def check(
        self,
        batch_size: int | None = None,
        tokens_per_sample: int | None = None,
        batch_schedule: AnyBatchSchedule | None = None,
    ) -> None:
        """Check the arguments before the length of the run is known, by a plan for a long run.

        Raises:
            ConfigError: an invalid argument, or two arguments that contradict each other.
        """
        try:
            if batch_schedule is None:
                self.plan(Horizon(10**6, 10**3, batch_size or 64, tokens_per_sample=tokens_per_sample))
            else:
                self.check_batch_schedule(batch_schedule)
                stages = spread_stages(batch_schedule, 10**6)
                micro = batch_size or math.gcd(*(size for _, size in stages))
                epoch = 10**3 * (1 + max(size for _, size in stages) // micro)
                sizes, _ = resolve_sizes(stages, micro=micro, batches=epoch, steps=10**6)
                self.plan(Horizon(10**6, tokens_per_sample=tokens_per_sample, batch_sizes=sizes))
        except ConfigError as error:
            if not depends_on_length(error):
                raise

    def check_batch_schedule(self, batch_schedule: AnyBatchSchedule) -> None:
        """Refuse a batch-size schedule for several optimizers."""
        if self.optimizers:
            raise ConfigError("batch_schedule", "and optimizers cannot be used together: a step is a batch there")
        parse_stages(batch_schedule)

    def target(self) -> tuple[str, dict[str, Any]]:
        """Return the class path of the optimizer and its options. The caller's options replace the shipped ones."""
        given = dict(self.options or {})
        if not isinstance(self.optimizer, str):
            return _find_class_path(self.optimizer), given
        if "." in self.optimizer:
            return self.optimizer, given
        shipped = read_option("optimizer", self.optimizer, "optimizer")
        return str(shipped.pop("_target_")), {name: value for name, value in (shipped | given).items() if name != "lr"}

    def rules(self) -> Mapping[str, Any]:
        """Return the node ``param_groups``."""
        return self.param_groups if isinstance(self.param_groups, Mapping) else {"rules": self.param_groups}

    def build_plateau(self) -> Plateau | None:
        """Return the object for reduce-on-plateau; the schedule ``plateau`` sets it too."""
        name = self.schedule.get("name") if isinstance(self.schedule, Mapping) else self.schedule
        return _build_option(
            "reduce" if self.plateau is None and name == "plateau" else self.plateau, "plateau", Plateau
        )

    def build_guard(self) -> Guard | None:
        """Return the divergence guard."""
        return _build_option(self.guard, "guard", Guard)

    def list_tracks(self) -> list[tuple[optimizer_tracks.Track, RunParts]]:
        """Return, for each of several optimizers, its track and its arguments."""
        several = optimizer_tracks.parse_tracks(self.optimizers or {}, _TRACK)
        return [(track, self._get_track_parts(track)) for track in several]

    def _plan_one_optimizer(self, horizon: Horizon) -> Plan:
        target, options = self.target()
        in_force = {**optimizer_options.SIGNATURES.get(target, {}), **options}
        groups, rules = group_rates(self.param_groups), self._build_rules()
        optimizer_options.check({**options, "_target_": target})
        optimizer_options.check_groups(target, groups, rules)
        coschedule = {
            name: _build_schedule(each, f"coschedule.{name}") for name, each in (self.coschedule or {}).items()
        }
        plan = resolve_plan(
            lr=self.lr,
            schedule=_build_schedule(self.schedule, "schedule"),
            horizon=horizon,
            optimizer=target,
            momentum=momentum_of(target, in_force),
            weight_decay=float(in_force.get("weight_decay", 0.0)),
            weight_decay_rule=self._build_decay_rule(horizon, target, in_force, groups),
            warmup=self.build_edge("warmup"),
            cooldown=self.build_edge("cooldown"),
            plateau=self.build_plateau(),
            guard=self.build_guard(),
            coschedule=coschedule,
            scale=batch_scale(self.batch_scaling, self.base_batch_size, horizon.samples_in(0), target),
            groups=[GroupRate(*rate) for rate in groups],
            rules=rules,
            allow_extreme_lr=self.allow_extreme_lr,
        )
        if not self.allow_extreme_lr:
            check_scaled_lr(plan)
        return plan.with_groups(plan.groups, rules.notes)

    def _build_rules(self) -> Rules:
        """Return the rules of ``param_groups``, with their schedules."""
        rules = parse_rules(self.param_groups)
        if not any(rule.has_curve for rule in rules.rules):
            return rules
        from lrkit.config.plan_objects import build_rules  # imports Hydra, which no other argument needs

        return build_rules(self.param_groups, self.trust)

    def _build_decay_rule(
        self,
        horizon: Horizon,
        target: str,
        options: Mapping[str, Any],
        groups: Sequence[tuple[str, float, float | None]],
    ) -> WeightDecayRule:
        """Return the weight-decay rule, after a check that the optimizer and its groups support it."""
        rule = resolve_rule(self.weight_decay_rule, self.weight_decay_timescale, horizon)
        check_decoupled(rule, target, options, [(name, weight_decay) for name, _, weight_decay in groups])
        return rule

    def _plan_tracks(self, horizon: Horizon) -> Plan:
        """Return the plan of a run with several optimizers, one track for each."""
        guard = self.build_guard()
        if guard is not None and guard.rules.needs_one_optimizer:
            allowed = ", ".join(policies_for_several())
            must = f"must be {allowed}, or None, with several optimizers: a spike is defined by one loss"
            raise ConfigError("guard", must)
        plans = {}
        for track, own in self.list_tracks():
            with track.naming():
                made = own.plan(optimizer_tracks.horizon_of(horizon, track.every, track.offset))
            plans[track.name] = dataclasses.replace(made, every=track.every, offset=track.offset)
        return dataclasses.replace(self, coschedule=None, optimizers=None).plan(horizon).on_tracks(plans)

    def _get_track_parts(self, track: optimizer_tracks.Track) -> RunParts:
        """Return the arguments of one track; the options of the run do not apply to another optimizer."""
        own = {"options": None} if "optimizer" in track.said else {}
        return dataclasses.replace(self, **{"guard": None, "optimizers": None, **own, **track.said})


def _build_schedule(part: AnySchedule, key: str) -> Schedule:
    """Return the schedule of an argument; refuse None."""
    made = _build_option(part, "schedule", Schedule, key)
    if made is None:
        raise ConfigError(key, "must not be None: for a fixed rate use 'constant'")
    return made


def _build_option(
    part: Part | str | Mapping[str, Any] | None, group: str, kind: type[Part], key: str = ""
) -> Part | None:
    """Return the object for the name of an option, or for a mapping with ``name`` and keys; return an object unchanged.

    Raises:
        ConfigError: the group does not have the option, or the option does not have the key.
    """
    key = key or group
    if part is None or isinstance(part, kind):
        return part
    if not isinstance(part, str | Mapping):
        raise ConfigError(key, f"must be a {kind.__name__}, a name, or a mapping with a name", part)
    said = dict(part) if isinstance(part, Mapping) else {"name": part}
    if "name" not in said:
        raise ConfigError(f"{key}.name", "must be set: the name of an option")
    node = read_option(group, said.pop("name"), key)
    known = [name for name in node if name != "_target_"]
    for name in said:
        if name not in known:
            must = moot_reason(group, str(name)) or f"is not a key. {did_you_mean(str(name), known)}"
            raise ConfigError(f"{key}.{name}", must)
    if not node:
        return None
    try:
        made: Part = _build_node({**node, **said}, key)
    except ConfigError as error:
        raise error.under(key) from None
    return made


def _build_node(value: Any, key: str) -> Any:
    """Return the object of a shipped option, with the objects inside it; a mapping with ``name`` is a schedule."""
    if isinstance(value, list | tuple):
        return tuple(_build_node(each, f"{key}[{i}]") for i, each in enumerate(value))
    if isinstance(value, Mapping) and "name" in value:
        return _build_schedule(value, key)
    if not isinstance(value, Mapping) or "_target_" not in value:
        return value
    options = {name: _build_node(each, f"{key}.{name}") for name, each in value.items() if name != "_target_"}
    return class_of_option(value["_target_"])(**options)


def class_path(thing: object) -> str:
    """Return the class path of an object."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _find_class_path(optimizer: type[Optimizer]) -> str:
    """Return the class path of an optimizer."""
    if not isinstance(optimizer, type):
        raise ConfigError("optimizer", "must be a class, a class path, or the name of an option", optimizer)
    # The documented path of torch.optim.adamw.AdamW is torch.optim.AdamW.
    module = "torch.optim" if optimizer.__module__.startswith("torch.optim.") else optimizer.__module__
    return f"{module}.{optimizer.__qualname__}"

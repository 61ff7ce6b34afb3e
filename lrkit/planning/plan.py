"""The plan: every factor of every learning rate of a run, resolved before anything runs.

    lr[group, t] = base_lr * batch_scale * group_scale[group] * curve(t) * gain(t)

``t`` counts applied optimizer steps. All factors but ``gain`` are pure; the plan holds them, prints as a table, saves
as JSON, and is the one place where the product is formed: what it says is what the optimizer gets, bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.option_rules import is_number
from lrkit.planning.batch_scaling import BatchScale
from lrkit.planning.guard import Guard
from lrkit.planning.optimizer_traits import lr_warnings, traits_of
from lrkit.planning.plateau import Plateau
from lrkit.schedules.curve import Curve, Phase
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Constant, Multistep, OneCycle, Schedule, Step
from lrkit.schedules.shapes import Plateau as HeldUntilPlateau

__all__ = ["GroupRate", "Plan", "check_scaled_lr", "resolve_plan"]

SANE_LR = (1e-8, 10.0)


@dataclass(frozen=True)
class GroupRate:
    """A named parameter group: the factor of its rate, and its weight decay where that is its own."""

    name: str
    lr_scale: float = 1.0
    weight_decay: float | None = None


@dataclass(frozen=True)
class Plan:
    """A resolved run. See ``resolve_plan``.

    With several optimizers ``tracks`` has the plan of each (see ``lrkit.planning.tracks``), and no parameter follows
    this one: it says what all share, and its steps are the batches of the run. ``every`` and ``offset`` are a track's:
    it steps where ``batch_idx % every == offset``.
    """

    optimizer: str
    base_lr: float
    scale: BatchScale
    horizon: Horizon
    curve: Curve
    groups: tuple[GroupRate, ...] = (GroupRate("default"),)
    momentum: Curve | None = None
    decay_curve: Curve | None = None
    base_weight_decay: float = 0.0
    plateau: Plateau | None = None
    guard: Guard | None = None
    found: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  #: how the model was split into groups, where that is not written in the config
    config: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), compare=False, repr=False)
    tracks: Mapping[str, Plan] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    every: int = 1
    offset: int = 0

    def base(self, lr_scale: float = 1.0) -> float:
        """The constant part of a group's rate."""
        return self.base_lr * self.scale.factor * lr_scale

    def lr(self, group: GroupRate, step: int, gain: float = 1.0) -> float:
        """The learning rate of ``group`` at applied optimizer step ``step``."""
        return self.base(group.lr_scale) * self.curve(step) * gain

    def weight_decay(self, group: GroupRate, step: int) -> float:
        """The weight decay of ``group`` at ``step``: its own or the optimizer's, times the curve that drives it."""
        base = self.base_weight_decay if group.weight_decay is None else group.weight_decay
        return base if self.decay_curve is None else base * self.decay_curve(step)

    def hyper(self, step: int) -> dict[str, float]:
        """What is driven beside the rate at ``step``, as ``momentum/<group>`` and ``weight_decay/<group>``."""
        values: dict[str, float] = {}
        if self.momentum is not None:
            values |= dict.fromkeys((f"momentum/{group.name}" for group in self.groups), self.momentum(step))
        if self.decay_curve is not None:
            values |= {f"weight_decay/{group.name}": self.weight_decay(group, step) for group in self.groups}
        return values

    def with_groups(self, groups: Sequence[GroupRate], notes: Sequence[str] = ()) -> Plan:
        """The same plan for the groups that a model turned out to have, with lines about how it was split."""
        return dataclasses.replace(self, groups=tuple(groups), notes=tuple(notes))

    def with_track_groups(
        self, groups: Mapping[str, Sequence[GroupRate]], notes: Mapping[str, Sequence[str]] | None = None
    ) -> Plan:
        """The same, where each track has groups of its own."""
        told = notes or {}
        tracks = {name: plan.with_groups(groups[name], told.get(name, ())) for name, plan in self.tracks.items()}
        return dataclasses.replace(self, tracks=MappingProxyType(tracks))

    def on_tracks(self, tracks: Mapping[str, Plan], notes: Sequence[str] = ()) -> Plan:
        """The same run with several optimizers, each by a plan of its own; this plan's own remarks are about none.

        Two losses that pull against each other say nothing by their size, so the guard looks at what is not finite.
        """
        guard = None if self.guard is None else dataclasses.replace(self.guard, far=None)
        return dataclasses.replace(self, tracks=MappingProxyType(dict(tracks)), guard=guard, warnings=tuple(notes))

    def within(self, steps: int, base_lr: float) -> Plan:
        """The same run at another base rate, all its curves run through in ``steps`` steps; its gain stays 1."""
        return dataclasses.replace(
            self,
            base_lr=base_lr,
            horizon=dataclasses.replace(self.horizon, steps=steps),
            curve=self.curve.within(steps),
            momentum=None if self.momentum is None else self.momentum.within(steps),
            decay_curve=None if self.decay_curve is None else self.decay_curve.within(steps),
            plateau=None,
            guard=None,
        )

    @property
    def warmup_steps(self) -> int:
        """Optimizer steps of warmup."""
        first = self.curve.phases[0]
        return first.length or 0 if first.name == "warmup" else 0

    def rate_line(self) -> str:
        """The sentence about the base rate: ``lr 0.4 = 0.1 x 4 (linear: batch 1024 / base 256)``."""
        how = "" if self.found is None else f" (found: {self.found[0]:g}-{self.found[1]:g})"
        if self.scale.rule == "none":
            return f"lr {self.base_lr:g}{how}"
        return f"lr {self.base():.6g} = {self.base_lr:g}{how} x {self.scale}"

    def to_json(self) -> dict[str, Any]:
        """The plan as plain containers: the config it came from, and what it resolved to."""
        return {
            "optimizer": self.optimizer,
            "base_lr": self.base_lr,
            "found": None if self.found is None else list(self.found),
            "batch_scale": dataclasses.asdict(self.scale),
            "horizon": {
                **{name: getattr(self.horizon, name) for name in ("steps", "steps_per_epoch", "batch_size")},
                "sources": dict(self.horizon.sources),
            },
            "groups": [dataclasses.asdict(group) for group in self.groups],
            "phases": [
                {**phase, "lr": {group.name: self._rates(i, group) for group in self.groups}}
                for i, phase in enumerate(_curve_json(self.curve) or [])
            ],
            "momentum": _curve_json(self.momentum),
            "weight_decay": {"base": self.base_weight_decay, "phases": _curve_json(self.decay_curve)},
            "plateau": None if self.plateau is None else dataclasses.asdict(self.plateau),
            "guard": None if self.guard is None else dataclasses.asdict(self.guard),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "config": dict(self.config),
            **(
                {"tracks": {n: {"every": t.every, "offset": t.offset, **t.to_json()} for n, t in self.tracks.items()}}
                if self.tracks
                else {}
            ),
        }

    def _rates(self, phase: int, group: GroupRate) -> dict[str, float | None]:
        """The first, the highest and the last rate of a group in a phase."""
        first, length = self.curve.starts[phase], self.curve.phases[phase].length
        return {
            "first": self.lr(group, first),
            "peak": self.base(group.lr_scale) * self.curve.peak(phase),
            "last": self.lr(group, first + length - 1) if length else None,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Plan:
        """The plan that ``to_json`` wrote; it gives the same bits."""
        horizon, curve = plain["horizon"], _curve(plain["phases"])
        assert curve is not None
        return cls(
            optimizer=plain["optimizer"],
            base_lr=plain["base_lr"],
            found=None if plain.get("found") is None else tuple(plain["found"]),
            scale=BatchScale(**plain["batch_scale"]),
            horizon=Horizon(**{name: horizon[name] for name in ("steps", "steps_per_epoch", "batch_size", "sources")}),
            curve=curve,
            groups=tuple(GroupRate(**group) for group in plain["groups"]),
            momentum=_curve(plain["momentum"]),
            decay_curve=_curve(plain["weight_decay"]["phases"]),
            base_weight_decay=plain["weight_decay"]["base"],
            plateau=None if plain["plateau"] is None else Plateau(**plain["plateau"]),
            guard=None if plain.get("guard") is None else Guard(**plain["guard"]),
            warnings=tuple(plain["warnings"]),
            notes=tuple(plain.get("notes", ())),
            config=plain["config"],
            tracks=MappingProxyType({name: cls.from_json(track) for name, track in plain.get("tracks", {}).items()}),
            every=plain.get("every", 1),
            offset=plain.get("offset", 0),
        )


def resolve_plan(
    *,
    lr: Any,
    schedule: Schedule,
    horizon: Horizon,
    optimizer: str = "",
    momentum: float | None = None,
    weight_decay: float = 0.0,
    coschedule: Mapping[str, Schedule] | None = None,
    warmup: Schedule | None = None,
    cooldown: Schedule | None = None,
    plateau: Plateau | None = None,
    guard: Guard | None = None,
    scale: BatchScale | None = None,
    groups: Sequence[GroupRate] = (GroupRate("default"),),
    warnings: Sequence[str] = (),
    allow_extreme_lr: bool = False,
    found: tuple[float, float] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Plan:
    """Resolve a run into its plan.

    Args:
        lr: base learning rate, > 0.
        schedule, warmup, cooldown: the parts of the curve.
        horizon: the length of the run.
        optimizer: class path, for remarks on pairs that make no sense.
        momentum: the optimizer's momentum (``betas[0]`` of the Adam family); None where it has none.
        weight_decay: the optimizer's weight decay.
        coschedule: schedules over the whole run for ``momentum`` and ``weight_decay``, as multiples of their values.
        plateau: reduce on plateau, on top of the curve.
        guard: the divergence guard.
        scale: the factor of the batch-size rule.
        groups: names and factors of the parameter groups.
        found: the interval, where the base rate was found by a search.

    Raises:
        ConfigError: where the parts cannot mean what they say.
    """
    check_lr(lr, allow_extreme_lr)
    if isinstance(schedule, HeldUntilPlateau) and plateau is None:
        raise ConfigError("plateau", "must be set with schedule=plateau: use plateau=reduce, or schedule=constant")
    curve = Curve.build(schedule, horizon, warmup=warmup, cooldown=cooldown)
    cycled = schedule.momentum() if isinstance(schedule, OneCycle) else None
    notes = [*warnings]
    if cycled is not None and not momentum:
        notes.append(f"momentum is not cycled: {_short(optimizer) or 'the optimizer'} runs without momentum")
        cycled = None
    driven = _driven(coschedule or {}, horizon, momentum, weight_decay, groups, _short(optimizer) or "the optimizer")
    if cycled is not None and "momentum" in driven:
        raise ConfigError("coschedule.momentum", "and schedule.momentum_start both drive momentum: set one to null")
    beside = driven.get("momentum") if cycled is None else _beside(cycled, horizon, curve)
    scale = scale or BatchScale()
    notes += _remarks(optimizer, lr * scale.factor, schedule, cooldown, curve, scale)
    return Plan(
        optimizer=optimizer,
        base_lr=float(lr),
        scale=scale,
        horizon=horizon,
        curve=curve,
        groups=tuple(groups),
        momentum=beside,
        decay_curve=driven.get("weight_decay"),
        base_weight_decay=weight_decay,
        plateau=plateau,
        guard=None if guard is None else guard.in_steps(horizon),
        found=found,
        warnings=tuple(notes),
        config=config or {},
    )


def check_scaled_lr(plan: Plan) -> None:
    """Refuse a base rate that only the batch-size rule has made extreme."""
    low, high = SANE_LR
    if not low <= plan.base() <= high:
        must = f"must be in [{low:g}, {high:g}] after batch-size scaling; if it is meant, say allow_extreme_lr=true"
        raise ConfigError("optimizer.lr", must, plan.rate_line())


def check_lr(lr: Any, allow_extreme: bool = False) -> None:
    """Refuse what cannot be a base rate, in one line that says what can."""
    key = "optimizer.lr"
    if lr is None:
        raise ConfigError(key, "must be set to a positive number", lr)
    if isinstance(lr, list | tuple):
        raise ConfigError(key, "takes one number, not a list; to sweep: -m optimizer.lr=0.1,0.2", lr)
    if isinstance(lr, bool) or not isinstance(lr, int | float):
        hint = "; drop the quotes" if isinstance(lr, str) and _is_number(lr) else ""
        raise ConfigError(key, f"must be a number{hint}", lr)
    if not is_number(lr) or not math.isfinite(lr) or lr < 0:
        raise ConfigError(key, "must be a finite number > 0", lr)
    if lr == 0:
        raise ConfigError(key, "must be > 0: with 0 nothing would train", lr)
    low, high = SANE_LR
    if not allow_extreme and not low <= lr <= high:
        raise ConfigError(key, f"must be in [{low:g}, {high:g}]; if it is meant, say allow_extreme_lr=true", lr)


def _driven(
    coschedule: Mapping[str, Schedule],
    horizon: Horizon,
    momentum: float | None,
    weight_decay: float,
    groups: Sequence[GroupRate],
    optimizer: str,
) -> dict[str, Curve]:
    """The curves beside the rate: momentum as plain values, weight decay as multiples of each group's own."""
    curves: dict[str, Curve] = {}
    for name, schedule in coschedule.items():
        key = f"coschedule.{name}"
        if name not in ("momentum", "weight_decay"):
            raise ConfigError(key, f"is not a key. {did_you_mean(name, ('momentum', 'weight_decay'))}")
        if isinstance(schedule, HeldUntilPlateau):
            raise ConfigError(f"{key}=plateau", "means nothing: reduce on plateau acts on the learning rate")
        curve = Curve.build(schedule, horizon, name=key)
        if name == "momentum":
            if not momentum:
                raise ConfigError(key, f"needs momentum to drive, and {optimizer} runs without")
            curve = Curve(tuple(dataclasses.replace(phase, scale=momentum) for phase in curve.phases))
            highest = max(curve.peak(i) for i in range(len(curve.phases)))
            if not highest < 1.0:  # nan, too
                raise ConfigError(key, f"must keep momentum below 1; it would reach {highest:g}")
        elif not weight_decay and not any(group.weight_decay for group in groups):
            raise ConfigError(key, f"needs weight decay to drive: optimizer.weight_decay is 0 for {optimizer}")
        curves[name] = curve
    return curves


def _beside(cycled: Schedule, horizon: Horizon, lr: Curve) -> Curve:
    """Momentum's curve laid beside the rate's: held during warmup and cooldown."""
    before = next((p.length for p in lr.phases if p.name == "warmup"), None)
    after = next((p.length for p in lr.phases if p.name == "cooldown"), None)
    curve = Curve.build(
        cycled,
        horizon,
        warmup=Constant(start=1.0, length=before) if before else None,
        cooldown=Constant(length=after) if after else None,
        name="momentum",
    )
    if after:  # a Constant has no start that follows the curve; hold what was reached
        held = dataclasses.replace(curve.phases[-1], schedule=Constant(start=curve.phases[-2].final))
        curve = Curve((*curve.phases[:-1], held))
    return curve


def _remarks(
    optimizer: str, lr: float, schedule: Schedule, cooldown: Schedule | None, curve: Curve, scale: BatchScale
) -> list[str]:
    """One line for each thing that is legal but hardly meant."""
    middle = next(i for i, p in enumerate(curve.phases) if p.name == "schedule")
    decays = curve.phases[-1].final < curve.peak(middle)
    lines = lr_warnings(optimizer, lr, decays) if optimizer else []
    known = traits_of(optimizer) if optimizer else None
    if scale.rule == "linear" and known is not None and known.kind == "adaptive":
        lines.append(f"linear batch-size scaling is a rule for SGD; {_short(optimizer)} is usually scaled by sqrt")
    if curve(0) == 0.0:
        lines.append("step 0 is a no-op: its learning rate is 0")
    for first, phase in zip(curve.starts, curve.phases, strict=True):
        if phase.name == "cooldown" and phase(0) == 0.0:
            lines.append(f"the cooldown does nothing: the rate is 0 when it begins at step {first}")
    highest = max(curve.peak(i) for i in range(len(curve.phases)))
    if highest > 1.0:
        lines.append(f"the rate rises to {highest:g} times the base rate")
    length = curve.phases[middle].length
    edges = None if length is None else curve.phases[middle].schedule.edges(length)
    if isinstance(schedule, Step) and edges == []:
        lines.append(f"the rate never drops: schedule.every ({schedule.every}) is not shorter than the schedule")
    if isinstance(schedule, Multistep) and edges is not None and len(edges) < len(schedule.milestones):
        late = schedule.milestones[len(edges)]
        lines.append(f"milestone {late} is never reached: the schedule has {length} steps after the warmup")
    return lines


def _plain(value: Any) -> Any:
    """A resolved schedule as plain containers, those inside it included."""
    if isinstance(value, Schedule):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"name": type(value).__name__, **fields}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _schedule(plain: Any) -> Any:
    """The schedule that ``_plain`` wrote."""
    if isinstance(plain, list):
        return tuple(_schedule(each) for each in plain)
    if not isinstance(plain, dict):
        return plain
    kind = Schedule.named(plain["name"])
    if kind is None:
        raise ConfigError("resume.path", f"needs the schedule {plain['name']}, which is not loaded", plain["name"])
    return kind(**{name: _schedule(value) for name, value in plain.items() if name != "name"})


def _curve_json(curve: Curve | None) -> list[dict[str, Any]] | None:
    if curve is None:
        return None
    return [
        {"name": p.name, "first_step": first, "steps": p.length, "schedule": _plain(p.schedule), "scale": p.scale}
        for first, p in zip(curve.starts, curve.phases, strict=True)
    ]


def _curve(plain: Sequence[Mapping[str, Any]] | None) -> Curve | None:
    if plain is None:
        return None
    return Curve(tuple(Phase(p["name"], _schedule(p["schedule"]), p["steps"], p["scale"]) for p in plain))


def _short(optimizer: str) -> str:
    return optimizer.rpartition(".")[2]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

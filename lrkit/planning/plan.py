"""The plan: every factor of every learning rate of a run, resolved before the run.

    lr[group, t] = base_lr * batch_scale * group_scale[group] * curve[group, t] * gain(t)

Groups share one curve, except those of a rule with its own schedule, warmup or delay. ``t`` counts applied optimizer
steps. All factors except ``gain`` are pure functions of the step. The plan contains them, is printed as a table, and
is saved as JSON. ``Plan.lr`` computes the product, and the optimizer gets the same number, bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lrkit.base.line_chart import LineChart
from lrkit.planning.batch_scaling import BatchScale
from lrkit.planning.group_curves import GroupCurve
from lrkit.planning.group_rules import rule_of
from lrkit.planning.guard import Guard
from lrkit.planning.plateau import Plateau
from lrkit.planning.weight_decay_rule import COUPLED, WeightDecayRule
from lrkit.schedules.batch_sizes import BatchSizes
from lrkit.schedules.curve import Curve
from lrkit.schedules.curve_json import curve_from_json, curve_to_json
from lrkit.schedules.horizon import Horizon

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GroupRate", "Plan", "horizon_from_json"]

#: The numbers of a horizon; a plan of an older lrkit lacks the last two.
_LENGTHS = ("steps", "steps_per_epoch", "batch_size", "tokens_per_sample", "stop_after")


@dataclass(frozen=True)
class GroupRate:
    """A named parameter group: the factor of its rate, and its own weight decay if it has one."""

    name: str
    lr_scale: float = 1.0
    weight_decay: float | None = None


@dataclass(frozen=True)
class Plan:
    """A resolved run. See ``lrkit.planning.resolve``.

    With several optimizers ``tracks`` has the plan of each (see ``lrkit.planning.optimizer_tracks``), and this plan has
    the common factors: its steps are the batches of the run. A track steps in batches with ``batch_idx % every ==
    offset``. ``group_curves`` has, by the name of a rule, the curves of its groups in place of ``curve`` and
    ``momentum``.

    Args:
        optimizer: class path of the optimizer.
        base_lr: base learning rate, before the factor of the batch size.
        scale: the factor of the batch size, and its rule.
        horizon: the length of the run, in optimizer steps.
        curve: optimizer step -> multiplier of the rate.
        groups: the parameter groups, with the factors of their rates.
        momentum: optimizer step -> momentum, as a plain value; None: constant.
        decay_curve: optimizer step -> multiple of the weight decay; None: constant.
        base_weight_decay: the optimizer's weight decay.
        weight_decay_rule: the rule for the weight decay that the optimizer gets.
        plateau, guard: reduce-on-plateau and the divergence guard; None: without.
        found: the interval of a base rate from a search or a translation.
        warnings: a line for each valid setting that the user probably did not intend.
        config: the config of the run, which a resumed run compares.
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
    weight_decay_rule: WeightDecayRule = COUPLED
    plateau: Plateau | None = None
    guard: Guard | None = None
    found: tuple[float, float] | None = None
    origin: str | None = None  #: the origin of a base rate that was translated from another run's
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  #: notes about the split of the model into groups
    config: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), compare=False, repr=False)
    group_curves: Mapping[str, GroupCurve] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    tracks: Mapping[str, Plan] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    every: int = 1
    offset: int = 0

    def base(self, lr_scale: float = 1.0, step: int = 0) -> float:
        """Return the constant part of a group's rate; with a batch-size schedule, constant in the stage of ``step``."""
        return self.base_lr * self.batch_factor(step) * lr_scale

    def batch_factor(self, step: int) -> float:
        """Return the factor of the batch size at ``step``."""
        sizes = self.horizon.batch_sizes
        return self.scale.factor if sizes is None else self.scale.of_batch(sizes.at(step))

    @property
    def stages(self) -> tuple[int, ...]:
        """The steps at which the batch size changes."""
        return () if self.horizon.batch_sizes is None else self.horizon.batch_sizes.firsts[1:]

    def lr(self, group: GroupRate, step: int, gain: float = 1.0) -> float:
        """Return the learning rate of ``group`` at applied optimizer step ``step``."""
        return self.base(group.lr_scale, step) * self.curve_of(group)(step) * gain

    def curve_of(self, group: GroupRate) -> Curve:
        """Return the curve of a group: its rule's own, or the run's."""
        own = self._own_curves.get(group.name)
        return self.curve if own is None else own.curve

    def momentum_of(self, group: GroupRate) -> Curve | None:
        """Return the momentum of a group, as plain values; None if it is constant."""
        own = self._own_curves.get(group.name)
        return self.momentum if own is None or own.momentum is None else own.momentum

    @cached_property
    def _own_curves(self) -> dict[str, GroupCurve]:
        """The groups with a curve of their own, by name."""
        rules = {group.name: rule_of(group.name, self.group_curves) for group in self.groups}
        return {name: self.group_curves[rule] for name, rule in rules.items() if rule is not None}

    @property
    def main_group(self) -> GroupRate:
        """The group whose rate represents the run in a line: the first with the run's curve, else the first group."""
        return next((group for group in self.groups if group.name not in self._own_curves), self.groups[0])

    def on_curves(self) -> list[tuple[Curve, list[GroupRate]]]:
        """Return each curve with its groups: first the run's curve, then those of rules."""
        followed: list[tuple[Curve, list[GroupRate]]] = []
        for curve in (self.curve, *(own.curve for own in self.group_curves.values())):
            groups = [group for group in self.groups if self.curve_of(group) is curve]
            followed += [(curve, groups)] if groups else []
        return followed

    def weight_decay(self, group: GroupRate, step: int) -> float:
        """Return the weight decay of ``group`` at ``step``: its own or the optimizer's, times the scheduled curve."""
        base = self.handed_weight_decay(group, step)
        return base if self.decay_curve is None else base * self.decay_curve(step)

    def handed_weight_decay(self, group: GroupRate, step: int = 0) -> float:
        """Return the constant part of a group's weight decay, by the weight-decay rule; see ``base``."""
        own = group.weight_decay
        if own is None and self.weight_decay_rule.timescale is None:
            own = self.base_weight_decay
        return self.weight_decay_rule.handed(own, self.base(group.lr_scale, step))

    @property
    def drives_weight_decay(self) -> bool:
        """Whether the plan sets the weight decay of each group; otherwise the optimizer's option does."""
        return self.decay_curve is not None or self.weight_decay_rule != COUPLED

    def hyper(self, step: int) -> dict[str, float]:
        """Return the other scheduled hyper-parameters at ``step``: ``momentum/<group>``, ``weight_decay/<group>``."""
        values: dict[str, float] = {}
        for group in self.groups:
            if (momentum := self.momentum_of(group)) is not None:
                values[f"momentum/{group.name}"] = momentum(step)
        if self.drives_weight_decay:
            values |= {f"weight_decay/{group.name}": self.weight_decay(group, step) for group in self.groups}
        return values

    def with_groups(self, groups: Sequence[GroupRate], notes: Sequence[str] = ()) -> Plan:
        """Return the plan for the parameter groups of a model, with notes about the split."""
        return dataclasses.replace(self, groups=tuple(groups), notes=tuple(notes))

    def with_track_groups(
        self, groups: Mapping[str, Sequence[GroupRate]], notes: Mapping[str, Sequence[str]] | None = None
    ) -> Plan:
        """Return the plan for the parameter groups of each track, with notes about the split."""
        told = notes or {}
        tracks = {name: plan.with_groups(groups[name], told.get(name, ())) for name, plan in self.tracks.items()}
        return dataclasses.replace(self, tracks=MappingProxyType(tracks))

    def on_tracks(self, tracks: Mapping[str, Plan], notes: Sequence[str] = ()) -> Plan:
        """Return the plan of a run with several optimizers, each with its own plan. Its own warnings are removed.

        The losses of adversarial networks are not a measure of divergence, so the guard checks only for values that
        are not finite.
        """
        guard = None if self.guard is None else dataclasses.replace(self.guard, far=None)
        return dataclasses.replace(self, tracks=MappingProxyType(dict(tracks)), guard=guard, warnings=tuple(notes))

    def within(self, steps: int, base_lr: float) -> Plan:
        """Return the plan of a short run at another base rate: all curves within ``steps`` steps, without feedback."""
        short = self.compressed(dataclasses.replace(self.horizon, steps=steps, stop_after=None))
        return dataclasses.replace(short, base_lr=base_lr, plateau=None, guard=None)

    def compressed(self, horizon: Horizon) -> Plan:
        """Return the plan of a run of another length, with all curves of this plan within its steps."""
        steps = horizon.steps
        assert steps is not None
        return dataclasses.replace(
            self,
            horizon=horizon,
            curve=self.curve.within(steps),
            momentum=None if self.momentum is None else self.momentum.within(steps),
            decay_curve=None if self.decay_curve is None else self.decay_curve.within(steps),
            group_curves=self.changed_group_curves(lambda curve: curve.within(steps)),
        )

    def places(self, group: GroupRate) -> list[int]:
        """The steps at which to draw a group's rate: those of its curve, and both sides of each change of the batch."""
        beside = {step for first in self.stages for step in (first - 1, first)}
        return sorted({*self.curve_of(group).places(), *beside})

    def changed_group_curves(self, change: Callable[[Curve], Curve]) -> Mapping[str, GroupCurve]:
        """Return the curves of the rules, each changed."""
        return MappingProxyType({rule: own.changed(change) for rule, own in self.group_curves.items()})

    @property
    def warmup_steps(self) -> int:
        """Optimizer steps of warmup."""
        first = self.curve.phases[0]
        return first.length or 0 if first.name == "warmup" else 0

    def __reduce__(self) -> tuple[Any, ...]:
        """Support ``pickle`` and ``copy``, which refuse the mapping views in some fields."""
        return Plan.from_json, (self.to_json(),)

    def __str__(self) -> str:
        """Return the plan as ``lrkit show`` prints it."""
        from lrkit.planning.render import render_text

        return render_text(self).rstrip()

    def chart(self) -> LineChart:
        """Return the plan as a chart: the learning rate of each group over optimizer steps, without the gain."""
        from lrkit.planning.plan_page import formula_lines

        lines = {}
        for track, own in (self.tracks or {"": self}).items():
            for group in own.groups:
                steps = own.places(group)
                rates = [own.lr(group, step) for step in steps]
                lines[" ".join(filter(None, (track, group.name)))] = (steps, rates)
        return LineChart("\n".join(formula_lines(self)), "optimizer step", "learning rate", lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the learning rates by matplotlib, into ``ax`` or a new figure.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        return self.chart().draw(ax)

    def _repr_html_(self) -> str:
        """Return the plan as HTML for a notebook."""
        return self.chart().html()

    def rate_line(self) -> str:
        """Return the line about the base rate: ``lr 0.4 = 0.1 x 4 (linear: batch 1024 / base 256)``."""
        how = "" if self.found is None else f" ({self.origin or 'found'}: {self.found[0]:g}-{self.found[1]:g})"
        if self.scale.rule == "none":
            return f"lr {self.base_lr:g}{how}"
        if (sizes := self.horizon.batch_sizes) is not None:
            rates = ", ".join(f"{self.base(1.0, first):.6g} from step {first}" for first in sizes.firsts)
            return f"lr {rates} = {self.base_lr:g}{how} x {self.scale.rule}(batch / {self.scale.base})"
        return f"lr {self.base():.6g} = {self.base_lr:g}{how} x {self.scale}"

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain containers: its config, and every resolved factor."""
        return {
            "optimizer": self.optimizer,
            "base_lr": self.base_lr,
            "found": None if self.found is None else list(self.found),
            "origin": self.origin,
            "batch_scale": dataclasses.asdict(self.scale),
            "horizon": {
                **{name: getattr(self.horizon, name) for name in _LENGTHS},
                "sources": dict(self.horizon.sources),
                **({} if self.horizon.batch_sizes is None else {"batch_sizes": self._sizes_to_json()}),
            },
            "groups": [dataclasses.asdict(group) for group in self.groups],
            "phases": self._with_rates(curve_to_json(self.curve), self.curve),
            "group_curves": {
                rule: {**(plain := own.to_json()), "phases": self._with_rates(plain["phases"], own.curve)}
                for rule, own in self.group_curves.items()
            },
            "momentum": curve_to_json(self.momentum),
            "weight_decay": {
                "base": self.base_weight_decay,
                "phases": curve_to_json(self.decay_curve),
                "rule": self.weight_decay_rule.rule,
                "timescale": self.weight_decay_rule.timescale,
            },
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

    def _with_rates(self, phases: list[dict[str, Any]] | None, curve: Curve) -> list[dict[str, Any]]:
        """Return the phases of a curve in JSON, with the rates of its groups."""
        groups = [group for group in self.groups if self.curve_of(group) is curve]
        rated = [{group.name: self.phase_rates(i, group) for group in groups} for i in range(len(curve.phases))]
        return [{**phase, "lr": rates} for phase, rates in zip(phases or [], rated, strict=True)]

    def phase_rates(self, phase: int, group: GroupRate) -> dict[str, float | None]:
        """Return the first, the highest and the last rate of a group in a phase of its curve; None for no last one."""
        curve = self.curve_of(group)
        first, length = curve.starts[phase], curve.phases[phase].length
        peak = self.base(group.lr_scale) * curve.peak(phase)
        if self.stages:
            beside = {step for at in self.stages for step in (at - 1, at)}
            end = math.inf if length is None else first + length
            peak = max(self.lr(group, s) for s in {*curve.peak_places(phase), *beside} if first <= s < end)
        return {
            "first": self.lr(group, first),
            "peak": peak,
            "last": self.lr(group, first + length - 1) if length else None,
        }

    def _sizes_to_json(self) -> dict[str, Any]:
        """The batch sizes in JSON: for each stage its first step, its samples, and its factor of the rate."""
        sizes = self.horizon.batch_sizes
        assert sizes is not None
        stages = [[first, size, self.batch_factor(first)] for first, size in sizes.stages]
        return {"stages": stages, "micro": sizes.micro, "batches": sizes.batches, "by": sizes.by}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Plan:
        """Return the plan from the output of ``to_json``; its rates have the same bits."""
        curve = curve_from_json(plain["phases"])
        assert curve is not None
        return cls(
            optimizer=plain["optimizer"],
            base_lr=plain["base_lr"],
            found=None if plain.get("found") is None else tuple(plain["found"]),
            origin=plain.get("origin"),
            scale=BatchScale(**plain["batch_scale"]),
            horizon=horizon_from_json(plain["horizon"]),
            curve=curve,
            groups=tuple(GroupRate(**group) for group in plain["groups"]),
            momentum=curve_from_json(plain["momentum"]),
            decay_curve=curve_from_json(plain["weight_decay"]["phases"]),
            base_weight_decay=plain["weight_decay"]["base"],
            weight_decay_rule=WeightDecayRule(
                plain["weight_decay"].get("rule", COUPLED.rule), plain["weight_decay"].get("timescale")
            ),
            plateau=None if plain["plateau"] is None else Plateau(**plain["plateau"]),
            guard=None if plain.get("guard") is None else Guard(**plain["guard"]),
            warnings=tuple(plain["warnings"]),
            notes=tuple(plain.get("notes", ())),
            config=plain["config"],
            group_curves=MappingProxyType(
                {rule: GroupCurve.from_json(own) for rule, own in plain.get("group_curves", {}).items()}
            ),
            tracks=MappingProxyType({name: cls.from_json(track) for name, track in plain.get("tracks", {}).items()}),
            every=plain.get("every", 1),
            offset=plain.get("offset", 0),
        )


def horizon_from_json(plain: Mapping[str, Any]) -> Horizon:
    """The horizon of a plan in JSON."""
    sizes = None
    if (said := plain.get("batch_sizes")) is not None:
        stages = tuple((first, size) for first, size, _ in said["stages"])
        sizes = BatchSizes(stages, said["micro"], said["batches"], said["by"])
    lengths: dict[str, Any] = {name: plain.get(name) for name in _LENGTHS}
    return Horizon(sources=plain["sources"], batch_sizes=sizes, **lengths)

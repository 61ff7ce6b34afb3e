"""The plan: every factor of every learning rate of a run, resolved before anything runs.

    lr[group, t] = base_lr * batch_scale * group_scale[group] * curve[group, t] * gain(t)

Groups share one curve, but those of a rule with a schedule, a warmup or a delay of its own. ``t`` counts applied
optimizer steps. All factors but ``gain`` are pure; the plan holds them, prints as a table, saves as JSON, and is the
one place where the product is formed: what it says is what the optimizer gets, bit for bit.
"""

from __future__ import annotations

import dataclasses
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
from lrkit.schedules.curve import Curve
from lrkit.schedules.curve_json import curve_from_json, curve_to_json
from lrkit.schedules.horizon import Horizon

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GroupRate", "Plan"]

#: The numbers of a horizon; a plan of an earlier lrkit lacks the last two.
_LENGTHS = ("steps", "steps_per_epoch", "batch_size", "tokens_per_sample", "stop_after")


@dataclass(frozen=True)
class GroupRate:
    """A named parameter group: the factor of its rate, and its weight decay where that is its own."""

    name: str
    lr_scale: float = 1.0
    weight_decay: float | None = None


@dataclass(frozen=True)
class Plan:
    """A resolved run. See ``lrkit.planning.resolve``.

    With several optimizers ``tracks`` has the plan of each (see ``lrkit.planning.tracks``), and no parameter follows
    this one: it says what all share, and its steps are the batches of the run. ``every`` and ``offset`` are a track's:
    it steps where ``batch_idx % every == offset``. ``group_curves`` has, by the name of the rule that made them, what
    groups follow in place of ``curve`` and ``momentum``.
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

    def base(self, lr_scale: float = 1.0) -> float:
        """The constant part of a group's rate."""
        return self.base_lr * self.scale.factor * lr_scale

    def lr(self, group: GroupRate, step: int, gain: float = 1.0) -> float:
        """The learning rate of ``group`` at applied optimizer step ``step``."""
        return self.base(group.lr_scale) * self.curve_of(group)(step) * gain

    def curve_of(self, group: GroupRate) -> Curve:
        """The curve that a group follows: its rule's own, or the run's."""
        own = self._own_curves.get(group.name)
        return self.curve if own is None else own.curve

    def momentum_of(self, group: GroupRate) -> Curve | None:
        """The momentum of a group, as plain values; None where it does not move."""
        own = self._own_curves.get(group.name)
        return self.momentum if own is None or own.momentum is None else own.momentum

    @cached_property
    def _own_curves(self) -> dict[str, GroupCurve]:
        """The groups with a curve of their own, by name."""
        rules = {group.name: rule_of(group.name, self.group_curves) for group in self.groups}
        return {name: self.group_curves[rule] for name, rule in rules.items() if rule is not None}

    @property
    def main_group(self) -> GroupRate:
        """The group whose rate stands for the run's in a line: the first that follows its curve, else the first."""
        return next((group for group in self.groups if group.name not in self._own_curves), self.groups[0])

    def on_curves(self) -> list[tuple[Curve, list[GroupRate]]]:
        """Each curve that a group follows, with its groups: the run's first, then those of rules."""
        followed: list[tuple[Curve, list[GroupRate]]] = []
        for curve in (self.curve, *(own.curve for own in self.group_curves.values())):
            groups = [group for group in self.groups if self.curve_of(group) is curve]
            followed += [(curve, groups)] if groups else []
        return followed

    def weight_decay(self, group: GroupRate, step: int) -> float:
        """The weight decay of ``group`` at ``step``: its own or the optimizer's, times the curve that drives it."""
        base = self.handed_weight_decay(group)
        return base if self.decay_curve is None else base * self.decay_curve(step)

    def handed_weight_decay(self, group: GroupRate) -> float:
        """The constant part of a group's weight decay, as the optimizer is given it by the rule."""
        own = group.weight_decay
        if own is None and self.weight_decay_rule.timescale is None:
            own = self.base_weight_decay
        return self.weight_decay_rule.handed(own, self.base(group.lr_scale))

    @property
    def drives_weight_decay(self) -> bool:
        """Whether the plan writes the weight decay of each group, and does not leave it to the optimizer's options."""
        return self.decay_curve is not None or self.weight_decay_rule != COUPLED

    def hyper(self, step: int) -> dict[str, float]:
        """The other scheduled hyper-parameters at ``step``, as ``momentum/<group>`` and ``weight_decay/<group>``."""
        values: dict[str, float] = {}
        for group in self.groups:
            if (momentum := self.momentum_of(group)) is not None:
                values[f"momentum/{group.name}"] = momentum(step)
        if self.drives_weight_decay:
            values |= {f"weight_decay/{group.name}": self.weight_decay(group, step) for group in self.groups}
        return values

    def with_groups(self, groups: Sequence[GroupRate], notes: Sequence[str] = ()) -> Plan:
        """The same plan for the parameter groups of a model, with notes about the split."""
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
            horizon=dataclasses.replace(self.horizon, steps=steps, stop_after=None),
            curve=self.curve.within(steps),
            momentum=None if self.momentum is None else self.momentum.within(steps),
            decay_curve=None if self.decay_curve is None else self.decay_curve.within(steps),
            group_curves=self.changed_group_curves(lambda curve: curve.within(steps)),
            plateau=None,
            guard=None,
        )

    def changed_group_curves(self, change: Callable[[Curve], Curve]) -> Mapping[str, GroupCurve]:
        """The curves of rules, each changed."""
        return MappingProxyType({rule: own.changed(change) for rule, own in self.group_curves.items()})

    @property
    def warmup_steps(self) -> int:
        """Optimizer steps of warmup."""
        first = self.curve.phases[0]
        return first.length or 0 if first.name == "warmup" else 0

    def __reduce__(self) -> tuple[Any, ...]:
        """For ``pickle`` and ``copy``: some of the fields are views that neither can take."""
        return Plan.from_json, (self.to_json(),)

    def __str__(self) -> str:
        """The plan as ``lrkit show`` prints it."""
        from lrkit.planning.render import render_text

        return render_text(self).rstrip()

    def chart(self) -> LineChart:
        """The plan as a chart: the learning rate of each group over optimizer steps, without the gain."""
        from lrkit.planning.plan_page import formula_lines

        lines = {}
        for track, own in (self.tracks or {"": self}).items():
            for group in own.groups:
                steps = own.curve_of(group).places()
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
        """The plan as HTML for a notebook."""
        return self.chart().html()

    def rate_line(self) -> str:
        """The sentence about the base rate: ``lr 0.4 = 0.1 x 4 (linear: batch 1024 / base 256)``."""
        how = "" if self.found is None else f" ({self.origin or 'found'}: {self.found[0]:.3g}-{self.found[1]:.3g})"
        if self.scale.rule == "none":
            return f"lr {self.base_lr:g}{how}"
        return f"lr {self.base():.6g} = {self.base_lr:g}{how} x {self.scale}"

    def to_json(self) -> dict[str, Any]:
        """The plan as plain containers: its config, and every resolved factor."""
        return {
            "optimizer": self.optimizer,
            "base_lr": self.base_lr,
            "found": None if self.found is None else list(self.found),
            "origin": self.origin,
            "batch_scale": dataclasses.asdict(self.scale),
            "horizon": {
                **{name: getattr(self.horizon, name) for name in _LENGTHS},
                "sources": dict(self.horizon.sources),
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
        """The phases of a curve in JSON, with the rates of the groups that follow it."""
        groups = [group for group in self.groups if self.curve_of(group) is curve]
        rated = [{group.name: self.phase_rates(i, group) for group in groups} for i in range(len(curve.phases))]
        return [{**phase, "lr": rates} for phase, rates in zip(phases or [], rated, strict=True)]

    def phase_rates(self, phase: int, group: GroupRate) -> dict[str, float | None]:
        """The first, the highest and the last rate of a group in a phase of its curve."""
        curve = self.curve_of(group)
        first, length = curve.starts[phase], curve.phases[phase].length
        return {
            "first": self.lr(group, first),
            "peak": self.base(group.lr_scale) * curve.peak(phase),
            "last": self.lr(group, first + length - 1) if length else None,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Plan:
        """The plan that ``to_json`` wrote; it gives the same bits."""
        horizon, curve = plain["horizon"], curve_from_json(plain["phases"])
        assert curve is not None
        return cls(
            optimizer=plain["optimizer"],
            base_lr=plain["base_lr"],
            found=None if plain.get("found") is None else tuple(plain["found"]),
            origin=plain.get("origin"),
            scale=BatchScale(**plain["batch_scale"]),
            horizon=Horizon(sources=horizon["sources"], **{name: horizon.get(name) for name in _LENGTHS}),
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

"""Going on from a checkpoint, on purpose: the plan in the file is compared with the plan of the command.

Where they are the same, the run goes on as if it had never stopped: same rates, same batches, same random numbers.
Where they differ, nothing is guessed; the run stops, shows the differences, and asks for a policy:

    restore    the old plan goes on
    override   the new plan, at the same place
    extend     the old shape, stretched from here to the new end without a jump; of a run that has ended, which has
               nothing left to stretch, the shape over the whole new length
    cooldown   from here down to ``cooldown.end`` within ``cooldown.length``, then stop
    restart    the new plan from its first step, with the saved weights alone
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.checkpoint import saved_run
from lrkit.checkpoint.resume_differences import (
    model_differences,
    model_refusal,
    normalised,
    plan_differences,
    plan_refusal,
)
from lrkit.checkpoint.state_callback import is_complete, step_with_as_many_samples
from lrkit.config import resume_options
from lrkit.config.find_options import AUTO
from lrkit.lightning.classes import LightningModule
from lrkit.planning.group_curves import GroupCurve
from lrkit.planning.group_rules import curve_parts, without_curves
from lrkit.planning.plan import Plan
from lrkit.planning.weight_decay_rule import COUPLED
from lrkit.schedules.curve import Curve
from lrkit.schedules.durations import Duration
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Constant, Schedule

__all__ = ["Resumption"]


_SHAPING = (
    "optimizer", "schedule", "warmup", "cooldown", "plateau", "coschedule", "batch_scaling", "batch", "param_groups",
    "weight_decay_rule",
    "horizon", "seed", "optimizers",
)  # fmt: skip


@dataclass(frozen=True)
class Resumption:
    """What the node ``resume`` asks for. A run that begins anew has nothing saved, and all of this lets it be.

    Args:
        saved: the checkpoint.
        policy: one of ``resume_options.POLICIES``; None goes on only if nothing differs.
        falling: the shape of the cooldown, under that policy.
    """

    saved: saved_run.SavedRun | None = None
    policy: str | None = None
    falling: Schedule | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], falling: Callable[[], Schedule | None]) -> Resumption:
        """Read the node, and the checkpoint that it names."""
        path, policy = config["resume"]["path"], config["resume"]["policy"]
        resume_options.check(config)
        if path is None:
            return cls()
        resume_options.check_cooldown(config)
        return cls(saved_run.load_saved_run(str(path)), policy, falling() if policy == "cooldown" else None)

    @property
    def goes_on(self) -> saved_run.SavedRun | None:
        """The checkpoint whose step, state and data position are restored; ``restart`` takes the weights alone."""
        return None if self.policy == "restart" else self.saved

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The config to go on with: under ``restore`` and ``cooldown`` what shapes the rate is the checkpoint's."""
        saved = self.saved
        if saved is None:
            return dict(config)
        known = {**config, "monitor": saved.monitor or "auto"} if config["monitor"] == "auto" else {**config}
        if known["optimizer"].get("lr") == AUTO:  # what was found before stands: a resume never searches again
            known |= {"optimizer": {**known["optimizer"], "lr": saved.plan["base_lr"]}}
            known |= {"find": {**known["find"], "interval": saved.plan.get("found")}}
        if self.policy not in ("restore", "cooldown"):
            return known
        old, trainer = saved.config, dict(config["trainer"])
        for name in ("max_epochs", "max_steps", "accumulate_grad_batches"):
            trainer[name] = old["trainer"][name]
        shaping = {name: old[name] for name in _SHAPING if name in old}
        shaping.setdefault("optimizers", {})  # which the config of a run with one does not have
        shaping.setdefault("weight_decay_rule", {})  # nor that of an earlier lrkit this
        stop = config["horizon"].get("stop_after")  # it shapes no rate
        if self.policy == "cooldown" and stop == old["horizon"].get("stop_after"):
            stop = None  # the cooldown ends the run, and begins where the old one had stopped
        shaping["horizon"] = {**old["horizon"], "stop_after": stop}
        data = {**config["data"], "batch_size": old["data"].get("batch_size")}
        if data.get("seed") == config["seed"] and "seed" in old["data"]:  # it follows the seed, which is the old one
            data["seed"] = old["data"]["seed"]
        if self.policy == "cooldown":
            counted = int(saved.content["global_step"])  # by Lightning, also the steps that were left out
            trainer |= {"max_epochs": -1, "max_steps": counted + self._cooldown(saved)[1]}
            # The plan is the old one up to here; only the length of the run is asked of this config.
            shaping |= {
                "schedule": {"_target_": "lrkit.schedules.Constant"},
                "horizon": {**shaping["horizon"], "steps": None},
                "param_groups": without_curves(old["param_groups"]),
            }
            shaping |= {name: {} for name in ("warmup", "cooldown", "plateau", "coschedule")}
        return {**known, **shaping, "data": data, "trainer": trainer}

    def plan(self, new: Plan) -> Plan:
        """The plan to go on with, given the plan of the command; its parameter groups need not be known yet.

        Raises:
            ConfigError: the plans differ and there is no policy, or the policy does not fit.
        """
        saved = self.saved
        if saved is None or self.policy == "restart":
            return new
        old, at = Plan.from_json(saved.plan), step_with_as_many_samples(saved, new)
        if self.policy == "cooldown":
            assert self.falling is not None
            _check_falls(old, at, self.falling)
            falling, steps = self._cooldown(saved)
            return dataclasses.replace(
                _driven(old, lambda curve: curve.until(at)),
                curve=old.curve.then(at, falling, steps),
                group_curves=_falling_groups(old, at, falling, steps),
                horizon=dataclasses.replace(old.horizon, steps=at + steps, stop_after=new.horizon.stop_after),
                config=new.config,
            )
        skipped = 0 if saved.tracks else max(0, int(saved.content["global_step"]) - saved.step)
        if self.policy == "restore":
            if _lengths(old) != _lengths(new):
                had, has = (f"{h.steps} steps of {h.batch_size} samples" for h in (old.horizon, new.horizon))
                must = f"needs a run as long as the old one, {had}; this one has {has}: use override"
                raise ConfigError("resume.policy=restore", must)
            return _unfinished(_stopping(old, new), at, skipped)
        rows = plan_differences(saved.plan, new.to_json(), groups=False)
        if self.policy is None and rows and _same_run(saved.config, new.config):
            # It was stretched, or cooled down, once it was under way: no config says so.
            return _unfinished(_stopping(old, new), at, skipped)
        if self.policy is None and rows:
            raise plan_refusal(saved, rows)
        _check_state(old, new, f"resume.policy={self.policy}")
        if self.policy == "extend":
            new = _extended(saved, old, new, rows)
        return _unfinished(new, at, skipped)

    def check(self, plan: Plan) -> None:
        """The last comparison, when the parameter groups are known."""
        if self.saved is None or self.policy is not None:
            return
        rows = plan_differences(self.saved.plan, plan.to_json())
        if _same_run(self.saved.config, plan.config):  # its curve may have been bent; its groups are the model's
            rows = [row for row in rows if row[0].partition(":")[0] == "groups"]
        if rows:
            raise plan_refusal(self.saved, rows)

    def check_model(self, module: LightningModule) -> None:
        """Refuse a module whose parameters are not those of the checkpoint. Before the fit, where they are there yet.

        Raises:
            ConfigError: with a table of what differs.
        """
        if self.saved is None or not is_complete(module):
            return
        rows = model_differences(self.saved.content["state_dict"], module.state_dict())
        if rows:
            raise model_refusal(self.saved, rows)

    @contextmanager
    def explaining(self, module: LightningModule) -> Iterator[None]:
        """Within it, parameters that do not fit are told so; for modules that make theirs as late as that."""
        try:
            yield
        except RuntimeError as error:
            if self.saved is None or "Error(s) in loading state_dict" not in str(error):
                raise
            rows = model_differences(self.saved.content["state_dict"], module.state_dict())
            if not rows:  # of the right shape, and still no weights: of a layout, or a type, that cannot be copied
                why = " ".join(str(error).split())
                raise ConfigError("resume.path", f"holds weights that cannot be taken: {why}") from error
            raise model_refusal(self.saved, rows) from error

    def _cooldown(self, saved: saved_run.SavedRun) -> tuple[Schedule, int]:
        """The shape of a cooldown from here, in steps, and its length; a share is a share of what is done."""
        assert self.falling is not None
        old = saved.plan["horizon"]
        tokens = old.get("tokens_per_sample")
        done = Horizon(saved.step, old["steps_per_epoch"], old["batch_size"], tokens_per_sample=tokens)
        steps = Duration.parse(self.falling.length, "cooldown.length").steps(done, "cooldown.length")
        try:
            return dataclasses.replace(self.falling, length=None).resolved(done), steps
        except ConfigError as error:
            raise error.under("cooldown") from None


def _same_run(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether two configs ask for the same run, which may stop elsewhere."""
    asked = [
        {
            **{name: config.get(name) for name in (*_SHAPING, "trainer")},
            "weight_decay_rule": config.get("weight_decay_rule") or dataclasses.asdict(COUPLED),
            # A config of an earlier lrkit lacks what null stands for.
            "horizon": {k: v for k, v in config["horizon"].items() if k != "stop_after" and v is not None},
        }
        for config in (old, new)
    ]
    return bool(normalised(asked[0]) == normalised(asked[1]))


def _lengths(plan: Plan) -> tuple[int | None, int | None, int | None]:
    """What of two horizons must be the same for one curve."""
    return plan.horizon.steps, plan.horizon.steps_per_epoch, plan.horizon.batch_size


def _stopping(old: Plan, new: Plan) -> Plan:
    """The old plan, of a run that stops where the new one says."""

    def with_stop(plan: Plan, asked: Plan) -> Plan:
        horizon, config = dataclasses.replace(plan.horizon, stop_after=asked.horizon.stop_after), plan.config
        if "horizon" in config:  # a track has none
            config = {**config, "horizon": {**config["horizon"], "stop_after": asked.config["horizon"]["stop_after"]}}
        return dataclasses.replace(plan, horizon=horizon, config=config)

    tracks = {name: with_stop(track, new.tracks[name]) for name, track in old.tracks.items() if name in new.tracks}
    return dataclasses.replace(with_stop(old, new), tracks=MappingProxyType({**old.tracks, **tracks}))


def _check_state(old: Plan, new: Plan, key: str) -> None:
    """Refuse to go on with the state of one optimizer in another."""
    if list(old.tracks) != list(new.tracks):
        had, has = (" and ".join(plan.tracks) or "one optimizer" for plan in (old, new))
    else:
        pairs = [(old.tracks[name], new.tracks[name]) for name in old.tracks] or [(old, new)]
        changed = [
            (before.optimizer, after.optimizer) for before, after in pairs if before.optimizer != after.optimizer
        ]
        if not changed:
            return
        had, has = (optimizer.rpartition(".")[2] for optimizer in changed[0])
    must = f"has the state of {had}, which {has} cannot load: use resume.policy=restart"
    raise ConfigError(key, must)


def _unfinished(plan: Plan, at: int, skipped: int) -> Plan:
    """The plan, if there is something left of it.

    ``skipped``: steps that were requested and left out, which a stop counts as Lightning does.
    """
    stop = plan.horizon.stop_after
    if stop is not None and at + skipped >= stop:
        where = f"step {at}" if plan.horizon.steps is None else f"step {at} of {plan.horizon.steps}"
        must = f"must be later than {where}, where the run has stopped, or null for the rest of its schedule"
        raise ConfigError("horizon.stop_after", must, stop)
    if plan.horizon.steps is not None and at >= plan.horizon.steps:
        by_steps = plan.horizon.sources.get("steps") == "trainer.max_steps"
        key = "trainer.max_steps (-1: none)" if by_steps else "trainer.max_epochs"
        more = f"for more set a larger {key} and resume.policy=extend"
        raise ConfigError("resume.path", f"holds a run that is done: step {at} of {plan.horizon.steps}; {more}")
    return plan


#: The share of the highest rate so far below which a run trains so little that there is nothing to come down from.
_NOTHING = 1e-3


def _check_falls(old: Plan, at: int, falling: Schedule) -> None:
    """Refuse a cooldown that begins where the rate is practically 0 already, or that would rise."""
    curves = {groups[0].name: (curve, curve(at)) for curve, groups in old.on_curves()}
    if all(here < _NOTHING * max(curve.values(range(max(at, 1)))) or here == 0 for curve, here in curves.values()):
        rate = old.lr(old.main_group, at)
        must = f"must begin above 0, and at step {at} the rate is {rate:.3g}: nothing would be learned on the way down"
        raise ConfigError("resume.policy=cooldown", f"{must}; go on from an earlier checkpoint, or by extend")
    end = falling.ends.get("end") or 0.0
    for name, (_, here) in curves.items():
        if end > here:
            of = "" if len(curves) == 1 else f" of {name}"
            raise ConfigError("cooldown.end", f"must not be above {here:.4g}, where the cooldown{of} begins", end)


def _falling_groups(old: Plan, at: int, falling: Schedule, steps: int) -> Mapping[str, GroupCurve]:
    """The curves of rules, each down from where it is; momentum beside them holds its value."""

    def fall(own: GroupCurve) -> GroupCurve:
        down = falling if own.curve(at) else Constant(start=0.0)  # a shape may begin above 0 alone
        return dataclasses.replace(own.changed(lambda curve: curve.until(at)), curve=own.curve.then(at, down, steps))

    return {rule: fall(own) for rule, own in old.group_curves.items()}


def _extended(saved: saved_run.SavedRun, old: Plan, new: Plan, rows: list[tuple[str, str, str]]) -> Plan:
    """The old shape to a new end: what is left of it stretched, or where nothing is left the shape over all steps."""
    at, key = saved.step, "resume.policy=extend"
    had, has = old.horizon.batch_size, new.horizon.batch_size
    if (step_with_as_many_samples(saved, new), old.base(), had or has) != (at, new.base(), has or had):
        raise ConfigError(key, f"changes the length alone, and {_besides_length(old, new, rows)}: use override")
    # By what was asked for: the curve may have been stretched before, and its shape may have options.
    rules = old.group_curves.keys() | new.group_curves.keys()
    pairs = [(old.curve, new.curve), *((_own_curve(old, rule), _own_curve(new, rule)) for rule in rules)]
    if any(abs(before(at) - after(at)) > 1e-12 for before, after in pairs):
        for part in ("schedule", "warmup", "cooldown", "coschedule", "param_groups"):
            if _shaping(part, saved.config[part]) != _shaping(part, new.config[part]):
                raise ConfigError(key, f"keeps the shape, but the {part} differs: use override")
    end = new.horizon.require("steps", key)
    if at < (old.horizon.steps or math.inf):
        new = _stretched(old, new, at, end)
    if at < end and not any(any(curve.values(range(at, end))) for curve, _ in new.on_curves()):
        raise ConfigError(key, f"would go on at a rate of 0 until step {end}: use override with another schedule")
    return dataclasses.replace(new, warnings=(*new.warnings, _how_extended(old, new, at, end)))


def _own_curve(plan: Plan, rule: str) -> Curve:
    """The curve of the groups of a rule."""
    return plan.group_curves[rule].curve if rule in plan.group_curves else plan.curve


def _shaping(part: str, node: Any) -> Any:
    """What of a group of the config shapes a curve: of parameter groups, the schedules of the rules."""
    return normalised(curve_parts(node) if part == "param_groups" else node)


def _stretched(old: Plan, new: Plan, at: int, end: int) -> Plan:
    """The new plan with each of the old curves to a new end, where the new one would jump."""

    def change(before: Curve, after: Curve) -> Callable[[Curve], Curve] | None:
        if at >= (before.steps or math.inf):  # it holds its last value
            return lambda curve: curve
        return None if abs(before(at) - after(at)) <= 1e-12 else lambda curve: curve.stretched(at, end)

    own = dict(new.group_curves)
    for rule, before in old.group_curves.items():
        if (each := change(before.curve, _own_curve(new, rule))) is not None:
            own[rule] = before.changed(each)
    new = dataclasses.replace(new, group_curves=own)
    if (each := change(old.curve, new.curve)) is None:
        return new
    kept = _driven(old, each)
    return dataclasses.replace(new, curve=each(old.curve), momentum=kept.momentum, decay_curve=kept.decay_curve)


def _how_extended(old: Plan, new: Plan, at: int, end: int) -> str:
    """The rates where an extended run goes on, in a line."""
    group = new.main_group
    before, here, last = old.lr(group, at), new.lr(group, at), new.lr(group, end - 1)
    jump = "" if math.isclose(before, here, rel_tol=1e-9, abs_tol=1e-15) else (
        f"; the run had ended at {before:.4g}: its shape is laid over all {end} steps"
    )  # fmt: skip
    return f"extended from step {at} to step {end}: the rate goes on at {here:.4g} and ends at {last:.4g}{jump}"


_LENGTHS = ("steps", "steps an epoch", "phases", "group curves")  # what differs with the length of a run


def _besides_length(old: Plan, new: Plan, rows: list[tuple[str, str, str]]) -> str:
    """What else differs, in words: for the samples of a step what makes them."""
    made = [plan.horizon.sources.get("batch_size", "?") for plan in (old, new)]
    told = {"samples a step": f" ({made[0]} then, {made[1]} now)"}
    names = [name for name, _, _ in rows if name.partition(":")[0] not in _LENGTHS]
    said = [f"{name}{told.get(name, '')}" for name in dict.fromkeys(names)] or ["the rate"]
    return f"{' and '.join(said)} {'differ' if len(said) > 1 else 'differs'} too"


def _driven(plan: Plan, change: Callable[[Curve], Curve]) -> Plan:
    """The plan with the curves beside the rate changed."""
    momentum, decay = plan.momentum, plan.decay_curve
    return dataclasses.replace(
        plan,
        momentum=None if momentum is None else change(momentum),
        decay_curve=None if decay is None else change(decay),
    )

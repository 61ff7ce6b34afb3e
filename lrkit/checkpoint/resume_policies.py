"""The policies of a resume: they decide between the plan in the checkpoint and the plan of the command.

If the two plans are equal, the run continues as if it had never stopped: the same rates, batches and random numbers.
If they differ, lrkit refuses the run, prints the differences, and asks for a policy:

    restore    the old plan continues
    override   the new plan continues at the same step
    extend     the old shape is stretched to the new end without a jump; for a finished run, the shape over the whole
               new length
    cooldown   the rate falls to ``cooldown.end`` within ``cooldown.length``, then the run ends
    restart    the new plan starts from its first step, with only the weights of the checkpoint
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
from lrkit.checkpoint.converted_step import step_with_as_many_samples
from lrkit.checkpoint.cooled_plan import cooled_plan, with_steady_batch
from lrkit.checkpoint.lrkit_state_callback import is_complete
from lrkit.checkpoint.resume_differences import (
    list_model_differences,
    list_plan_differences,
    make_model_error,
    make_plan_error,
    normalise,
)
from lrkit.config import batch_options, resume_options
from lrkit.config.find_options import AUTO
from lrkit.lightning.imports import LightningModule
from lrkit.planning.group_rules import curve_parts, without_curves
from lrkit.planning.plan import Plan, horizon_from_json
from lrkit.planning.weight_decay_rule import COUPLED
from lrkit.schedules.batch_sizes import BatchSizes
from lrkit.schedules.curve import Curve
from lrkit.schedules.durations import Duration
from lrkit.schedules.shapes import Schedule

__all__ = ["Resumption"]


_SHAPING = (
    "optimizer", "schedule", "warmup", "cooldown", "plateau", "coschedule", "batch_scaling", "batch", "param_groups",
    "weight_decay_rule",
    "horizon", "seed", "optimizers",
)  # fmt: skip


@dataclass(frozen=True)
class Resumption:
    """The node ``resume``. For a new run, ``saved`` is None and the methods change nothing.

    Args:
        saved: the checkpoint.
        policy: one of ``resume_options.POLICIES``; None refuses different plans.
        falling: the shape of the cooldown, for the policy ``cooldown``.
    """

    saved: saved_run.SavedRun | None = None
    policy: str | None = None
    falling: Schedule | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], falling: Callable[[], Schedule | None]) -> Resumption:
        """Read the node and its checkpoint."""
        path, policy = config["resume"]["path"], config["resume"]["policy"]
        resume_options.check(config)
        if path is None:
            return cls()
        resume_options.check_cooldown(config)
        return cls(saved_run.load_saved_run(str(path)), policy, falling() if policy == "cooldown" else None)

    @property
    def goes_on(self) -> saved_run.SavedRun | None:
        """The checkpoint whose step, states and data position are restored; None for the policy ``restart``."""
        return None if self.policy == "restart" else self.saved

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config of the resumed run; for ``restore`` and ``cooldown`` with the rates of the checkpoint."""
        saved = self.saved
        if saved is None:
            return dict(config)
        known = {**config, "monitor": saved.monitor or "auto"} if config["monitor"] == "auto" else {**config}
        if known["optimizer"].get("lr") == AUTO:  # a resume never searches again
            known |= {"optimizer": {**known["optimizer"], "lr": saved.plan["base_lr"]}}
            known |= {"find": {**known["find"], "interval": saved.plan.get("found")}}
        if self.policy not in ("restore", "cooldown"):
            return known
        old, trainer = saved.config, dict(config["trainer"])
        for name in ("max_epochs", "max_steps", "accumulate_grad_batches"):
            trainer[name] = old["trainer"][name]
        shaping = {name: old[name] for name in _SHAPING if name in old}
        shaping.setdefault("optimizers", {})  # missing in the config of a run with one optimizer
        shaping.setdefault("weight_decay_rule", {})  # missing in the config of an earlier lrkit
        stop = config["horizon"].get("stop_after")  # it shapes no rate
        if self.policy == "cooldown" and stop == old["horizon"].get("stop_after"):
            stop = None  # the cooldown starts at that step, and ends the run
        shaping["horizon"] = {**old["horizon"], "stop_after": stop}
        data = {**config["data"], "batch_size": old["data"].get("batch_size")}
        if data.get("seed") == config["seed"] and "seed" in old["data"]:  # it is interpolated
            data["seed"] = old["data"]["seed"]
        if self.policy == "cooldown":
            counted = int(saved.content["global_step"])  # Lightning also counts skipped steps
            trainer |= {"max_epochs": -1, "max_steps": counted + self._resolve_cooldown(saved)[1]}
            # The plan up to here is the old one, so this config gives only the length of the run.
            shaping |= {
                "batch": with_steady_batch(old["batch"], saved),
                "schedule": {"_target_": "lrkit.schedules.Constant"},
                "horizon": {**shaping["horizon"], "steps": None},
                "param_groups": without_curves(old["param_groups"]),
            }
            shaping |= {name: {} for name in ("warmup", "cooldown", "plateau", "coschedule")}
        return {**known, **shaping, "data": data, "trainer": trainer}

    def plan(self, new: Plan) -> Plan:
        """Return the plan of the resumed run.

        Args:
            new: the plan of the command; its parameter groups need not be known yet.

        Raises:
            ConfigError: the plans differ and there is no policy, or the policy cannot be applied.
        """
        saved = self.saved
        if saved is None or self.policy == "restart":
            return new
        old, at = Plan.from_json(saved.plan), step_with_as_many_samples(saved, new)
        if self.policy == "cooldown":
            assert self.falling is not None
            return cooled_plan(old, at, *self._resolve_cooldown(saved), self.falling, new)
        skipped = 0 if saved.tracks else max(0, int(saved.content["global_step"]) - saved.step)
        if self.policy == "restore":
            if _get_lengths(old) != _get_lengths(new):
                had, has = (
                    f"{h.steps} steps of {h.batch_size if h.batch_sizes is None else h.batch_sizes} samples"
                    for h in (old.horizon, new.horizon)
                )
                must = f"needs the length of the old run, {had}; this run has {has}: use override"
                raise ConfigError("resume.policy=restore", must)
            return _check_unfinished(_with_new_stop(old, new), at, skipped)
        rows = list_plan_differences(saved.plan, new.to_json(), groups=False)
        if self.policy is None and rows and _is_same_run(saved.config, new.config):
            # The old plan was extended or cooled down earlier, which no config contains.
            return _check_unfinished(_with_new_stop(old, new), at, skipped)
        if self.policy is None and rows:
            raise make_plan_error(saved, rows)
        _check_state(old, new, f"resume.policy={self.policy}")
        if self.policy == "extend":
            new = _extend_plan(saved, old, new, rows)
        return _check_unfinished(new, at, skipped)

    def check(self, plan: Plan) -> None:
        """Compare the plans again, now that the parameter groups are known."""
        if self.saved is None or self.policy is not None:
            return
        rows = list_plan_differences(self.saved.plan, plan.to_json())
        if _is_same_run(self.saved.config, plan.config):  # an earlier policy may have changed the curve
            rows = [row for row in rows if row[0].partition(":")[0] == "groups"]
        if rows:
            raise make_plan_error(self.saved, rows)

    def check_model(self, module: LightningModule) -> None:
        """Refuse a module whose parameters differ from those of the checkpoint; before the fit, if they exist yet.

        Raises:
            ConfigError: with a table of the differences.
        """
        if self.saved is None or not is_complete(module):
            return
        rows = list_model_differences(self.saved.content["state_dict"], module.state_dict())
        if rows:
            raise make_model_error(self.saved, rows)

    @contextmanager
    def explaining(self, module: LightningModule) -> Iterator[None]:
        """Within this context, report differing parameters of a module that creates them only in the fit."""
        try:
            yield
        except RuntimeError as error:
            if self.saved is None or "Error(s) in loading state_dict" not in str(error):
                raise
            rows = list_model_differences(self.saved.content["state_dict"], module.state_dict())
            if not rows:  # the shapes are equal, but the layout or the type cannot be copied
                why = " ".join(str(error).split())
                raise ConfigError("resume.path", f"contains weights that cannot be loaded: {why}") from error
            raise make_model_error(self.saved, rows) from error

    def _resolve_cooldown(self, saved: saved_run.SavedRun) -> tuple[Schedule, int]:
        """Return the shape of a cooldown, and its length in steps; ``%`` is a share of the completed steps."""
        assert self.falling is not None
        old, sizes = horizon_from_json(saved.plan["horizon"]), None
        if old.batch_sizes is not None:
            sizes = old.batch_sizes.until(saved.step)
        done = dataclasses.replace(old, steps=saved.step, stop_after=None, batch_sizes=sizes).counted_from(saved.step)
        steps = Duration.parse(self.falling.length, "cooldown.length").steps(done, "cooldown.length")
        try:
            return dataclasses.replace(self.falling, length=None).resolved(done), steps
        except ConfigError as error:
            raise error.under("cooldown") from None


def _is_same_run(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether two configs describe the same run, except for its stop."""
    asked = [
        {
            **{name: config.get(name) for name in (*_SHAPING, "trainer")},
            "weight_decay_rule": config.get("weight_decay_rule") or dataclasses.asdict(COUPLED),
            # A config of an earlier lrkit lacks the keys that are null.
            "batch": {"by": batch_options.by(config), **_drop_null(config["batch"])},
            "horizon": _drop_null({**config["horizon"], "stop_after": None}),
        }
        for config in (old, new)
    ]
    return bool(normalise(asked[0]) == normalise(asked[1]))


def _drop_null(node: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if value is not None}


def _get_lengths(plan: Plan) -> tuple[int | None, int | None, int | None, BatchSizes | None]:
    """Return the lengths of a plan on which its curve depends."""
    horizon = plan.horizon
    return horizon.steps, horizon.steps_per_epoch, horizon.batch_size, horizon.batch_sizes


def _with_new_stop(old: Plan, new: Plan) -> Plan:
    """Return the old plan with the stop of the new one."""

    def with_stop(plan: Plan, asked: Plan) -> Plan:
        horizon, config = dataclasses.replace(plan.horizon, stop_after=asked.horizon.stop_after), plan.config
        if "horizon" in config:  # a track has no horizon
            config = {**config, "horizon": {**config["horizon"], "stop_after": asked.config["horizon"]["stop_after"]}}
        return dataclasses.replace(plan, horizon=horizon, config=config)

    tracks = {name: with_stop(track, new.tracks[name]) for name, track in old.tracks.items() if name in new.tracks}
    return dataclasses.replace(with_stop(old, new), tracks=MappingProxyType({**old.tracks, **tracks}))


def _check_state(old: Plan, new: Plan, key: str) -> None:
    """Refuse to load the state of one optimizer into another."""
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


def _check_unfinished(plan: Plan, at: int, skipped: int) -> Plan:
    """Return the plan; refuse a run that is finished, or that stops before this step.

    Args:
        plan: the plan of the resumed run.
        at: the step of the checkpoint.
        skipped: the number of skipped steps, which count for a stop, as in Lightning.
    """
    stop = plan.horizon.stop_after
    if stop is not None and at + skipped >= stop:
        where = f"step {at}" if plan.horizon.steps is None else f"step {at} of {plan.horizon.steps}"
        must = f"must be later than {where}, where the run has stopped, or null for the rest of its schedule"
        raise ConfigError("horizon.stop_after", must, stop)
    if plan.horizon.steps is not None and at >= plan.horizon.steps:
        by_steps = plan.horizon.sources.get("steps") == "trainer.max_steps"
        key = "trainer.max_steps (-1: none)" if by_steps else "trainer.max_epochs"
        more = f"for more steps, set a larger {key} and resume.policy=extend"
        raise ConfigError("resume.path", f"contains a finished run: step {at} of {plan.horizon.steps}; {more}")
    return plan


def _extend_plan(saved: saved_run.SavedRun, old: Plan, new: Plan, rows: list[tuple[str, str, str]]) -> Plan:
    """Return the new plan with the rest of the old shape stretched to its end; the new plan if nothing is left."""
    at, key = saved.step, "resume.policy=extend"
    had, has = (plan.horizon.batch_sizes or plan.horizon.batch_size for plan in (old, new))
    if (step_with_as_many_samples(saved, new), old.base(), had or has) != (at, new.base(), has or had):
        raise ConfigError(
            key, f"changes only the length, and {_describe_other_differences(old, new, rows)}: use override"
        )
    # Compare the configs, because the curve may have been stretched before.
    rules = old.group_curves.keys() | new.group_curves.keys()
    pairs = [(old.curve, new.curve), *((_get_curve(old, rule), _get_curve(new, rule)) for rule in rules)]
    if any(abs(before(at) - after(at)) > 1e-12 for before, after in pairs):
        for part in ("schedule", "warmup", "cooldown", "coschedule", "param_groups"):
            if _select_shaping(part, saved.config[part]) != _select_shaping(part, new.config[part]):
                raise ConfigError(key, f"keeps the shape, but the {part} differs: use override")
    end = new.horizon.require("steps", key)
    if at < (old.horizon.steps or math.inf):
        new = _stretch_curves(old, new, at, end)
    if at < end and not any(any(curve.values(range(at, end))) for curve, _ in new.on_curves()):
        raise ConfigError(key, f"would continue at a rate of 0 until step {end}: use override with another schedule")
    return dataclasses.replace(new, warnings=(*new.warnings, _describe_extension(old, new, at, end)))


def _get_curve(plan: Plan, rule: str) -> Curve:
    """Return the curve of the groups of a rule."""
    return plan.group_curves[rule].curve if rule in plan.group_curves else plan.curve


def _select_shaping(part: str, node: Any) -> Any:
    """Return the part of a config group that shapes a curve: for parameter groups, the schedules of the rules."""
    return normalise(curve_parts(node) if part == "param_groups" else node)


def _stretch_curves(old: Plan, new: Plan, at: int, end: int) -> Plan:
    """Return the new plan with each old curve stretched to the new end, if the new curve would jump."""

    def change(before: Curve, after: Curve) -> Callable[[Curve], Curve] | None:
        if at >= (before.steps or math.inf):  # the curve holds its last value
            return lambda curve: curve
        return None if abs(before(at) - after(at)) <= 1e-12 else lambda curve: curve.stretched(at, end)

    own = dict(new.group_curves)
    for rule, before in old.group_curves.items():
        if (each := change(before.curve, _get_curve(new, rule))) is not None:
            own[rule] = before.changed(each)
    new = dataclasses.replace(new, group_curves=own)
    if (each := change(old.curve, new.curve)) is None:
        return new
    kept = _change_driven(old, each)
    return dataclasses.replace(new, curve=each(old.curve), momentum=kept.momentum, decay_curve=kept.decay_curve)


def _describe_extension(old: Plan, new: Plan, at: int, end: int) -> str:
    """Return a line with the rates of an extended run."""
    group = new.main_group
    before, here, last = old.lr(group, at), new.lr(group, at), new.lr(group, end - 1)
    jump = "" if math.isclose(before, here, rel_tol=1e-9, abs_tol=1e-15) else (
        f"; the run had ended at {before:.4g}, so its shape covers all {end} steps"
    )  # fmt: skip
    return f"extended from step {at} to step {end}: the rate continues at {here:.4g} and ends at {last:.4g}{jump}"


_LENGTHS = ("steps", "steps an epoch", "phases", "group curves")  # parts that depend on the length of a run


def _describe_other_differences(old: Plan, new: Plan, rows: list[tuple[str, str, str]]) -> str:
    """Return the other differences, in words; for the samples of a step, with their factors."""
    made = [plan.horizon.sources.get("batch_size", "?") for plan in (old, new)]
    told = {"samples a step": f" ({made[0]} then, {made[1]} now)"}
    names = [name for name, _, _ in rows if name.partition(":")[0] not in _LENGTHS]
    said = [f"{name}{told.get(name, '')}" for name in dict.fromkeys(names)] or ["the rate"]
    return f"{' and '.join(said)} {'differ' if len(said) > 1 else 'differs'} too"


def _change_driven(plan: Plan, change: Callable[[Curve], Curve]) -> Plan:
    """Return the plan with its momentum and weight-decay curves changed."""
    momentum, decay = plan.momentum, plan.decay_curve
    return dataclasses.replace(
        plan,
        momentum=None if momentum is None else change(momentum),
        decay_curve=None if decay is None else change(decay),
    )

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
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from lrkit.base.errors import ConfigError
from lrkit.checkpoint import saved_run
from lrkit.checkpoint.data_position import DataPosition
from lrkit.checkpoint.differences import _normal, plan_differences
from lrkit.checkpoint.restoring import taking_up
from lrkit.checkpoint.state_schema import check_optimizers
from lrkit.config import resume_options
from lrkit.config.find_options import AUTO
from lrkit.lightning.classes import Callback, LightningModule, ModelCheckpoint, Trainer
from lrkit.lightning.loop_counts import recount
from lrkit.lightning.module import plan_of, schedulers_of, step_of
from lrkit.planning.plan import Plan
from lrkit.schedules.curve import Curve
from lrkit.schedules.durations import Duration
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Schedule

__all__ = [
    "CheckpointState",
    "Resumption",
    "model_differences",
    "model_refusal",
    "plan_refusal",
    "step_with_as_many_samples",
]


def plan_refusal(saved: saved_run.SavedRun, rows: list[tuple[str, str, str]]) -> ConfigError:
    """The error that shows what differs, as a table, and names the policies."""
    names = ", ".join(dict.fromkeys(name for name, _, _ in rows))
    error = ConfigError(
        "resume.policy",
        f"must be set, for the plan differs from that of {saved.path.name}, step {saved.step}, in {names}: restore (go"
        " on with the old plan), override (with the new one at the same place), extend (without a jump to the new end),"
        " cooldown (down from here) or restart (from step 0)",
    )
    error.details = _table(rows)
    return error


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    table = [("", "checkpoint", "command"), *rows]
    widths = [max(len(row[i]) for row in table) for i in (0, 1)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in table)


def model_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Which parameters and buffers differ in being there, or in their shape: name, old, new."""

    def shape(state: Mapping[str, Any], name: str) -> str:
        value = state.get(name, "-")
        return str(tuple(value.shape)) if hasattr(value, "shape") else "-" if name not in state else "there"

    rows = [(name, shape(old, name), shape(new, name)) for name in dict.fromkeys([*old, *new])]
    return [row for row in rows if row[1] != row[2]]


def model_refusal(saved: saved_run.SavedRun, rows: Sequence[tuple[str, str, str]]) -> ConfigError:
    """The error that shows how a model differs from that of a checkpoint."""
    most = 12
    must = f"must have the parameters that {saved.path.name}, step {saved.step}, was saved with; {len(rows)} differ"
    error = ConfigError("model", f"{must}: {', '.join(name for name, _, _ in rows[:3])}{', ...' * (len(rows) > 3)}")
    more = [("...", f"{len(rows) - most} more", "")] if len(rows) > most else []
    error.details = _table([*rows[:most], *more])
    return error


def _is_complete(module: LightningModule) -> bool:
    """Whether a module has all of its parameters already, and takes those of a checkpoint as they are."""
    late = ("configure_model", "setup", "on_load_checkpoint", "load_state_dict")
    lazy = any(
        isinstance(p, UninitializedParameter | UninitializedBuffer) for p in [*module.parameters(), *module.buffers()]
    )
    own = [name for name in late if getattr(type(module), name) is not getattr(LightningModule, name)]
    return module.strict_loading and not lazy and not own


class CheckpointState(Callback):
    """Puts the plan, the step and the position in the data into every checkpoint, and goes on from them.

    Args:
        position: in the training data, with the random numbers.
        saved: the checkpoint that this run goes on from, if any.
        options: names of optimizer options that the new plan decides; None leaves the checkpoint's.
        best: the checkpoint of the best model, whose monitor may have had to be found first.
    """

    def __init__(
        self,
        position: DataPosition,
        saved: saved_run.SavedRun | None = None,
        options: Sequence[str] | None = None,
        best: ModelCheckpoint | None = None,
    ) -> None:
        self.position, self.best = position, best
        self.saved, self.options = saved, options
        self.fresh: list[dict[str, Any]] = []
        self.loaded: dict[str, Any] | None = None  # as Lightning has it until its loops are restored

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.loaded = checkpoint

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loaded, self.loaded = self.loaded, None
        if loaded is not None and self.saved is not None:
            with taking_up("optimizers", self.saved.path):
                check_optimizers(loaded["optimizer_states"], trainer.optimizers)
        if loaded is not None and self.saved is not None and not self.saved.tracks:
            recount(
                loaded,
                self.saved.step,
                step_with_as_many_samples(self.saved, plan_of(trainer)),
                trainer.accumulate_grad_batches,
            )
        # Before the optimizer's state is restored, which brings back the options of the run that wrote it.
        if self.options is not None:
            names = self.options
            self.fresh = [{n: g[n] for n in names if n in g} for o in trainer.optimizers for g in o.param_groups]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        schedulers = schedulers_of(trainer)
        several = bool(schedulers[0].track)
        checkpoint["lrkit"] = {
            # Text, because tensors aside only text is sure to load with weights_only=True in every version.
            "plan": json.dumps(plan_of(trainer).to_json(), default=str),
            "step": step_of(trainer) if several else schedulers[0].applied,
            **({"tracks": {each.track: each.applied for each in schedulers}} if several else {}),
            "monitor": None if self.best is None else self.best.monitor,
            **self.position.state(trainer),
        }
        if not trainer.is_last_batch:
            # Of a run that ends within an epoch Lightning says that the epoch is done, and would never finish it.
            for count in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
                count["processed"] = count["completed"] = max(count["started"] - 1, 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.position.told(trainer)
        if self.saved is None:
            return
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        for group, fresh in zip(groups, self.fresh, strict=False):
            group.update(fresh)
        for scheduler in schedulers_of(trainer):
            at = self.saved.tracks[scheduler.track] if scheduler.track else self.saved.step
            scheduler.applied = step_with_as_many_samples(self.saved, scheduler.plan, at)
            scheduler.write()


_SHAPING = (
    "optimizer", "schedule", "warmup", "cooldown", "plateau", "coschedule", "batch_scaling", "batch", "param_groups",
    "horizon", "seed", "optimizers",
)  # fmt: skip


def step_with_as_many_samples(saved: saved_run.SavedRun, new: Plan, at: int | None = None) -> int:
    """The optimizer step of the new plan at which as many samples have been seen as the checkpoint has.

    Whole epochs are whole epochs, whatever their last batches hold, so that the run and the plan end together.

    ``at``: the step in the old plan, where it is that of one of several optimizers.
    """
    step, batch, before = saved.step if at is None else at, new.horizon.batch_size, saved.plan["horizon"]["batch_size"]
    if batch is None or before is None or batch == before:
        return step
    was, now = saved.plan["horizon"]["steps_per_epoch"], new.horizon.steps_per_epoch
    if saved.tracks or was is None or now is None:
        return round(step * int(before) / batch)
    epochs, more = divmod(step, int(was))
    return epochs * now + min(round(more * int(before) / batch), now - 1)


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
        """The checkpoint whose step, state and data are gone on with; ``restart`` takes the weights alone."""
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
        data = {**config["data"], "batch_size": old["data"].get("batch_size")}
        if data.get("seed") == config["seed"] and "seed" in old["data"]:  # it follows the seed, which is the old one
            data["seed"] = old["data"]["seed"]
        if self.policy == "cooldown":
            counted = int(saved.content["global_step"])  # by Lightning, also the steps that were left out
            trainer |= {"max_epochs": -1, "max_steps": counted + self._cooldown_steps(saved)}
            # The plan is the old one up to here; only the length of the run is asked of this config.
            shaping |= {
                "schedule": {"_target_": "lrkit.schedules.Constant"},
                "horizon": {**old["horizon"], "steps": None},
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
            steps = self._cooldown_steps(saved)
            return dataclasses.replace(
                _driven(old, lambda curve: curve.until(at)),
                curve=old.curve.then(at, dataclasses.replace(self.falling, length=None), steps),
                horizon=dataclasses.replace(old.horizon, steps=at + steps),
                config=new.config,
            )
        if self.policy == "restore":
            if old.horizon != new.horizon:
                had, has = (f"{h.steps} steps of {h.batch_size} samples" for h in (old.horizon, new.horizon))
                must = f"needs a run as long as the old one, {had}; this one has {has}: use override"
                raise ConfigError("resume.policy=restore", must)
            return _unfinished(dataclasses.replace(old, config=saved.config), at)
        rows = plan_differences(saved.plan, new.to_json(), groups=False)
        if self.policy is None and rows and _same_run(saved.config, new.config):
            return _unfinished(old, at)  # it was stretched, or cooled down, once it was under way: no config says so
        if self.policy is None and rows:
            raise plan_refusal(saved, rows)
        _check_state(old, new, f"resume.policy={self.policy}")
        if self.policy == "extend":
            new = _extended(saved, old, new, rows)
        return _unfinished(new, at)

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
        if self.saved is None or not _is_complete(module):
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

    def _cooldown_steps(self, saved: saved_run.SavedRun) -> int:
        """Steps of a cooldown from here; a share is a share of what is done."""
        assert self.falling is not None
        old = saved.plan["horizon"]
        done = Horizon(saved.step, old["steps_per_epoch"], old["batch_size"])
        return Duration.parse(self.falling.length, "cooldown.length").steps(done, "cooldown.length")


def _same_run(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether two configs ask for the same run."""
    names = [*_SHAPING, "trainer"]
    return all(_normal(old.get(name)) == _normal(new.get(name)) for name in names)


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
    must = f"keeps the state of {had}, and {has} has no use for that: use resume.policy=restart"
    raise ConfigError(key, must)


def _unfinished(plan: Plan, at: int) -> Plan:
    """The plan, if there is something left of it."""
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
    here, rate = old.curve(at), old.lr(old.groups[0], at)
    highest = max(old.curve.values(range(max(at, 1))))
    if here < _NOTHING * highest:
        must = f"must begin above 0, and at step {at} the rate is {rate:.3g}: nothing would be learned on the way down"
        raise ConfigError("resume.policy=cooldown", f"{must}; go on from an earlier checkpoint, or by extend")
    if (end := getattr(falling, "end", None) or 0.0) > here:
        raise ConfigError("cooldown.end", f"must not be above {here:.4g}, where the cooldown begins", end)


def _extended(saved: saved_run.SavedRun, old: Plan, new: Plan, rows: list[tuple[str, str, str]]) -> Plan:
    """The old shape to a new end: what is left of it stretched, or where nothing is left the shape over all steps."""
    at, key = saved.step, "resume.policy=extend"
    had, has = old.horizon.batch_size, new.horizon.batch_size
    if (step_with_as_many_samples(saved, new), old.base(), had or has) != (at, new.base(), has or had):
        raise ConfigError(key, f"changes the length alone, and {_besides_length(old, new, rows)}: use override")
    # By what was asked for: the curve may have been stretched before, and its shape may have options.
    if abs(old.curve(at) - new.curve(at)) > 1e-12:
        for part in ("schedule", "warmup", "cooldown", "coschedule"):
            if _normal(saved.config[part]) != _normal(new.config[part]):
                raise ConfigError(key, f"keeps the shape, but the {part} differs: use override")
    end = new.horizon.require("steps", key)
    if at < (old.horizon.steps or math.inf) and at >= (old.curve.steps or math.inf):  # it holds its last value
        new = dataclasses.replace(new, curve=old.curve, momentum=old.momentum, decay_curve=old.decay_curve)
    elif at < (old.horizon.steps or math.inf) and abs(old.curve(at) - new.curve(at)) > 1e-12:
        stretched = _driven(old, lambda curve: curve.stretched(at, end))
        curve = old.curve.stretched(at, end)
        new = dataclasses.replace(new, curve=curve, momentum=stretched.momentum, decay_curve=stretched.decay_curve)
    if at < end and not any(new.curve.values(range(at, end))):
        raise ConfigError(key, f"would go on at a rate of 0 until step {end}: use override with another schedule")
    return dataclasses.replace(new, warnings=(*new.warnings, _how_extended(old, new, at, end)))


def _how_extended(old: Plan, new: Plan, at: int, end: int) -> str:
    """The rates where an extended run goes on, in a line."""
    group = new.groups[0]
    before, here, last = old.lr(group, at), new.lr(group, at), new.lr(group, end - 1)
    jump = "" if math.isclose(before, here, rel_tol=1e-9, abs_tol=1e-15) else (
        f"; the run had ended at {before:.4g}: its shape is laid over all {end} steps"
    )  # fmt: skip
    return f"extended from step {at} to step {end}: the rate goes on at {here:.4g} and ends at {last:.4g}{jump}"


def _besides_length(old: Plan, new: Plan, rows: list[tuple[str, str, str]]) -> str:
    """What else differs, in words: for the samples of a step what makes them."""
    made = [plan.horizon.sources.get("batch_size", "?") for plan in (old, new)]
    told = {"samples a step": f" ({made[0]} then, {made[1]} now)"}
    names = [name for name, _, _ in rows if name not in ("steps", "steps an epoch", "phases")]
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

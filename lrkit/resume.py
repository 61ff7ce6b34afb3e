"""Going on from a checkpoint, on purpose: the plan in the file is compared with the plan of the command.

Where they are the same, the run goes on as if it had never stopped: same rates, same batches, same random numbers.
Where they differ, nothing is guessed; the run stops, shows the differences, and asks for a policy:

    restore    the old plan goes on
    override   the new plan, at the same place
    extend     the old shape, stretched from here to the new end without a jump
    cooldown   from here down to ``cooldown.end`` within ``cooldown.length``, then stop
    restart    the new plan from its first step, with the saved weights alone
"""

from __future__ import annotations

import dataclasses
import json
import random
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lrkit import storage
from lrkit.curve import Curve
from lrkit.durations import Duration
from lrkit.errors import ConfigError, did_you_mean
from lrkit.horizon import Horizon
from lrkit.lightning import Callback, LightningModule, ModelCheckpoint, Trainer
from lrkit.module import plan_of, schedulers_of, step_of
from lrkit.plan import Plan
from lrkit.schedules import Schedule
from lrkit.search import AUTO

__all__ = ["POLICIES", "Memory", "Resumption", "Saved", "differences", "load"]

POLICIES = ("restore", "override", "extend", "cooldown", "restart")


@dataclass(frozen=True)
class Saved:
    """A checkpoint that lrkit wrote.

    Args:
        path: the file.
        plan: the plan that it was trained by, as JSON has it.
        step: applied optimizer steps.
        content: all of the file.
        skipped: which newer files were damaged, and how; empty where none was.
        tracks: of several optimizers the steps that each has applied; ``step`` counts batches then.
    """

    path: Path
    plan: Mapping[str, Any]
    step: int
    content: Mapping[str, Any]
    skipped: str = ""
    tracks: Mapping[str, int] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        """The config that the plan came from."""
        return dict(self.plan["config"])

    @property
    def monitor(self) -> str | None:
        """The metric that "best" meant."""
        return self.content["lrkit"]["monitor"]  # type: ignore[no-any-return]


def load(path: str) -> Saved:
    """Read a checkpoint, or the last one of a run's folder. Nothing in the file is executed.

    Where the last one is damaged, the one before it is read instead, and ``skipped`` says so.

    Raises:
        ConfigError: there is no such file, it is damaged, or lrkit did not write it.
    """
    key, files = "resume.path", storage.candidates(Path(path))
    file, damaged = files[0], []
    if file.is_dir() and not (file.name == storage.LAST and len(files) > 1):
        inside = file / "checkpoints" / storage.LAST
        raise ConfigError(key, f"must be a checkpoint or the folder of a run: there is no {inside}", path)
    if not any(each.exists() for each in files):
        raise ConfigError(key, "must be an existing checkpoint or the folder of a run", path)
    for file in files:
        content, wrong = storage.read(file)
        if not wrong:
            break
        damaged.append(f"{file.name}: {wrong}")
    else:
        raise ConfigError(key, f"cannot be read as a checkpoint ({'; '.join(damaged)})", path)
    if not isinstance(content, dict) or "lrkit" not in content:
        kind = "a Lightning checkpoint" if isinstance(content, dict) and "state_dict" in content else "a checkpoint"
        raise ConfigError(key, f"must be a checkpoint that lrkit wrote; this is {kind} without a plan", path)
    if not content.get("optimizer_states"):
        raise ConfigError(key, "holds weights alone and no optimizer's state: use resume.policy=restart", path)
    try:
        plan, step = json.loads(content["lrkit"]["plan"]), int(content["lrkit"]["step"])
        tracks = {str(name): int(applied) for name, applied in content["lrkit"].get("tracks", {}).items()}
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ConfigError(
            key, "must be a checkpoint that lrkit wrote; this one has no plan that can be read", path
        ) from None
    skipped = f"{damaged[0]}; going on from {file.name}, step {step}" if damaged else ""
    return Saved(file, plan, step, content, skipped, tracks)


#: What makes two plans the same, and where each part is found in their JSON.
_PARTS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "optimizer": lambda plan: plan["optimizer"],
    "optimizer options": lambda plan: _without(plan["config"]["optimizer"], "_target_", "lr"),
    "base rate": lambda plan: plan["base_lr"],
    "batch scale": lambda plan: plan["batch_scale"]["factor"],
    "steps": lambda plan: plan["horizon"]["steps"],
    "steps an epoch": lambda plan: plan["horizon"]["steps_per_epoch"],
    "samples a step": lambda plan: plan["horizon"]["batch_size"],
    "phases": lambda plan: [_phase(phase) for phase in plan["phases"]],
    "groups": lambda plan: [(group["name"], group["lr_scale"], group["weight_decay"]) for group in plan["groups"]],
    "momentum": lambda plan: [_phase(phase) for phase in plan["momentum"] or ()],
    "weight decay": lambda plan: [_phase(phase) for phase in plan["weight_decay"]["phases"] or ()],
    "plateau": lambda plan: plan["plateau"],
    "seed": lambda plan: plan["config"]["seed"],
}


#: What the tracks of a run share, and is compared once.
_SHARED = {"samples a step", "steps", "steps an epoch", "plateau", "seed"}
#: What a track has beside.
_TRACK: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "parameters": lambda plan: plan["config"].get("parameters"),
    "every": lambda plan: plan.get("every", 1),
    "offset": lambda plan: plan.get("offset", 0),
}


def _without(node: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name not in names and value is not None}


def _phase(phase: Mapping[str, Any]) -> str:
    options = ", ".join(f"{k}={v}" for k, v in _without(phase["schedule"], "name", "length").items())
    return f"{phase['name']} {phase['steps']}: {phase['schedule']['name']}({options})"


def differences(old: Mapping[str, Any], new: Mapping[str, Any], *, groups: bool = True) -> list[tuple[str, str, str]]:
    """What differs between two plans in JSON: name, old, new; empty where they drive a run alike.

    Args:
        groups: whether the parameter groups of the new plan are known yet.
    """
    tracks = [old.get("tracks", {}), new.get("tracks", {})]
    if not any(tracks):
        return _rows(old, new, _PARTS if groups else _PARTS.keys() - {"groups"})
    if list(tracks[0]) != list(tracks[1]):  # whose parameters and state one has, another cannot go on with
        return [("optimizers", ", ".join(tracks[0]) or "one", ", ".join(tracks[1]) or "one")]
    rows = _rows(old, new, _SHARED)
    for name in tracks[0]:
        own = _rows(tracks[0][name], tracks[1][name], _PARTS.keys() - _SHARED - ({"groups"} if not groups else set()))
        own += _rows(tracks[0][name], tracks[1][name], _TRACK)
        rows += [(f"{name}: {what}", before, after) for what, before, after in own]
    return rows


def _rows(old: Mapping[str, Any], new: Mapping[str, Any], names: Collection[str]) -> list[tuple[str, str, str]]:
    """What differs in some parts of two plans."""
    rows = []
    for name, part in (_PARTS | _TRACK).items():
        if name not in names:
            continue
        before, after = _normal(part(old)), _normal(part(new))
        if before == after:
            continue
        if isinstance(before, list) and isinstance(after, list):
            pairs = zip_longest(before, after, fillvalue="-")
            rows += [(name, str(b), str(a)) for b, a in pairs if b != a]
        elif isinstance(before, dict) and isinstance(after, dict):
            keys = [k for k in {**before, **after} if before.get(k) != after.get(k)]
            rows += [(f"{name}: {k}", str(before.get(k)), str(after.get(k))) for k in keys]
        else:
            rows.append((name, str(before), str(after)))
    return rows


def _normal(value: Any) -> Any:
    """The value as it comes back from JSON, where tuples are lists."""
    return json.loads(json.dumps(value, default=str))


def refusal(saved: Saved, rows: list[tuple[str, str, str]]) -> ConfigError:
    """The error that shows what differs, as a table, and names the policies."""
    table = [("", "checkpoint", "command"), *rows]
    widths = [max(len(row[i]) for row in table) for i in (0, 1)]
    names = ", ".join(dict.fromkeys(name for name, _, _ in rows))
    error = ConfigError(
        "resume.policy",
        f"must be set, for the plan differs from that of {saved.path.name}, step {saved.step}, in {names}: restore (go"
        " on with the old plan), override (with the new one at the same place), extend (without a jump to the new end),"
        " cooldown (down from here) or restart (from step 0)",
    )
    error.details = "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in table)
    return error


class Memory(Callback):
    """Puts the plan, the step and the random number generators into every checkpoint, and goes on from them.

    Args:
        saved: the checkpoint that this run goes on from, if any.
        options: names of optimizer options that the new plan decides; None leaves the checkpoint's.
        best: the checkpoint of the best model, whose monitor may have had to be found first.
    """

    def __init__(
        self, saved: Saved | None = None, options: Sequence[str] | None = None, best: ModelCheckpoint | None = None
    ) -> None:
        self.best = best
        self.restored = None if saved is None else saved.content["lrkit"]
        self.saved, self.options = saved, options
        self.fresh: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
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
            "rng": _generators(),
            "monitor": None if self.best is None else self.best.monitor,
            "data": _place_in_data(trainer),
            "mid_epoch": not trainer.is_last_batch,
        }
        if not trainer.is_last_batch:
            # Of a run that ends within an epoch Lightning says that the epoch is done, and would never finish it.
            for count in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
                count["processed"] = count["completed"] = max(count["started"] - 1, 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.restored is None or self.saved is None:
            return
        _set_generators(self.restored["rng"])
        self._find_place_in_data(trainer)
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        for group, fresh in zip(groups, self.fresh, strict=False):
            group.update(fresh)
        for scheduler in schedulers_of(trainer):
            at = self.saved.tracks[scheduler.track] if scheduler.track else self.saved.step
            scheduler.applied = place(self.saved, scheduler.plan, at)
            scheduler.write()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Once more just before the first batch: what was drawn to get here (the order of a loader) was drawn before.
        if self.restored is not None and batch_idx > 0:
            _set_generators(self.restored["rng"])
        self.restored = None

    def _find_place_in_data(self, trainer: Trainer) -> None:
        """Lightning does this too, but not where the length of the run was asked for first, as lrkit must."""
        assert self.restored is not None
        loader: Any = trainer.train_dataloader
        place = self.restored["data"]
        if place is not None and hasattr(loader, "load_state_dict"):
            loader.load_state_dict(place)
        elif self.restored["mid_epoch"] and trainer.is_global_zero:
            warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
            warnings.warn(
                f"the checkpoint is from the middle of an epoch, and {type(loader).__name__} cannot go on there:"
                " the rest of the epoch begins with its first batches again",
                stacklevel=2,
            )


def _place_in_data(trainer: Trainer) -> Any:
    loader: Any = trainer.train_dataloader
    return loader.state_dict() if hasattr(loader, "state_dict") else None


def _generators() -> dict[str, Any]:
    version, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    python_version, python_state, python_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(version), [int(k) for k in keys], int(position), int(has_gauss), float(gauss)],
        "python": [python_version, list(python_state), python_gauss],
    }


def _set_generators(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((version, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    python_version, python_state, python_gauss = state["python"]
    random.setstate((python_version, tuple(python_state), python_gauss))


_SHAPING = (
    "optimizer", "schedule", "warmup", "cooldown", "plateau", "coschedule", "batch_scaling", "batch", "param_groups",
    "horizon", "seed", "optimizers",
)  # fmt: skip


def place(saved: Saved, new: Plan, at: int | None = None) -> int:
    """The optimizer step of the new plan at which as many samples have been seen as the checkpoint has.

    ``at``: the step in the old plan, where it is that of one of several optimizers.
    """
    step, batch, before = saved.step if at is None else at, new.horizon.batch_size, saved.plan["horizon"]["batch_size"]
    if batch is None or before is None or batch == before:
        return step
    return round(step * int(before) / batch)


@dataclass(frozen=True)
class Resumption:
    """What the node ``resume`` asks for. A run that begins anew has nothing saved, and all of this lets it be.

    Args:
        saved: the checkpoint.
        policy: one of ``POLICIES``; None goes on only if nothing differs.
        falling: the shape of the cooldown, under that policy.
    """

    saved: Saved | None = None
    policy: str | None = None
    falling: Schedule | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], falling: Callable[[], Schedule | None]) -> Resumption:
        """Read the node, and the checkpoint that it names."""
        path, policy = config["resume"]["path"], config["resume"]["policy"]
        if policy is not None and policy not in POLICIES:
            raise ConfigError("resume.policy", f"is not a policy. {did_you_mean(str(policy), POLICIES)}", policy)
        if path is None:
            if policy is not None:
                raise ConfigError("resume.path", f"must be set with resume.policy={policy}")
            return cls()
        shape = falling() if policy == "cooldown" else None
        if policy == "cooldown" and shape is None:
            raise ConfigError("cooldown", "must be set with resume.policy=cooldown: cooldown=sqrt cooldown.length=100")
        return cls(load(str(path)), policy, shape)

    @property
    def goes_on(self) -> Saved | None:
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
            trainer |= {"max_epochs": -1, "max_steps": saved.step + self._cooldown_steps(saved)}
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
        old, at = Plan.from_json(saved.plan), place(saved, new)
        if self.policy == "cooldown":
            assert self.falling is not None
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
        rows = differences(saved.plan, new.to_json(), groups=False)
        if self.policy is None and rows:
            raise refusal(saved, rows)
        _check_state(old, new, f"resume.policy={self.policy}")
        if self.policy == "extend":
            new = _extended(saved, old, new, rows)
        return _unfinished(new, at)

    def check(self, plan: Plan) -> None:
        """The last comparison, when the parameter groups are known."""
        if self.saved is not None and self.policy is None and (rows := differences(self.saved.plan, plan.to_json())):
            raise refusal(self.saved, rows)

    def _cooldown_steps(self, saved: Saved) -> int:
        """Steps of a cooldown from here; a share is a share of what is done."""
        assert self.falling is not None
        old = saved.plan["horizon"]
        done = Horizon(saved.step, old["steps_per_epoch"], old["batch_size"])
        return Duration.parse(self.falling.length, "cooldown.length").steps(done, "cooldown.length")


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
        more = "for more set a larger trainer.max_epochs and resume.policy=override"
        raise ConfigError("resume.path", f"holds a run that is done: step {at} of {plan.horizon.steps}; {more}")
    return plan


def _extended(saved: Saved, old: Plan, new: Plan, rows: list[tuple[str, str, str]]) -> Plan:
    """The new plan where it meets the old one here; else the old shape, stretched to the new end."""
    at, key = saved.step, "resume.policy=extend"
    if (place(saved, new), old.base()) != (at, new.base()):
        raise ConfigError(key, f"changes the length alone, but {rows[0][0]} differs too: use override")
    if abs(old.curve(at) - new.curve(at)) <= 1e-12:
        return new
    # By what was asked for: the curve may have been stretched before, and its shape may have options.
    for part in ("schedule", "warmup", "cooldown", "coschedule"):
        if _normal(saved.config[part]) != _normal(new.config[part]):
            raise ConfigError(key, f"keeps the shape, but the {part} differs: use override")
    end = new.horizon.require("steps", key)
    stretched = _driven(old, lambda curve: curve.stretched(at, end))
    curve = old.curve.stretched(at, end)
    return dataclasses.replace(new, curve=curve, momentum=stretched.momentum, decay_curve=stretched.decay_curve)


def _driven(plan: Plan, change: Callable[[Curve], Curve]) -> Plan:
    """The plan with the curves beside the rate changed."""
    momentum, decay = plan.momentum, plan.decay_curve
    return dataclasses.replace(
        plan,
        momentum=None if momentum is None else change(momentum),
        decay_curve=None if decay is None else change(decay),
    )

"""What the command does, as ordinary functions: for notebooks and for scripts of plain Lightning. No Hydra.

>>> import lrkit
>>> rate = lrkit.curve("cosine", steps=100, warmup="linear", warmup_length="10%")
>>> rate(10), rate(55)
(1.0, 0.5)
>>> print(lrkit.plan(lr=0.1, schedule="step", steps=90, batch_size=512, batch_scaling="linear").rate_line())
lr 0.2 = 0.1 x 2 (linear: batch 512 / base 256)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lrkit.base import lightning_package
from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.config import optimizer_options
from lrkit.planning import tracks
from lrkit.planning.batch_scaling import batch_scale
from lrkit.planning.group_rules import group_rates
from lrkit.planning.guard import Guard
from lrkit.planning.optimizer_traits import momentum_of
from lrkit.planning.plan import GroupRate, Plan
from lrkit.planning.plateau import Plateau
from lrkit.planning.resolve import resolve_plan
from lrkit.schedules import shapes
from lrkit.schedules.curve import Curve
from lrkit.schedules.durations import Length
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Schedule

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lrkit.lightning.classes import LightningModule, Trainer

    AnyModule = TypeVar("AnyModule", bound=LightningModule)

__all__ = ["configure", "curve", "plan"]

#: The lengths and first values that the shipped options have.
_WARMUP = {"length": "5%", "start": 0.01}
_COOLDOWN = {"length": "20%"}
#: What one of several optimizers may say for itself.
_TRACK = (
    "lr", "optimizer", "options", "schedule", "warmup", "warmup_length", "cooldown", "cooldown_length", "param_groups",
)  # fmt: skip


def curve(
    schedule: Schedule | str = "cosine",
    *,
    steps: int | None,
    steps_per_epoch: int | None = None,
    batch_size: int | None = None,
    warmup: Schedule | str | None = None,
    warmup_length: Length | None = None,
    cooldown: Schedule | str | None = None,
    cooldown_length: Length | None = None,
) -> Curve:
    """The curve ``step -> multiplier`` of a run.

    Args:
        schedule: a schedule, or the name of one, with its defaults.
        steps: optimizer steps of the run; None where that is not known.
        steps_per_epoch, batch_size: what lengths in epochs and in samples need.
        warmup, cooldown: a schedule with a length, or a name such as ``"linear"``.
        warmup_length, cooldown_length: their lengths, where they are named.

    Raises:
        ConfigError: the parts do not fit into the run.
    """
    horizon = Horizon(steps, steps_per_epoch, batch_size)
    before, after = _edge("warmup", warmup, warmup_length), _edge("cooldown", cooldown, cooldown_length)
    return Curve.build(_named(schedule, "schedule"), horizon, warmup=before, cooldown=after)


def plan(
    *,
    lr: float,
    schedule: Schedule | str = "cosine",
    steps: int | None,
    steps_per_epoch: int | None = None,
    batch_size: int | None = None,
    optimizer: str | type[Optimizer] = "torch.optim.AdamW",
    options: Mapping[str, Any] | None = None,
    warmup: Schedule | str | None = None,
    warmup_length: Length | None = None,
    cooldown: Schedule | str | None = None,
    cooldown_length: Length | None = None,
    plateau: Plateau | None = None,
    guard: Guard | str | None = None,
    coschedule: Mapping[str, Schedule | str] | None = None,
    batch_scaling: str = "none",
    base_batch_size: int = 256,
    param_groups: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    optimizers: Mapping[str, Mapping[str, Any]] | None = None,
) -> Plan:
    """The plan of a run: every factor of every rate, resolved.

    Args:
        lr: base learning rate.
        optimizer: class, or class path.
        options: its options but the rate.
        plateau: reduce on plateau, on top of the curve.
        guard: the divergence guard: ``stop``, ``skip``, ``reduce``, or one with other options.
        coschedule: schedules for ``momentum`` and ``weight_decay``.
        batch_scaling: ``none``, ``linear``, ``sqrt`` or ``auto``.
        base_batch_size: the batch for which ``lr`` is right.
        param_groups: rules; ``{"no_decay": True}`` or a list of ``{"name", "pattern", "lr_scale", ...}``.
        optimizers: of a module with several, a track each: ``{"generator": {"every": 5}, "critic": {"lr": 4e-4}}``. It
            may say ``parameters`` (a pattern), ``every``, ``offset``, and the arguments ``lr``, ``optimizer``,
            ``options``, ``schedule``, ``warmup``, ``cooldown``, their lengths, and ``param_groups``; ``steps`` are
            batches then.
        The others as for ``curve``.

    Raises:
        ConfigError: the parts cannot mean what they say.
    """
    if optimizers:  # each by this function, with what it says in place of what was given here
        given = {name: value for name, value in locals().items() if name != "optimizers"}
        return _on_tracks(tracks.parse_tracks(optimizers, _TRACK), given)
    target, options = _path(optimizer), dict(options or {})
    groups = group_rates(param_groups)
    optimizer_options.check({**options, "_target_": target})
    layer_decay = param_groups.get("layer_decay") if isinstance(param_groups, Mapping) else None
    optimizer_options.check_groups(target, groups, layer_decay)
    return resolve_plan(
        lr=lr,
        schedule=_named(schedule, "schedule"),
        horizon=Horizon(steps, steps_per_epoch, batch_size),
        optimizer=target,
        momentum=momentum_of(target, options),
        weight_decay=float(options.get("weight_decay", 0.0)),
        warmup=_edge("warmup", warmup, warmup_length),
        cooldown=_edge("cooldown", cooldown, cooldown_length),
        plateau=plateau,
        guard=_guard(guard),
        coschedule={name: _named(shape, f"coschedule.{name}") for name, shape in (coschedule or {}).items()},
        scale=batch_scale(batch_scaling, base_batch_size, batch_size, target),
        groups=[GroupRate(*rate) for rate in groups],
    )


def _on_tracks(several: Sequence[tracks.Track], run: Mapping[str, Any]) -> Plan:
    """The plan of a run with several optimizers, from the arguments of ``plan``."""
    if getattr(_guard(run["guard"]), "policy", None) in ("skip", "reduce"):
        raise ConfigError("guard", "must be stop, or None, with several optimizers: a spike is told by one loss")
    horizon = Horizon(run["steps"], run["steps_per_epoch"], run["batch_size"])
    plans = {}
    for track in several:
        with track.naming():
            own = tracks.horizon_of(horizon, track.every, track.offset)
            lengths = {name: getattr(own, name) for name in ("steps", "steps_per_epoch", "batch_size")}
            made = plan(**{**_arguments(track, run), **lengths, "guard": None})
        plans[track.name] = dataclasses.replace(made, every=track.every, offset=track.offset)
    return plan(**{**run, "coschedule": None}).on_tracks(plans)


def _arguments(track: tracks.Track, run: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``plan`` for one track; another optimizer does not take the options of the run's."""
    own = {"options": None} if "optimizer" in track.said else {}
    return {**run, **own, **track.said}


def configure(
    module: AnyModule,
    *,
    lr: float,
    optimizer: str | type[Optimizer] = "torch.optim.AdamW",
    options: Mapping[str, Any] | None = None,
    param_groups: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    batch_size: int | None = None,
    steps: int | None = None,
    optimizers: Mapping[str, Mapping[str, Any]] | None = None,
    **parts: Any,
) -> AnyModule:
    """Give a LightningModule its optimizer and its rates; then ``trainer.fit(module)`` as always.

    The length of the run comes from the trainer. ``configure_optimizers`` is replaced, and callbacks that log
    ``lr/<group>``, feed reduce-on-plateau and switch schedule-free optimizers are added to the module's own. Layers, as
    ``layer_decay`` counts them, are told before training, among Lightning's own lines (``INFO``).

    Args:
        module: any LightningModule; it is changed in place and returned.
        batch_size: samples in a batch of one device, where the loader does not say it.
        steps: optimizer steps of the run, where the module takes them itself (manual optimization, or an own
            ``optimizer_step``) and not one after each batch.
        optimizers: of a module with several, a track each, as for ``plan``.
        parts: ``schedule``, ``warmup``, ``cooldown``, ``plateau``, ``guard``, ``coschedule``, ``batch_scaling``, as for
            ``plan``.

    Raises (from ``trainer.fit``):
        Diverged: the guard ended the training.
        RunError: the module takes another step than the plan has.
        ConfigError: what was asked for does not fit the trainer, one of its callbacks, or how often the module steps.

    Warns:
        UserWarning: at the end, that fewer steps were taken than planned, or none that trained anything.
    """
    lightning_package.use_package({"module": type(module)})
    from lrkit.callbacks.accumulation_fix import AccumulationFix
    from lrkit.callbacks.divergence_guard import DivergenceGuard
    from lrkit.callbacks.group_names import GroupNaming
    from lrkit.callbacks.lr_logger import LearningRateLogger
    from lrkit.callbacks.plateau_feedback import PlateauFeedback
    from lrkit.lightning.classes import rank_zero_info
    from lrkit.lightning.evaluation_weights import EvaluationMode
    from lrkit.lightning.module import OptimizerSetup, TrackSetup
    from lrkit.lightning.module import configure as wire
    from lrkit.lightning.step_axis import StepAxisCallback
    from lrkit.lightning.step_count import StepCountCheck
    from lrkit.lightning.track_steps import TrackStepCheck

    target, given = _path(optimizer), dict(options or {})

    def planner(trainer: Trainer) -> Plan:
        if optimizers and trainer.max_steps != -1:
            raise ConfigError("max_steps", "must not be set with several optimizers: Lightning counts the steps of all")
        if optimizers and steps is not None:
            raise ConfigError("steps", "must not be set with several optimizers: every and offset say when each steps")
        facts = _horizon(trainer, batch_size, steps)
        return plan(**run, **facts, **parts, optimizers=optimizers)

    def planned(trainer: Trainer, plan: Plan) -> None:
        for track, own in (plan.tracks or {"": plan}).items():
            for note in own.notes:  # how the model was split, such as its layers: as Lightning tells what it has found
                rank_zero_info(f"{track}: {note}" if track else note)

    run: dict[str, Any] = {"lr": lr, "optimizer": target, "options": given, "param_groups": param_groups}
    several = []
    for track in tracks.parse_tracks(optimizers or {}, _TRACK):
        its = _arguments(track, run)
        several.append(TrackSetup(track, _path(its["optimizer"]), its["options"] or {}, _rules(its["param_groups"])))
    wire(module, OptimizerSetup(planner, planned, target, given, _rules(param_groups), tracks=several))
    own = [
        StepCountCheck(),
        StepAxisCallback(),
        GroupNaming(),
        LearningRateLogger(),
        EvaluationMode(),
        AccumulationFix(),
    ]
    if parts.get("plateau") is not None:
        own.append(PlateauFeedback(parts["plateau"].monitor))
    if optimizers:
        own.append(TrackStepCheck())
    if parts.get("guard") is not None:
        own.append(DivergenceGuard())
    theirs = module.configure_callbacks

    def configure_callbacks() -> list[Any]:
        before = theirs()
        return [*(before if isinstance(before, Sequence) else [before]), *own]

    module.configure_callbacks = configure_callbacks  # type: ignore[method-assign]
    return module


def _rules(param_groups: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> Mapping[str, Any]:
    return param_groups if isinstance(param_groups, Mapping) else {"rules": param_groups}


def _horizon(trainer: Trainer, batch_size: int | None, said: int | None) -> dict[str, Any]:
    """Steps, steps per epoch and samples per step, as the trainer knows them once its data is loaded.

    ``said``: the steps, where the module takes them itself; an epoch has its share of them, where that is a whole one.
    """
    from lrkit.lightning.replicas import count_replicas
    from lrkit.lightning.step_count import uses_manual_optimization

    steps, batches = trainer.estimated_stepping_batches, trainer.num_training_batches
    accumulate, size = trainer.accumulate_grad_batches, batch_size
    if size is None:
        size = getattr(trainer.train_dataloader, "batch_size", None)
    known = None if steps in (float("inf"), -1) else int(steps)
    per_epoch = None if batches == float("inf") else -(-int(batches) // accumulate)
    if said is not None and said != known:
        if known is not None and not uses_manual_optimization(trainer.lightning_module):
            raise ConfigError("steps", f"must be what the run will take, {known} optimizer steps", said)
        each, left = divmod(said, trainer.max_epochs or -1)
        known, per_epoch = said, each if each > 0 and not left else None
    return {
        "steps": known,
        "steps_per_epoch": per_epoch,
        "batch_size": None if size is None else size * count_replicas(trainer) * accumulate,
    }


def _named(shape: Schedule | str, key: str) -> Schedule:
    """A schedule, by its name with its defaults."""
    if isinstance(shape, Schedule):
        return shape
    named = (name for name in shapes.__all__ if name not in ("Schedule", "Endless"))
    known = {_snake(name): getattr(shapes, name) for name in named}
    if shape not in known:
        raise ConfigError(key, f"is not a schedule. {did_you_mean(str(shape), known)}", shape)
    made: Schedule = known[shape]()
    return made


def _edge(name: str, part: Schedule | str | None, length: Length | None) -> Schedule | None:
    """A warmup or cooldown: as given, or by name with the length and first value of the shipped option."""
    if part is None or part == "none":
        return None
    if isinstance(part, Schedule):
        return part
    if part == "exponential":
        made: Schedule = shapes.Exponential(end=1.0 if name == "warmup" else 0.01)
    else:
        made = _named(part, name)
    defaults: dict[str, Any] = dict(_WARMUP if name == "warmup" else _COOLDOWN)
    return dataclasses.replace(made, **{**defaults, **({} if length is None else {"length": length})})


def _guard(guard: Guard | str | None) -> Guard | None:
    """A guard, by its policy with the options of the shipped one."""
    if not isinstance(guard, str):
        return guard
    made = Guard(policy=guard)  # type: ignore[arg-type]
    return dataclasses.replace(made, patience=3) if guard == "reduce" else made


def _path(optimizer: str | type[Optimizer]) -> str:
    if isinstance(optimizer, str):
        return optimizer
    # torch.optim.adamw.AdamW is known to people, and to lrkit, as torch.optim.AdamW.
    module = "torch.optim" if optimizer.__module__.startswith("torch.optim.") else optimizer.__module__
    return f"{module}.{optimizer.__qualname__}"


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))

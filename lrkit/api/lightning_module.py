"""``lrkit.configure``: attaches a plan to the caller's LightningModule, for scripts of plain Lightning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from lrkit.api.arguments import AnyBatchSchedule, AnyGuard, AnyPlateau, AnyRules, AnySchedule, RunParts
from lrkit.base import lightning_package
from lrkit.base.errors import ConfigError
from lrkit.planning.plan import Plan
from lrkit.schedules.durations import Duration, Length
from lrkit.schedules.horizon import Horizon, LoaderSize, horizon_of

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lrkit.lightning.imports import Callback, LightningModule, Trainer

    AnyModule = TypeVar("AnyModule", bound=LightningModule)

__all__ = ["RunLength", "WithPlanCallbacks", "configure"]


def configure(
    module: AnyModule,
    *,
    lr: float,
    schedule: AnySchedule = "cosine",
    optimizer: str | type[Optimizer] = "adamw",
    options: Mapping[str, Any] | None = None,
    warmup: AnySchedule | None = None,
    warmup_length: Length | None = None,
    cooldown: AnySchedule | None = None,
    cooldown_length: Length | None = None,
    plateau: AnyPlateau | None = None,
    guard: AnyGuard | None = None,
    coschedule: Mapping[str, AnySchedule] | None = None,
    batch_scaling: str = "none",
    base_batch_size: int = 256,
    weight_decay_rule: str = "coupled",
    weight_decay_timescale: Length | None = None,
    param_groups: AnyRules | None = None,
    optimizers: Mapping[str, Mapping[str, Any]] | None = None,
    allow_extreme_lr: bool = False,
    batch_size: int | None = None,
    steps: int | None = None,
    stop_after: Length | None = None,
    tokens_per_sample: int | None = None,
    batch_schedule: AnyBatchSchedule | None = None,
) -> AnyModule:
    """Attach an optimizer and its learning rates to a LightningModule, for ``trainer.fit(module)``.

    The length of the run comes from the trainer. lrkit replaces ``configure_optimizers``, and adds callbacks to those
    of the module: they log ``lr/<group>``, pass metrics to reduce-on-plateau, and switch the mode of schedule-free
    optimizers. Before the training, Lightning's logger (``INFO``) lists the layers that ``layer_decay`` found. A second
    call replaces the plan of the first. The arguments that are not listed are those of ``lrkit.plan``.

    Args:
        module: any LightningModule; it is changed in place and returned.
        batch_size: samples in a batch of one device, if the loader has no ``batch_size``.
        steps: optimizer steps of the run, if the module decides when to step (manual optimization, or its own
            ``optimizer_step``) and does not step after each batch; or with ``stop_after``.
        stop_after: a duration after which the run stops: it takes the first part of ``steps``, or of the trainer's
            steps, at their rates. lrkit lowers the trainer's ``max_steps`` to it for the fit.
        tokens_per_sample: tokens in a sample, for lengths in tokens.
        batch_schedule: pairs of a duration and the samples in an optimizer step from there on, for automatic
            optimization: ``[[0, 64], ["50%", 128]]``. lrkit sets the trainer's accumulation for each step.

    Raises:
        ConfigError: at once for errors that do not depend on the trainer: an unknown name or key, a value out of
            range, options that the optimizer refuses. From ``trainer.fit``, before the first step, for conflicts with
            the length of the run, the trainer, one of its callbacks, or the number of steps in a batch.
        Diverged: from ``trainer.fit``: the guard ended the training.
        RunError: from ``trainer.fit``: the module takes a step that the plan does not have.

    Warns:
        UserWarning: at the end: fewer steps were taken than planned, or no parameter was trained.
    """
    parts = RunParts(
        lr=lr,
        schedule=schedule,
        optimizer=optimizer,
        options=options,
        warmup=warmup,
        warmup_length=warmup_length,
        cooldown=cooldown,
        cooldown_length=cooldown_length,
        plateau=plateau,
        guard=guard,
        coschedule=coschedule,
        batch_scaling=batch_scaling,
        base_batch_size=base_batch_size,
        weight_decay_rule=weight_decay_rule,
        weight_decay_timescale=weight_decay_timescale,
        param_groups=param_groups,
        optimizers=optimizers,
        allow_extreme_lr=allow_extreme_lr,
    )
    configure_module(module, parts, RunLength(batch_size, steps, stop_after, tokens_per_sample, batch_schedule))
    return module


@dataclass(frozen=True)
class RunLength:
    """The arguments of ``configure`` for the length of a run, beside the options of the trainer."""

    batch_size: int | None = None
    steps: int | None = None
    stop_after: Length | None = None
    tokens_per_sample: int | None = None
    batch_schedule: AnyBatchSchedule | None = None


def configure_module(module: LightningModule, parts: RunParts, length: RunLength) -> None:
    """Attach a plan to a module.

    Raises:
        ConfigError: an error that does not depend on the trainer.
    """
    lightning_package.use_package({"module": type(module)})
    from lrkit.lightning.imports import LightningModule as Lightning
    from lrkit.lightning.imports import rank_zero_info
    from lrkit.lightning.module import OptimizerSetup, TrackSetup
    from lrkit.lightning.module import configure as attach_optimizers
    from lrkit.optim.factory import check_optimizer

    if not isinstance(module, Lightning):
        raise ConfigError("module", "must be a LightningModule", type(module).__name__)
    if parts.optimizers and length.steps is not None:
        raise ConfigError(
            "steps", "must not be set with several optimizers: every and offset set the batches in which each one steps"
        )
    if length.stop_after is not None:
        Duration.parse(length.stop_after, "stop_after")
    parts.check(length.batch_size, length.tokens_per_sample, length.batch_schedule)

    def planner(trainer: Trainer) -> Plan:
        if parts.optimizers and trainer.max_steps != -1:
            raise ConfigError("max_steps", "must not be set with several optimizers: Lightning counts the steps of all")
        return parts.plan(_read_horizon(trainer, length))

    def print_notes(trainer: Trainer, plan: Plan) -> None:
        for track, own in (plan.tracks or {"": plan}).items():
            for note in own.notes:  # the layers of the model, by the logger of Lightning's own notes
                rank_zero_info(f"{track}: {note}" if track else note)

    several = [TrackSetup(track, *own.target(), own.rules()) for track, own in parts.list_tracks()]
    target, options = parts.target()
    for each in several:
        with each.track.naming():
            check_optimizer(each.target, each.options)
    if not several:
        check_optimizer(target, options)
    attach_optimizers(module, OptimizerSetup(planner, print_notes, target, options, parts.rules(), tracks=several))
    present = vars(module).get("configure_callbacks", module.configure_callbacks)
    original = present.original if isinstance(present, WithPlanCallbacks) else present
    module.configure_callbacks = WithPlanCallbacks(original, _make_callbacks(parts))  # type: ignore[method-assign]


@dataclass(frozen=True)
class WithPlanCallbacks:
    """Replaces a module's ``configure_callbacks``: returns the module's callbacks, and then those of the plan."""

    original: Callable[[], Any]
    added: list[Callback]

    def __call__(self) -> list[Callback]:
        before = self.original()
        return [*(before if isinstance(before, Sequence) else [before]), *self.added]

    def __deepcopy__(self, memo: dict[int, Any]) -> WithPlanCallbacks:
        """Share the callbacks between copies of the module: they may refer to the running trainer."""
        return WithPlanCallbacks(copy.deepcopy(self.original, memo), self.added)


def _make_callbacks(parts: RunParts) -> list[Callback]:
    """Return the callbacks that a plan needs during training."""
    from lrkit.callbacks.divergence_guard import DivergenceGuard
    from lrkit.callbacks.group_names import GroupNaming
    from lrkit.callbacks.incomplete_accumulation import IncompleteAccumulation
    from lrkit.callbacks.lr_logger import LearningRateLogger
    from lrkit.callbacks.plateau_feedback import PlateauFeedback
    from lrkit.lightning.accumulation_windows import AccumulationWindows
    from lrkit.lightning.evaluation_weights import EvaluationMode
    from lrkit.lightning.logged_step_axis import StepAxisCallback
    from lrkit.lightning.planned_stop import PlannedStop
    from lrkit.lightning.step_count_check import StepCountCheck
    from lrkit.lightning.track_step_check import TrackStepCheck

    own: list[Callback] = [
        PlannedStop(),
        StepCountCheck(),
        StepAxisCallback(),
        AccumulationWindows(),
        GroupNaming(),
        LearningRateLogger(),
        EvaluationMode(),
        IncompleteAccumulation(),
    ]
    if (plateau := parts.build_plateau()) is not None:
        own.append(PlateauFeedback(plateau.monitor))
    if parts.optimizers:
        own.append(TrackStepCheck())
    if parts.build_guard() is not None:
        own.append(DivergenceGuard())
    return own


def _read_horizon(trainer: Trainer, length: RunLength) -> Horizon:
    """Return steps, steps per epoch and samples per step, from a trainer that has loaded its data.

    With ``length.steps``, the module decides when to step, and an epoch has an equal part of the steps if that is a
    whole number; or, with ``stop_after``, the trainer takes the first part of these steps.
    """
    from lrkit.lightning.replicas import count_replicas
    from lrkit.lightning.step_count_check import uses_manual_optimization

    if length.batch_schedule is not None:
        return _read_scheduled_horizon(trainer, length)
    steps, batches = trainer.estimated_stepping_batches, trainer.num_training_batches
    accumulate, size, said = trainer.accumulate_grad_batches, length.batch_size, length.steps
    if size is None:
        size = getattr(trainer.train_dataloader, "batch_size", None)
    known = None if steps in (float("inf"), -1) else int(steps)
    per_epoch = None if batches == float("inf") else -(-int(batches) // accumulate)
    taken, sources = known, {}
    if said is not None and said != known:
        sources = {"steps": "steps"}
        if uses_manual_optimization(trainer.lightning_module):
            each, left = divmod(said, trainer.max_epochs or -1)
            taken, per_epoch = None, each if each > 0 and not left else None
        elif known is not None and length.stop_after is None:
            must = f"must be {known}, the number of optimizer steps of the run"
            if said > known:
                must += f"; the first {known} steps of a run of {said} are stop_after={known}"
            raise ConfigError("steps", must, said)
        known = said
    samples = None if size is None else size * count_replicas(trainer) * accumulate
    horizon = Horizon(known, per_epoch, samples, MappingProxyType(sources), length.tokens_per_sample)
    horizon = horizon.stopping(length.stop_after, "stop_after")
    if taken is not None and (horizon.end or 0) > taken:
        must = f"must be at most {taken}, the number of optimizer steps that the trainer takes"
        raise ConfigError("stop_after", must, length.stop_after)
    return horizon


def _read_scheduled_horizon(trainer: Trainer, length: RunLength) -> Horizon:
    """Return the horizon of a run whose batch size changes."""
    from lrkit.lightning.accumulation_windows import count_steps
    from lrkit.lightning.replicas import count_replicas
    from lrkit.lightning.step_count_check import uses_manual_optimization

    key, both = "batch_schedule", "cannot be used together"
    if trainer.accumulate_grad_batches != 1:
        must = f"and {key} {both}: both set the samples in a step"
        raise ConfigError("accumulate_grad_batches", must, trainer.accumulate_grad_batches)
    if uses_manual_optimization(trainer.lightning_module):
        raise ConfigError(key, "needs a module that leaves the optimizer step to Lightning (automatic optimization)")
    trainer.fit_loop.setup_data()
    batches, size = trainer.num_training_batches, length.batch_size
    size = getattr(trainer.train_dataloader, "batch_size", None) if size is None else size
    if size is None:
        raise ConfigError("batch_size", f"must be set with {key}: the loader does not say it")
    horizon = horizon_of(
        LoaderSize(None, size),
        {"max_epochs": trainer.max_epochs, "max_steps": trainer.max_steps},
        world=count_replicas(trainer),
        batches=None if batches == float("inf") else int(batches),
        overrides={"steps": length.steps, "tokens_per_sample": length.tokens_per_sample},
        batch={"schedule": length.batch_schedule},
    ).stopping(length.stop_after, "stop_after")
    taken = count_steps(trainer, horizon)
    if (horizon.end or 0) > taken or (horizon.stop_after is None and horizon.steps not in (None, taken)):
        name = "steps" if length.stop_after is None else "stop_after"
        must = f"must be at most {taken}, the number of optimizer steps that the trainer takes"
        raise ConfigError(name, must, getattr(length, name))
    return horizon

"""A plan inside an existing LightningModule, for scripts of plain Lightning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from lrkit.api.arguments import AnyGuard, AnyPlateau, AnyRules, AnySchedule, RunParts
from lrkit.base import lightning_package
from lrkit.base.errors import ConfigError
from lrkit.planning.plan import Plan
from lrkit.schedules.durations import Duration, Length
from lrkit.schedules.horizon import Horizon

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lrkit.lightning.classes import Callback, LightningModule, Trainer

    AnyModule = TypeVar("AnyModule", bound=LightningModule)

__all__ = ["RunLength", "WithOwnCallbacks", "configure"]


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
) -> AnyModule:
    """Give a LightningModule its optimizer and its rates; then ``trainer.fit(module)`` as always.

    The length of the run comes from the trainer. ``configure_optimizers`` is replaced, and callbacks that log
    ``lr/<group>``, feed reduce-on-plateau and switch schedule-free optimizers are added to the module's own. Layers, as
    ``layer_decay`` counts them, are told before training, among Lightning's own lines (``INFO``). A second call
    replaces what the first one said. The arguments that are not listed are those of ``lrkit.plan``.

    Args:
        module: any LightningModule; it is changed in place and returned.
        batch_size: samples in a batch of one device, where the loader does not say it.
        steps: optimizer steps of the run, where the module takes them itself (manual optimization, or an own
            ``optimizer_step``) and not one after each batch; or with ``stop_after``.
        stop_after: where the run stops early, a duration: it takes the first part of ``steps``, or of the trainer's
            steps, at their rates. The trainer's ``max_steps`` is set for the fit, if it is longer.
        tokens_per_sample: tokens in a sample, for lengths in tokens.

    Raises:
        ConfigError: at once, for all that is wrong whatever the trainer is: a name, a key or a value that does not
            exist, an optimizer that refuses its options. From ``trainer.fit``, before its first step, for what does not
            fit the length of the run, the trainer, one of its callbacks, or how often the module steps.
        Diverged: from ``trainer.fit``: the guard ended the training.
        RunError: from ``trainer.fit``: the module takes another step than the plan has.

    Warns:
        UserWarning: at the end, that fewer steps were taken than planned, or none that trained anything.
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
    configure_module(module, parts, RunLength(batch_size, steps, stop_after, tokens_per_sample))
    return module


@dataclass(frozen=True)
class RunLength:
    """What a caller says of the length of a run that the trainer does not: the arguments of ``configure``."""

    batch_size: int | None = None
    steps: int | None = None
    stop_after: Length | None = None
    tokens_per_sample: int | None = None


def configure_module(module: LightningModule, parts: RunParts, length: RunLength) -> None:
    """Put a plan into a module.

    Raises:
        ConfigError: what is wrong whatever the trainer is.
    """
    lightning_package.use_package({"module": type(module)})
    from lrkit.lightning.classes import LightningModule as Lightning
    from lrkit.lightning.classes import rank_zero_info
    from lrkit.lightning.module import OptimizerSetup, TrackSetup
    from lrkit.lightning.module import configure as set_up
    from lrkit.optim.factory import check_optimizer

    if not isinstance(module, Lightning):
        raise ConfigError("module", "must be a LightningModule", type(module).__name__)
    if parts.optimizers and length.steps is not None:
        raise ConfigError("steps", "must not be set with several optimizers: every and offset say when each steps")
    if length.stop_after is not None:
        Duration.parse(length.stop_after, "stop_after")
    parts.check(length.batch_size, length.tokens_per_sample)

    def planner(trainer: Trainer) -> Plan:
        if parts.optimizers and trainer.max_steps != -1:
            raise ConfigError("max_steps", "must not be set with several optimizers: Lightning counts the steps of all")
        return parts.plan(_read_horizon(trainer, length))

    def planned(trainer: Trainer, plan: Plan) -> None:
        for track, own in (plan.tracks or {"": plan}).items():
            for note in own.notes:  # how the model was split, such as its layers: as Lightning tells what it has found
                rank_zero_info(f"{track}: {note}" if track else note)

    several = [TrackSetup(track, *own.target(), own.rules()) for track, own in parts.each()]
    target, options = parts.target()
    for each in several:
        with each.track.naming():
            check_optimizer(each.target, each.options)
    if not several:
        check_optimizer(target, options)
    set_up(module, OptimizerSetup(planner, planned, target, options, parts.rules(), tracks=several))
    present = vars(module).get("configure_callbacks", module.configure_callbacks)
    theirs = present.theirs if isinstance(present, WithOwnCallbacks) else present
    module.configure_callbacks = WithOwnCallbacks(theirs, _make_callbacks(parts))  # type: ignore[method-assign]


@dataclass(frozen=True)
class WithOwnCallbacks:
    """The module's ``configure_callbacks``, and behind what it returns the callbacks that a plan needs."""

    theirs: Callable[[], Any]
    own: list[Callback]

    def __call__(self) -> list[Callback]:
        before = self.theirs()
        return [*(before if isinstance(before, Sequence) else [before]), *self.own]

    def __deepcopy__(self, memo: dict[int, Any]) -> WithOwnCallbacks:
        """For a copy of the module; the callbacks may hold the run under way, which is not copied with it."""
        return WithOwnCallbacks(copy.deepcopy(self.theirs, memo), self.own)


def _make_callbacks(parts: RunParts) -> list[Callback]:
    """What a plan needs during training."""
    from lrkit.callbacks.accumulation_fix import AccumulationFix
    from lrkit.callbacks.divergence_guard import DivergenceGuard
    from lrkit.callbacks.group_names import GroupNaming
    from lrkit.callbacks.lr_logger import LearningRateLogger
    from lrkit.callbacks.plateau_feedback import PlateauFeedback
    from lrkit.lightning.accumulation_windows import AccumulationWindows
    from lrkit.lightning.evaluation_weights import EvaluationMode
    from lrkit.lightning.planned_stop import PlannedStop
    from lrkit.lightning.step_axis import StepAxisCallback
    from lrkit.lightning.step_count import StepCountCheck
    from lrkit.lightning.track_steps import TrackStepCheck

    own: list[Callback] = [
        PlannedStop(),
        StepCountCheck(),
        StepAxisCallback(),
        AccumulationWindows(),
        GroupNaming(),
        LearningRateLogger(),
        EvaluationMode(),
        AccumulationFix(),
    ]
    if (plateau := parts.listened()) is not None:
        own.append(PlateauFeedback(plateau.monitor))
    if parts.optimizers:
        own.append(TrackStepCheck())
    if parts.guarded() is not None:
        own.append(DivergenceGuard())
    return own


def _read_horizon(trainer: Trainer, length: RunLength) -> Horizon:
    """Steps, steps per epoch and samples per step, as the trainer knows them once its data is loaded.

    ``length.steps``: the steps, where the module takes them itself, and an epoch has its share of them, where that is a
    whole one; or the steps of which the trainer takes the first part.
    """
    from lrkit.lightning.replicas import count_replicas
    from lrkit.lightning.step_count import uses_manual_optimization

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

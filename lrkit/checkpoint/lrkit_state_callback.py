"""The callback that saves and restores lrkit's own state: the plan, the step, random numbers, the data position."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from lrkit.checkpoint import saved_run
from lrkit.checkpoint.checkpoint_schema import check_optimizers
from lrkit.checkpoint.converted_step import step_with_as_many_samples
from lrkit.checkpoint.data_position import DataPosition
from lrkit.checkpoint.restore_errors import explain_restore_errors
from lrkit.lightning.imports import Callback, LightningModule, ModelCheckpoint, Trainer
from lrkit.lightning.module import plan_of, schedulers_of, step_of
from lrkit.lightning.resumed_loop_counts import recount

__all__ = ["CheckpointState", "is_complete"]


def is_complete(module: LightningModule) -> bool:
    """Return whether a module already has all of its parameters, and loads those of a checkpoint unchanged."""
    late = ("configure_model", "setup", "on_load_checkpoint", "load_state_dict")
    lazy = any(
        isinstance(p, UninitializedParameter | UninitializedBuffer) for p in [*module.parameters(), *module.buffers()]
    )
    own = [name for name in late if getattr(type(module), name) is not getattr(LightningModule, name)]
    return module.strict_loading and not lazy and not own


class CheckpointState(Callback):
    """Saves the plan, the step and the position in the data in each checkpoint, and restores them in a resumed run.

    Args:
        position: the position in the training data, and the random numbers.
        saved: the checkpoint that this run resumes, if any.
        options: the optimizer options that the new plan sets; None keeps the options of the checkpoint.
        best: the callback that saves the best checkpoint; its monitor is saved too.
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
        self.loaded: dict[str, Any] | None = None  # Lightning's checkpoint, until the loops are restored

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.loaded = checkpoint

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loaded, self.loaded = self.loaded, None
        if loaded is not None and self.saved is not None:
            with explain_restore_errors("optimizers", self.saved.path):
                check_optimizers(loaded["optimizer_states"], trainer.optimizers)
        if loaded is not None and self.saved is not None and not self.saved.tracks:
            at = step_with_as_many_samples(self.saved, plan_of(trainer))
            recount(loaded, self.saved.step, at, _count_batches(trainer, at))
        # The restored state of the optimizer will overwrite these options by those of the earlier run.
        if self.options is not None:
            names = self.options
            self.fresh = [{n: g[n] for n in names if n in g} for o in trainer.optimizers for g in o.param_groups]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        schedulers = schedulers_of(trainer)
        several = bool(schedulers[0].track)
        checkpoint["lrkit"] = {
            # JSON: beside tensors, only text loads with weights_only=True in every version of torch.
            "plan": json.dumps(plan_of(trainer).to_json(), default=str),
            "step": step_of(trainer) if several else schedulers[0].applied,
            **({"tracks": {each.track: each.applied for each in schedulers}} if several else {}),
            "monitor": None if self.best is None else self.best.monitor,
            **self.position.state(trainer),
        }
        if not trainer.is_last_batch:
            # Lightning counts an epoch that a run ends early as completed, and would not finish it in a resumed run.
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


def _count_batches(trainer: Trainer, step: int) -> int:
    """Return the number of batches that Lightning has after ``step`` steps of the trainer's plan."""
    sizes = plan_of(trainer).horizon.batch_sizes
    if sizes is None:
        return step * trainer.accumulate_grad_batches
    return sizes.batches_at(step) if sizes.by == "accumulation" and sizes.batches and sizes.micro else step

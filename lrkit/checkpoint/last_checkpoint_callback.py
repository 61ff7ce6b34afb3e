"""The checkpoint of a run's last state: at the end of each epoch, and at a planned stop within one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrkit.callbacks.results_writer import ResultsWriter
from lrkit.checkpoint.durable_io import FixedNameCheckpoint
from lrkit.checkpoint.untrusted_file import load_untrusted
from lrkit.lightning.callback_list import CallbackList
from lrkit.lightning.imports import LightningModule, Trainer
from lrkit.lightning.module import plan_of
from lrkit.lightning.planned_stop import has_reached_stop
from lrkit.lightning.preemption import validation_follows
from lrkit.planning.plan import Plan

__all__ = ["LastCheckpoint"]


class LastCheckpoint(FixedNameCheckpoint):
    """Saves at the end of each epoch; where ``horizon.stop_after`` ends a run within an epoch, right after that step.

    There Lightning validates, and calls the hooks of an epoch's end, because the run stops. A run without the stop does
    neither: a run that is resumed from this checkpoint must not see what they changed.
    """

    stops: Plan | None = None  # the plan of a run that stops early
    saved_at_stop = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        plan = plan_of(trainer)
        self.stops, self.saved_at_stop = None if plan.horizon.stop_after is None else plan, False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.stops is not None and not validation_follows(trainer):
            self._save_at_stop(trainer, self.stops)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.stops is not None and not trainer.sanity_checking and validation_follows(trainer):
            self._save_at_stop(trainer, self.stops)
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.saved_at_stop:
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if self.saved_at_stop and trainer.is_global_zero and self._file.is_file():
            self._add_best(trainer)

    @property
    def _file(self) -> Path:
        return Path(self.dirpath or "", f"{self.filename}.ckpt")

    def _add_best(self, trainer: Trainer) -> None:
        """Put into the file which validation was the best, if that was the one at the stop, whose weights were kept.

        A resumed run that knew less would let ``best.ckpt`` stand for another validation.
        """
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        own = next((each for each in callbacks if isinstance(each, CallbackList)), None)
        writers = [part for part in own.parts if isinstance(part, ResultsWriter)] if own is not None else []
        if own is None or not writers:
            return
        content, (results,) = load_untrusted(self._file), writers
        states = content["callbacks"]
        if states[own.state_key][results.state_key]["best_step"] == results.best_step:
            return
        states[own.state_key][results.state_key] = results.state_dict()
        for each in callbacks:
            if isinstance(each, FixedNameCheckpoint) and each is not self:
                states[each.state_key] = each.state_dict()
        trainer.strategy.checkpoint_io.save_checkpoint(content, self._file)

    def _save_at_stop(self, trainer: Trainer, plan: Plan) -> None:
        if not trainer.is_last_batch and has_reached_stop(trainer, plan):
            self.saved_at_stop = True
            trainer.save_checkpoint(self._file)

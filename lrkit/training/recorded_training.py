"""A run whose steps were taken by a stack: Lightning's loop over epochs, with recorded losses in place of batches.

The member of a stack has no trainer while it trains. Afterwards its run is the usual one, with the usual callbacks,
loggers and checkpoints; only the loop over the batches of an epoch is replaced. It calls the hooks that record or log
something, with the loss, the metrics and the weights of the member at that step. So a member leaves the files of a
separate run, and a resumed member goes on from its own checkpoint.
"""

from __future__ import annotations

import signal
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from lrkit.base.errors import RunError
from lrkit.callbacks.divergence_guard import DivergenceGuard
from lrkit.callbacks.loss_recorder import LossRecorder
from lrkit.callbacks.lr_logger import LearningRateLogger
from lrkit.callbacks.monitored_metric import MetricNameCheck
from lrkit.callbacks.train_loss import TrainLossLogger
from lrkit.checkpoint.last_checkpoint_callback import LastCheckpoint
from lrkit.lightning.callback_list import CallbackList
from lrkit.lightning.imports import ModelCheckpoint, Trainer
from lrkit.lightning.logged_step_axis import StepAxisCallback
from lrkit.lightning.module import plan_of, scheduler_of
from lrkit.planning.plan import Plan
from lrkit.stacking.stacked_training import INTERRUPTED, MemberState, Record, Validation
from lrkit.training.callbacks import RunCallbacks

__all__ = ["RecordedTraining"]


class RecordedTraining:
    """The record of a member, in the place of the batches of its run.

    Args:
        record: what the member did.
        plan: the plan that it followed; the plan of the run must be the same.
        seconds: the duration of its training: its share of that of the stack.
        signum: the signal that ended the stack, if the record says that it was interrupted.
    """

    def __init__(self, record: Record, plan: Plan, seconds: float, signum: int = signal.SIGTERM) -> None:
        self.record, self.plan, self.seconds, self.signum = record, plan, seconds, signum
        self.step = 0
        self.batches: dict[int, Tensor] = {}
        self.validations = {validation.step: validation for validation in record.validations}

    def install(self, trainer: Trainer, callbacks: RunCallbacks) -> None:
        """Replace the loop over the batches of an epoch of a trainer, before its fit."""
        self.trainer, self.callbacks = trainer, callbacks
        own = next(each for each in callbacks.for_trainer if isinstance(each, CallbackList))
        self.own, self.parts = own, {type(part): part for part in own.parts}
        savers = [each for each in callbacks.for_trainer if isinstance(each, ModelCheckpoint)]
        self.last: Any = next((each for each in savers if isinstance(each, LastCheckpoint)), None)
        self.best: Any = next((each for each in savers if not isinstance(each, LastCheckpoint)), None)
        loop: Any = trainer.fit_loop.epoch_loop
        loop.run = self._run_epoch

    @property
    def _is_over(self) -> bool:
        return self.step == len(self.record.losses)

    def _run_epoch(self, data_fetcher: Any) -> None:
        """Replace the batches of an epoch, with the hooks and counts of Lightning's loop."""
        trainer, loop = self.trainer, self.trainer.fit_loop.epoch_loop
        if self.step == 0:
            self._begin()
        loop.reset()
        loop.on_run_start(data_fetcher)
        batches = int(trainer.num_training_batches)
        for number in range(batches):
            if self._is_over:
                self._diverge()
            self._take_step(number, is_last=number == batches - 1)
            if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
                break
        self._decide_on_checkpoints()

    def _begin(self) -> None:
        """Compare the plans before the first step."""
        if (plan := plan_of(self.trainer)) != self.plan:
            raise RunError(f"the stack followed another plan than this run has: {self.plan} and {plan}")
        results = self.callbacks.results
        if results.begun is not None:
            results.begun -= self.seconds

    def _take_step(self, number: int, is_last: bool) -> None:
        """Replace one batch, its optimizer step, and the validation that follows it."""
        trainer, module, loop = self.trainer, self.trainer.lightning_module, self.trainer.fit_loop.epoch_loop
        scheduler, progress = scheduler_of(trainer), loop.batch_progress
        progress.increment_ready()
        progress.increment_started()
        progress.is_last_batch = is_last
        self.parts[StepAxisCallback].on_train_batch_start(trainer, module, None, number)
        for kind in (StepAxisCallback, LearningRateLogger):
            self.parts[kind].on_before_optimizer_step(trainer, module, trainer.optimizers[0])
        loss = self.record.losses[self.step]
        self._guard.check_step(loss, 0.0)
        self._count_optimizer_step(loop)
        scheduler.steps.add()
        self.step += 1
        progress.increment_processed()
        loader: Any = trainer.train_dataloader
        loader.pass_batches(number + 1)
        batch = self._empty_batch(self.record.samples[self.step - 1])
        outputs = {"loss": torch.tensor(loss)}
        self.own.on_train_batch_end(trainer, module, outputs, batch, number)
        progress.increment_completed()
        if (validation := self.validations.get(self.step)) is not None:
            self._validate(validation)
        loop._batches_that_stepped = self.step
        if self._is_over and self.record.ended == INTERRUPTED:
            self._interrupt(number)

    def _empty_batch(self, samples: int) -> Tensor:
        """Return a batch with a number of samples and nothing in them, of which the hooks read the size."""
        if samples not in self.batches:
            self.batches[samples] = torch.empty(samples, 0)
        return self.batches[samples]

    def _count_optimizer_step(self, loop: Any) -> None:
        steps = self.callbacks.steps
        steps.requested += 1
        steps.with_gradient = True
        optimizer = loop.automatic_optimization.optim_progress.optimizer
        for count in (optimizer.step, optimizer.zero_grad, loop.scheduler_progress):
            count.increment_ready()
            if count is optimizer.zero_grad:
                count.increment_started()
            count.increment_completed()

    @property
    def _guard(self) -> DivergenceGuard:
        guard = self.parts[DivergenceGuard]
        assert isinstance(guard, DivergenceGuard)
        return guard

    def _validate(self, validation: Validation) -> None:
        """Replace a validation: log its metrics, and save the best checkpoint if it was the best."""
        trainer, module = self.trainer, self.trainer.lightning_module
        self.parts[TrainLossLogger].on_validation_start(trainer, module)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in validation.metrics.items()})
        count = len(trainer.val_dataloaders or ())
        counts = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        counts.reset_on_run()
        counts.increment_by(min(count, int(sum(trainer.num_val_batches))), is_last_batch=True)
        values = {**validation.metrics, "epoch": float(trainer.current_epoch)}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=self.step - 1)
            logger.save()
        for part in (self.parts[LossRecorder], self.parts[MetricNameCheck], self.callbacks.results):
            part.on_validation_end(trainer, module)
        best = self.record.best
        if self.best is not None and best is not None and best.step == self.step:
            self._load(best)
            self.best.on_validation_end(trainer, module)

    def _load(self, state: MemberState) -> None:
        """Give the module and the optimizer the state of the member."""
        optimizer, network = self.trainer.optimizers[0], self.trainer.lightning_module.model
        assert isinstance(network, Module)
        network.load_state_dict(dict(state.network))
        for name, parameter in network.named_parameters():
            own: dict[str, Tensor] = {key: value.to(parameter) for key, value in state.optimizer.get(name, {}).items()}
            if state.counts_steps:
                own["step"] = torch.tensor(float(state.step))
            optimizer.state[parameter] = own
        scheduler_of(self.trainer).write()

    def _decide_on_checkpoints(self) -> None:
        """At the end of an epoch: save a checkpoint only where the state of the member was kept."""
        states = [*self.record.epochs, *([self.record.state] if self.record.state and not self.record.against else [])]
        state = next((each for each in states if each.step == self.step), None)
        if state is not None:
            self._load(state)
        best = self.record.best
        saves_best = best is not None and best.step == self.step
        for saver, saves in ((self.last, state is not None), (self.best, saves_best)):
            if saver is not None:
                vars(saver).pop("on_train_epoch_end", None)
                if not saves:
                    saver.on_train_epoch_end = _do_nothing

    def _interrupt(self, number: int) -> None:
        """Let the callback for signals end the run, at the step at which the stack was ended."""
        assert self.record.state is not None
        self._load(self.record.state)
        preemption: Any = self.callbacks.preemption
        preemption.agreement.signum = self.signum
        preemption.on_train_batch_end(self.trainer, self.trainer.lightning_module, None, None, number)

    def _diverge(self) -> None:
        """End the run as its guard did.

        Raises:
            Diverged: always.
        """
        self.trainer.fit_loop.epoch_loop.batch_progress.increment_ready()
        self.trainer.fit_loop.epoch_loop.batch_progress.increment_started()
        self._guard.stop_training(self.trainer, self.record.against, self.step)


def _do_nothing(*_: Any) -> None:
    pass

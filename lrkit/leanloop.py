"""Lightning's loop over an epoch, without what it spends on hooks that nobody has.

Around each of some thirty hooks in a step Lightning formats names, looks up properties and opens contexts, also where
nobody listens: two thirds of all that Python does in a step of a small network. Here that is asked once an epoch, and
what is left is called in Lightning's order, with Lightning's counters, so that checkpoints stay the same.

It takes the place of Lightning's own only in the plain case: one device, full precision, one optimizer that follows a
plan, and a module that leaves the optimization to Lightning. Anything else goes by Lightning's own loop, and so does
all under a release of Lightning that this was not compared with, for which this file is not even imported.
`tests/test_leanloop.py` runs both and compares them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher
from pytorch_lightning.loops.optimization.automatic import ClosureResult, _AutomaticOptimization
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.trainer import call
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor
from torch.optim import Optimizer

from lrkit.lean import Unprofiled
from lrkit.scheduler import PlanScheduler

__all__ = ["LeanEpoch", "install"]

#: What is called in a step, of callbacks and of the module.
_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
#: What a step is made of: a module that has one of these of its own is left to Lightning.
_PARTS = (
    "backward",
    "clip_gradients",
    "configure_gradient_clipping",
    "lr_scheduler_step",
    "optimizer_step",
    "optimizer_zero_grad",
)
_TRANSFERS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def install(trainer: Trainer) -> None:
    """Give a trainer that has not begun yet the lean loop, where its own is Lightning's."""
    own = trainer.fit_loop.epoch_loop
    if type(own) is _TrainingEpochLoop:
        trainer.fit_loop.epoch_loop = LeanEpoch(trainer, own.min_steps, own.max_steps)


class _Plain:
    """An epoch of the plain case: who listens, and what does not change until it ends."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.module = trainer, trainer.lightning_module
        self.callbacks = [*trainer.callbacks]  # type: ignore[attr-defined]
        self.listening = {name: self._listening(name) for name in _HOOKS}
        self.scheduler = trainer.lr_scheduler_configs[0].scheduler
        self.optimizer = trainer.optimizers[0]
        self.device = trainer.strategy.root_device
        self.takes_index = is_param_in_hook_signature(self.module.training_step, "batch_idx", min_args=2)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.moves = not all(_inherits(self.module, LightningModule, name) for name in _TRANSFERS) or not (
            data is None or all(_inherits(data, LightningDataModule, name) for name in _TRANSFERS)
        )

    @staticmethod
    def of(trainer: Trainer, fetcher: _DataFetcher) -> _Plain | None:
        """The epoch that begins, or None where anything about it is not plain."""
        strategy, module, schedulers = trainer.strategy, trainer.lightning_module, trainer.lr_scheduler_configs
        plain = (
            type(strategy) is SingleDeviceStrategy
            and type(strategy.precision_plugin) is Precision
            and type(trainer.profiler) is Unprofiled  # type: ignore[attr-defined]
            and strategy.model is module  # and not compiled, say
            and module.automatic_optimization
            and all(_inherits(module, LightningModule, name) for name in _PARTS)
            and not isinstance(fetcher, _DataLoaderIterDataFetcher)
            and len(trainer.optimizers) == len(schedulers) == 1
            and isinstance(schedulers[0].scheduler, PlanScheduler)
            and (schedulers[0].interval, schedulers[0].frequency) == ("step", 1)
        )
        return _Plain(trainer) if plain else None

    def still(self) -> bool:
        """Whether it is what it was when it began: callbacks may come and go."""
        return self.callbacks == self.trainer.callbacks and self.module.automatic_optimization  # type: ignore[attr-defined]

    def call(self, name: str, *given: Any) -> Any:
        """One hook of all who listen; what the module returns."""
        callbacks, own = self.listening[name]
        if not callbacks and own is None:
            return None
        trainer, module = self.trainer, self.module
        # What `log` goes by. A module would first look whether it is a parameter.
        names = vars(module)
        before, names["_current_fx_name"] = names["_current_fx_name"], name
        for callback in callbacks:
            callback(trainer, module, *given)
        returned = None if own is None else own(*given)
        names["_current_fx_name"] = before
        return returned

    def training_step(self, given: OrderedDict[str, Any]) -> Any:
        names = vars(self.module)
        before, names["_current_fx_name"] = names["_current_fx_name"], "training_step"
        returned = self.module.training_step(*given.values())
        names["_current_fx_name"] = before
        return returned

    def is_there(self, batch: Any) -> bool:
        """Whether a batch is on the device already, and nobody wants to change it on its way."""
        parts = batch.values() if type(batch) is dict else batch
        if self.moves or type(batch) not in (list, tuple, dict):
            return False
        return all(type(part) is Tensor and part.device == self.device for part in parts)

    def _listening(self, name: str) -> tuple[list[Callable[..., Any]], Callable[..., Any] | None]:
        callbacks = [getattr(each, name) for each in self.callbacks if not _inherits(each, Callback, name)]
        return callbacks, None if _inherits(self.module, LightningModule, name) else getattr(self.module, name)


class LeanStep(_AutomaticOptimization):
    """The parts of an optimization, without the detours."""

    plain: _Plain | None = None

    def _training_step(self, kwargs: OrderedDict[str, Any]) -> ClosureResult:
        if self.plain is None:
            return super()._training_step(kwargs)
        output = self.plain.training_step(kwargs)
        return ClosureResult.from_training_step_output(output, self.trainer.accumulate_grad_batches)

    def _on_before_zero_grad(self, optimizer: Optimizer) -> None:
        if self.plain is None:
            return super()._on_before_zero_grad(optimizer)
        done = self.optim_progress.optimizer.zero_grad
        done.increment_ready()
        self.plain.call("on_before_zero_grad", optimizer)
        done.increment_started()
        return None

    def _optimizer_zero_grad(self, batch_idx: int, optimizer: Optimizer) -> None:
        if self.plain is None:
            return super()._optimizer_zero_grad(batch_idx, optimizer)
        optimizer.zero_grad()
        self.optim_progress.optimizer.zero_grad.increment_completed()
        return None

    def _make_backward_fn(self, optimizer: Optimizer) -> Callable[[Tensor], None] | None:
        if self.plain is None or self._skip_backward:
            return super()._make_backward_fn(optimizer)
        return partial(_backward, self.plain)

    def _optimizer_step(self, batch_idx: int, train_step_and_backward_closure: Callable[[], Tensor | None]) -> None:
        if self.plain is None:
            return super()._optimizer_step(batch_idx, train_step_and_backward_closure)
        optimizer: Any = self.plain.optimizer
        done = self.optim_progress.optimizer.step
        done.increment_ready()
        optimizer.step(closure=partial(_closure, self.plain, train_step_and_backward_closure))
        done.increment_completed()
        return None


def _backward(plain: _Plain, loss: Tensor) -> None:
    plain.call("on_before_backward", loss)
    loss.backward()  # type: ignore[no-untyped-call]
    plain.call("on_after_backward")


def _closure(plain: _Plain, closure: Callable[[], Tensor | None]) -> Tensor | None:
    """What the optimizer calls for its gradients."""
    loss = closure()
    plain.call("on_before_optimizer_step", plain.optimizer)
    trainer: Any = plain.trainer
    if trainer.gradient_clip_val:
        trainer.precision_plugin._clip_gradients(
            plain.module, plain.optimizer, trainer.gradient_clip_val,
            gradient_clip_algorithm=trainer.gradient_clip_algorithm,
        )  # fmt: skip
    return loss


class LeanEpoch(_TrainingEpochLoop):
    """The loop over an epoch. Each method does what Lightning's does in the plain case, and else is Lightning's."""

    def __init__(self, trainer: Trainer, min_steps: int | None = None, max_steps: int = -1) -> None:
        super().__init__(trainer, min_steps, max_steps)
        self.automatic_optimization: LeanStep = LeanStep(trainer)
        self.plain: _Plain | None = None

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        super().on_run_start(data_fetcher)
        self.plain = self.automatic_optimization.plain = _Plain.of(self.trainer, data_fetcher)
        if self.plain is not None:  # no profiler
            data_fetcher._start_profiler = data_fetcher._stop_profiler = _nothing

    def advance(self, data_fetcher: _DataFetcher) -> None:
        if self.plain is not None and not self.plain.still():
            self.plain = self.automatic_optimization.plain = _Plain.of(self.trainer, data_fetcher)
        plain, progress, trainer = self.plain, self.batch_progress, self.trainer
        if plain is None or self.restarting:
            return super().advance(data_fetcher)
        batch, _, _ = next(data_fetcher)
        batch_idx = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        if not plain.is_there(batch):
            batch = plain.module._on_before_batch_transfer(batch, dataloader_idx=0)
            batch = call._call_strategy_hook(trainer, "batch_to_device", batch, dataloader_idx=0)
        progress.increment_ready()
        logs, results = trainer._logger_connector, self._results
        logs._first_loop_iter = logs._first_loop_iter is None
        results.batch, results.batch_size, results.dataloader_idx = batch, None, None

        output: Any = None
        ends = False
        if batch is None:
            self._warning_cache.warn("train_dataloader yielded None. If this was on purpose, ignore this warning...")
        elif ends := plain.call("on_train_batch_start", batch, batch_idx) == -1:
            progress.increment_by(0, is_last_batch=True)
        else:
            progress.increment_started()
            given = self._build_kwargs(OrderedDict(), batch, batch_idx)
            output = self.automatic_optimization.run(plain.optimizer, batch_idx, given)
        progress.increment_processed()
        self.update_lr_schedulers("step", update_plateau_schedulers=False)
        if ends:
            raise StopIteration
        plain.call("on_train_batch_end", output, batch, batch_idx)
        if results:  # something has been logged in this epoch
            metrics = results.metrics(on_step=True)
            logs._progress_bar_metrics.update(metrics["pbar"])
            logs._callback_metrics.update(metrics["callback"])
            logs._logged_metrics.update(metrics["log"])
        results.batch = results.batch_size = None
        progress.increment_completed()
        every = trainer.log_every_n_steps
        if trainer.should_stop or trainer.fast_dev_run or (every and (self._batches_that_stepped + 1) % every == 0):
            logs.update_train_step_metrics()
        return None

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        trainer = self.trainer
        usual = self.plain is not None and not (self._skip_next_val or trainer.should_stop or trainer.received_sigterm)
        if not usual or self._should_check_val_fx(data_fetcher):
            return super().on_advance_end(data_fetcher)
        if not self._should_accumulate():
            self._batches_that_stepped += 1
        return None

    def update_lr_schedulers(self, interval: str, update_plateau_schedulers: bool) -> None:
        if self.plain is None:
            return super().update_lr_schedulers(interval, update_plateau_schedulers)
        if interval == "step" and not update_plateau_schedulers and not self._should_accumulate():
            self.scheduler_progress.increment_ready()
            self.plain.scheduler.step()  # type: ignore[call-arg]
            self.scheduler_progress.increment_completed()
        return None

    def _should_accumulate(self) -> bool:
        # The same, in an order in which most of it need not be asked.
        return not self._accumulated_batches_reached() and super()._should_accumulate()

    def _should_check_val_fx(self, data_fetcher: _DataFetcher) -> bool:
        trainer, every = self.trainer, self.trainer.val_check_batch
        if (
            self.plain is not None
            and isinstance(every, int)
            and trainer._val_check_time_interval is None
            and not (trainer.should_stop or self.batch_progress.is_last_batch)
        ):
            at = self.total_batch_idx if trainer.check_val_every_n_epoch is None else self.batch_idx
            if (at + 1) % every:
                return False
        return super()._should_check_val_fx(data_fetcher)

    def _build_kwargs(self, kwargs: OrderedDict[str, Any], batch: Any, batch_idx: int) -> OrderedDict[str, Any]:
        if self.plain is None:
            return super()._build_kwargs(kwargs, batch, batch_idx)
        kwargs["batch"] = batch
        if self.plain.takes_index:
            kwargs["batch_idx"] = batch_idx
        return kwargs


def _inherits(thing: Any, base: type, name: str) -> bool:
    """Whether a thing's method is the one of Lightning's base class, and not one of its own."""
    method = getattr(thing, name)
    return getattr(method, "__func__", method) is getattr(base, name)


def _nothing() -> None:
    pass

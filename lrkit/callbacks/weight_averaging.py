"""Averages of the weights beside the training (EMA, SWA), validated beside the weights themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from torch import Tensor

from lrkit.base.errors import ConfigError
from lrkit.base.metric_names import AVERAGED
from lrkit.base.validation import FLAG, is_number, one_of
from lrkit.lightning.imports import (
    Callback,
    DummyLogger,
    LightningModule,
    ModelCheckpoint,
    Trainer,
    isolate_rng,
)
from lrkit.lightning.logged_names import logged_names
from lrkit.lightning.module import plan_of, step_of
from lrkit.lightning.sharding import is_sharded
from lrkit.optim.factory import has_modes
from lrkit.optim.weight_average import WeightAverage, named_weights
from lrkit.planning.plan import Plan
from lrkit.schedules.durations import Duration, Length

__all__ = ["AVERAGED_WEIGHTS", "AveragedWeights"]

#: The key of both sets of weights in a checkpoint.
AVERAGED_WEIGHTS = "lrkit.averaged_weights"
#: A beginning that the plan has, in place of a duration.
COOLDOWN = "cooldown"


class AveragedWeights(Callback):
    """Averages the weights after the optimizer's steps, without any effect on the training.

        average = d * average + (1 - d) * weights

    with ``d`` = ``decay`` for an exponential moving average (Polyak averaging; Tarvainen and Valpola 2017,
    arXiv:1703.01780), and the plain mean for stochastic weight averaging (Izmailov et al. 2018, arXiv:1803.05407).
    An average of weights at a high rate is about as good as the weights after a decay of the rate, so its validation
    loss shows what a cooldown would give.

    Each validation runs twice: with the averages, whose metrics get the prefix ``averaged/`` (``averaged/val/loss``),
    and with the weights. ``monitor`` says which of them the best checkpoint is chosen by; ``auto`` takes the averages'.
    A checkpoint has the weights that are monitored in its ``state_dict`` (the averages, if nothing is), and the others
    beside them, so that a resumed run goes on to the bit. After the fit the module has the same.

    Buffers, such as the statistics of batch normalization, are averaged like weights; whole numbers are copied.

    Args:
        kind: ``ema`` or ``mean``.
        decay: of the EMA, in [0, 1).
        warmup: whether ``decay`` is at most ``(1 + k) / (10 + k)`` in update ``k``.
        start: duration after which the average begins; until then it equals the weights. ``cooldown`` is where the
            plan's cooldown begins.
        every: duration between two updates.
        validate: whether the averages are validated.

    Raises:
        ConfigError: an invalid value; before training, an optimizer that averages weights itself, or sharded weights.
    """

    def __init__(
        self,
        kind: Literal["ema", "mean"] = "ema",
        decay: float = 0.999,
        warmup: bool = True,
        start: Length = 0,
        every: Length = 1,
        validate: bool = True,
    ) -> None:
        one_of("ema", "mean").check("kind", kind)
        if not is_number(decay) or not 0 <= decay < 1:
            raise ConfigError("decay", "must be in [0, 1)", decay)
        FLAG.check("warmup", warmup)
        FLAG.check("validate", validate)
        if start != COOLDOWN:
            Duration.parse(start, "start")
        if Duration.parse(every, "every").value == 0:
            raise ConfigError("every", "must be at least one optimizer step", every)
        self.kind, self.decay, self.warmup, self.validate = kind, float(decay), warmup, validate
        self.start, self.every = start, every
        self.first, self.interval = 0, 1  # both in optimizer steps
        self.average: WeightAverage | None = None
        self.loaded: Mapping[str, Any] = {}
        self.raw: dict[str, Tensor] = {}  # the weights that trained, after the fit
        self.measured: Mapping[str, Any] = {}  # the metrics of the averages, in a validation
        self.seen = 0
        self.installed = False

    @property
    def key(self) -> str:
        """What errors call it: the name of its preset."""
        return "callbacks.ema" if self.kind == "ema" else "callbacks.swa"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or self.installed:
            return
        if is_sharded(trainer):
            must = "cannot average sharded weights: use another trainer.strategy, such as ddp"
            raise ConfigError(self.key, must, type(trainer.strategy).__name__)
        if sum(isinstance(each, AveragedWeights) for each in trainer.callbacks) > 1:  # type: ignore[attr-defined]
            raise ConfigError(self.key, "must be the only average: a run has one of callbacks.ema and callbacks.swa")
        self.installed = True
        loop: Any = trainer.fit_loop.epoch_loop.val_loop
        loop.run = partial(self._validate_both, trainer, loop.run)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit" or AVERAGED_WEIGHTS not in checkpoint:
            return
        self.loaded = checkpoint[AVERAGED_WEIGHTS]
        weights = dict(named_weights(pl_module))
        for name, value in self.loaded["raw"].items():
            if name in weights:
                if value.shape != weights[name].shape:
                    must = f"must have the shape {tuple(weights[name].shape)}"
                    raise ConfigError(f"{AVERAGED_WEIGHTS}.raw.{name}", must, tuple(value.shape))
                weights[name].data.copy_(value)
        saved = {**checkpoint["state_dict"], **self.loaded["average"]}
        self.loaded = {**self.loaded, "average": {name: saved[name] for name in weights if name in saved}}

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin_average(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin_average(trainer, pl_module)
        self.raw = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self.average is not None
        step = step_of(trainer)
        if step == self.seen:  # accumulation is still filling, or the step was left out
            return
        self.seen = step
        if step <= self.first:
            self.average.restart(pl_module)
        elif (step - self.first) % self.interval == 0:
            self.average.update(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, value in self.measured.items():
            pl_module.log(f"{AVERAGED}{name}", value, on_epoch=True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.average is None:
            return
        saved = checkpoint["state_dict"]
        raw = self.raw or {name: tensor.detach() for name, tensor in named_weights(pl_module)}
        averages = dict(self.average.values)
        apart: dict[str, Tensor] = {}
        if self._averages_are_the_result(trainer):
            for name in [*averages]:
                if name in saved and saved[name].shape == averages[name].shape:
                    apart[name], saved[name] = raw[name], averages[name].to(saved[name].dtype)
                    if saved[name].dtype == averages[name].dtype:
                        del averages[name]
        checkpoint[AVERAGED_WEIGHTS] = {"average": averages, "raw": apart, "updates": self.average.updates}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.average is None or not self._averages_are_the_result(trainer):
            return
        self.raw = {name: tensor.detach().clone() for name, tensor in named_weights(pl_module)}
        for name, tensor in named_weights(pl_module):
            tensor.data.copy_(self.average.values[name])

    def _begin_average(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the average, or continue that of a checkpoint; the module is on its device by now."""
        if self.average is not None and not self.loaded:
            return
        if any(map(has_modes, trainer.optimizers)):
            must = "cannot be used with a schedule-free optimizer, which averages the weights itself"
            raise ConfigError(self.key, must, type(trainer.optimizers[0]).__name__)
        plan = plan_of(trainer)
        self.first = _first_step(self.start, plan, f"{self.key}.start")
        self.interval = Duration.parse(self.every).steps(plan.horizon, f"{self.key}.every")
        self.average = WeightAverage(pl_module, self.kind, self.decay, self.warmup)
        if self.loaded:
            self.average.load(self.loaded["average"], self.loaded["updates"])
        self.loaded, self.seen = {}, step_of(trainer)

    def _validate_both(self, trainer: Trainer, usual: Callable[[], Any]) -> Any:
        """A validation with the averages, whose metrics are kept, and then the usual one, which logs both."""
        self.measured = {}
        if self.validate and self.average is not None:
            callbacks, loggers = trainer.callbacks, trainer.loggers  # type: ignore[attr-defined]
            # Callbacks and loggers see one validation: a second would count for patience, checkpoints and progress.
            trainer.callbacks, trainer.loggers = [], [DummyLogger()] if loggers else []  # type: ignore[attr-defined]
            try:
                with isolate_rng(), self.average.in_place_of(trainer.lightning_module):
                    outputs = usual()
            finally:
                trainer.callbacks, trainer.loggers = callbacks, loggers  # type: ignore[attr-defined]
            self.measured = {name: value for output in outputs or [] for name, value in output.items()}
            if trainer.sanity_checking:  # which returns no values; the names are checked then
                self.measured = dict.fromkeys(logged_names(trainer), 0.0)
        return usual()

    def _averages_are_the_result(self, trainer: Trainer) -> bool:
        """Whether the averages are what is saved and returned: unless the metrics of the weights are monitored."""
        savers = [each for each in trainer.callbacks if isinstance(each, ModelCheckpoint)]  # type: ignore[attr-defined]
        monitored = [each.monitor for each in savers if each.monitor]
        return not self.validate or not monitored or any(name.startswith(AVERAGED) for name in monitored)


def _first_step(start: Length, plan: Plan, key: str) -> int:
    """The optimizer step after which an average begins."""
    if start != COOLDOWN:
        return Duration.parse(start, key).steps(plan.horizon, key)
    for first, phase in zip(plan.curve.starts, plan.curve.phases, strict=True):
        if phase.name == COOLDOWN:
            return first
    raise ConfigError(key, "is cooldown, and the plan has no cooldown: choose one, or give a duration", start)

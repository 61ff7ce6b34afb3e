"""The gradient noise scale, measured while training: the approximate batch size up to which a larger batch saves steps.

The gradient of a batch of ``B`` samples is the true gradient ``G`` plus noise of covariance ``Sigma / B``. Of both only
two numbers are needed, the square of the one and the trace of the other:

    B_simple = tr(Sigma) / |G|^2

(McCandlish, Kaplan, Amodei and the OpenAI Dota team 2018, "An Empirical Model of Large-Batch Training",
arXiv:1812.06162, section 2.2 and appendix A.1). Well below it noise dominates, and a batch twice as large, at twice the
rate, takes half the steps: linear batch scaling holds. At it a training needs about twice the samples that small
batches need, and about twice the steps that huge ones need; far above it larger batches save nothing. It is an order of
magnitude: on MNIST, averaged over a training, the paper has 900, where the batch size measured to be critical is 200.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from lrkit.base.errors import ConfigError
from lrkit.base.validation import is_number
from lrkit.callbacks.divergence_guard import norm_of_tensors
from lrkit.data.tensor_loader import check_whole_number
from lrkit.lightning.imports import Callback, LightningModule, Trainer, isolate_rng
from lrkit.lightning.module import scheduler_of
from lrkit.lightning.network_output import describe_value
from lrkit.lightning.sharding import is_sharded
from lrkit.lightning.supervised import Supervised
from lrkit.schedules.durations import Duration, Length

__all__ = ["TAG", "NoiseScale", "estimate_noise_scale"]

TAG = "batch/noise_scale"
_KEY = "callbacks.noise_scale"


def estimate_noise_scale(small: float, big: float, b: float, B: float) -> tuple[float, float]:
    """Unbiased estimates of ``|G|^2`` and of ``tr(Sigma)`` (appendix A.1 of the paper).

        |G|^2      = (B big - b small) / (B - b)
        tr(Sigma)  = (small - big) / (1/b - 1/B)

    for ``E |G_n|^2 = |G|^2 + tr(Sigma) / n`` of a batch of ``n`` samples.

    Args:
        small: ``|G_b|^2``, the squared norm of the gradient of a batch of ``b`` samples, or a mean of several.
        big: the same of ``B`` samples, at the same weights.
        b, B: samples; ``b < B``.

    With ``|G|^2 = 4`` and ``tr(Sigma) = 80``:

    >>> estimate_noise_scale(small=4 + 80 / 8, big=4 + 80 / 64, b=8, B=64)
    (4.0, 80.0)
    """
    return (B * big - b * small) / (B - b), (small - big) / (1.0 / b - 1.0 / B)


class NoiseScale(Callback):
    """Logs ``batch/noise_scale``, in samples, of a training by lrkit's own module; x is the optimizer step.

    A measurement splits the next batch, at the current weights, into equal parts (the remaining samples are not
    used), and compares the mean of the squared norms of their gradients with the squared norm of their mean. The two
    estimates are averaged over processes and, each by an exponential moving average, over measurements; the ratio of
    the averages is logged if the average of ``|G|^2`` is positive. (The bias correction of the averages is the same
    factor in both, and cancels.) A measurement that is not finite is ignored.

    Training is the same to the bit with and without it. A measurement costs about one forward and backward pass
    of a batch, more if small parts do not fill the device, and memory for up to three more gradients.

    Notes on its values:

    - Early values are noisy: from a batch far below the noise scale ``|G|^2`` is a small difference of large numbers.
    - It grows while the loss falls, often by a factor of ten and more: the gradient shrinks, the noise does not.
    - It is that of the loss, without momentum, clipping, weight decay or the scaling of an optimizer.
    - The noise of dropout counts as noise of the samples. With batch normalization the loss of a sample depends on its
      part, so the value is that of batches of the size of a part.

    Args:
        every: duration between two measurements; the first is after this number of optimizer steps.
        parts: the number of parts of a batch; fewer for a batch with too few samples.
        decay: of the moving averages, per measurement: they cover about ``1 / (1 - decay)`` measurements.

    Raises:
        ConfigError: an invalid value; before training, a module with its own training step,
            batches that cannot be split, or sharded gradients.
    """

    def __init__(self, every: Length = 20, parts: int = 8, decay: float = 0.95) -> None:
        self.every = Duration.parse(every, "every")
        if self.every.value == 0:
            raise ConfigError("every", "must be at least one optimizer step", every)
        self.parts = check_whole_number("parts", parts, least=2)
        if not is_number(decay) or not 0 <= decay < 1:
            raise ConfigError("decay", "must be in [0, 1)", decay)
        self.decay = float(decay)
        self.square = self.noise = 0.0  # the moving averages
        self.looks = 0
        self.logs = (0.0, 0)  # the sum of the logarithms of all logged values, and their number
        self.last = 0  # the step of the last measurement: with accumulation a step has several batches

    @property
    def value(self) -> float | None:
        """The noise scale in samples; None if it is not known."""
        return self.noise / self.square if self.square > 0.0 else None

    def metrics(self) -> dict[str, float]:
        """The tag and the value; empty if it is not known."""
        return {} if self.value is None else {TAG: self.value}

    def line(self, batch: int | None) -> str:
        """The line at the end of a run with ``batch`` samples in an optimizer step.

        The value over the run is the geometric mean of all values, on which outliers have little influence.
        """
        ours = "" if batch is None else f" (batch {batch})"
        if not self.looks:
            return f"noise scale{ours}: not measured; the run was too short for {_KEY}.every={self.every}"
        logs, known = self.logs
        if not known:
            return f"noise scale{ours}: not known; it is so far above the batch that the gradient is lost in the noise"
        end = "not known" if self.value is None else _round_to_text(self.value)
        return (
            f"noise scale {_round_to_text(math.exp(logs / known))} over the run, {end} at its end{ours}:"
            " batches well below it may grow with a linearly scaled rate; at it, a training takes"
            " about twice the samples"
        )

    def check(self, module: LightningModule, batch_size: int | None) -> None:
        """Refuse a module or a batch size that cannot be measured. ``batch_size``: of one process; None: unknown."""
        if type(module) is not Supervised:
            name = type(module).__name__
            raise ConfigError(
                _KEY, "needs a network whose loss lrkit computes (model: a torch.nn.Module):"
                f" {name}.training_step, run once more for the measurement, might log, count or change something", name
            )  # fmt: skip
        # Batch normalization refuses a batch of one sample.
        self.least = 2 if any(isinstance(part, _BatchNorm) for part in module.modules()) else 1
        if batch_size is not None and batch_size < 2 * self.least:
            norm = ", of two samples each for batch normalization," if self.least == 2 else ""
            raise ConfigError(
                "data.batch_size", f"must be at least {2 * self.least} for {_KEY}: it compares parts{norm} of a batch",
                batch_size,
            )  # fmt: skip

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(pl_module, None)
        if is_sharded(trainer):
            name = type(trainer.strategy).__name__
            raise ConfigError(_KEY, "needs whole gradients in each process, not parts of them", name)
        if any(isinstance(part, nn.SyncBatchNorm) for part in pl_module.modules()):
            must = f"must be false for {_KEY}: gradients of a process depend on the samples of the others"
            raise ConfigError("trainer.sync_batchnorm", must, True)
        self.steps = self.every.steps(scheduler_of(trainer).plan.horizon, f"{_KEY}.every")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        t = scheduler_of(trainer).applied
        if t == self.last or t % self.steps:
            return
        self.last = t
        assert isinstance(pl_module, Supervised)
        found = _average_over_processes(trainer, self._estimate_from_batch(trainer, pl_module, batch))
        if found is None or not all(map(math.isfinite, found)):
            return
        self.square, self.noise = (
            self.decay * before + (1.0 - self.decay) * now
            for before, now in zip((self.square, self.noise), found, strict=True)
        )
        self.looks += 1
        if self.value is None:
            return
        if self.value > 0.0:
            self.logs = self.logs[0] + math.log(self.value), self.logs[1] + 1
        for logger in trainer.loggers:
            logger.log_metrics(self.metrics(), step=t)

    def state_dict(self) -> dict[str, Any]:
        return {
            "square": self.square, "noise": self.noise, "looks": self.looks, "logs": [*self.logs], "last": self.last
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.square, self.noise = state_dict["square"], state_dict["noise"]
        self.looks, self.last = state_dict["looks"], state_dict["last"]
        logs, known = state_dict["logs"]
        self.logs = logs, known

    def _estimate_from_batch(self, trainer: Trainer, module: Supervised, batch: Any) -> tuple[float, float] | None:
        """Estimates of ``|G|^2`` and ``tr(Sigma)`` from one batch; None for a batch that is too small."""
        if not (isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(x, Tensor) for x in batch)):
            raise ConfigError(_KEY, "needs batches of two tensors, inputs and targets", describe_value(batch))
        x, y = batch
        parts = min(self.parts, len(x) // self.least)
        if parts < 2:
            return None
        size = len(x) // parts
        weights = [p for group in trainer.optimizers[0].param_groups for p in group["params"] if p.requires_grad]
        buffers = {name: buffer.clone() for name, buffer in module.model.named_buffers()}
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else float(scaler.get_scale())  # without it float16 loses small gradients
        sums: list[Tensor] = []
        norms = []
        with _preserve_random_state(x.device):
            for start in range(0, parts * size, size):
                part = slice(start, start + size)
                with trainer.precision_plugin.train_step_context():
                    # A copy, because a network may change its inputs in place.
                    loss = module.loss_of(functional_call(module.model, buffers, (x[part].clone(),)), y[part])
                # Not by backward: .grad and its hooks belong to the training.
                found = torch.autograd.grad(loss * scale, weights, allow_unused=True, materialize_grads=True)
                grads = [_to_dense_float(grad) for grad in found]
                norms.append(norm_of_tensors(grads))
                # Not in place: torch may give one tensor as the gradient of several parameters.
                sums = grads if not sums else [total + grad for total, grad in zip(sums, grads, strict=True)]
        # Squares in float64, on the host: a square of a float32 may exceed its range.
        *each, whole = (value / scale for value in torch.stack([*norms, norm_of_tensors(sums) / parts]).tolist())
        return estimate_noise_scale(sum(value * value for value in each) / parts, whole * whole, size, parts * size)


def _round_to_text(value: float) -> str:
    """A number with two digits: further ones have no meaning."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 1.0 else f"{value:.2g}"


def _average_over_processes(trainer: Trainer, found: tuple[float, float] | None) -> tuple[float, float] | None:
    """The mean over the processes that have estimates. All processes must call this."""
    if trainer.world_size == 1:
        return found
    own = [0.0, 0.0, 0.0] if found is None else [*found, 1.0]
    total = torch.tensor(own, device=trainer.strategy.root_device)
    square, noise, processes = trainer.strategy.reduce(total, reduce_op="sum").tolist()
    return (square / processes, noise / processes) if processes else None


def _to_dense_float(grad: Tensor) -> Tensor:
    """A gradient for summation: dense, in float32 or a higher precision."""
    dense = grad.to_dense() if grad.is_sparse else grad
    return dense.float() if dense.dtype in (torch.float16, torch.bfloat16) else dense


@contextmanager
def _preserve_random_state(device: torch.device) -> Iterator[None]:
    """Restore the random states of Python, NumPy, torch and the device at the end of the context."""
    state = torch.mps.get_rng_state() if device.type == "mps" else None
    with isolate_rng(include_cuda=device.type == "cuda"):
        yield
    if state is not None:
        torch.mps.set_rng_state(state)

"""Many runs of a small network in one program: the same weights at the start and the same batches, other rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lrkit.data.in_memory import Splits
from lrkit.models import Mlp

__all__ = ["STEPS_OF", "train_stack"]

Step = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor, int], None]


def momentum() -> Step:
    """SGD with momentum 0.9, as torch's."""
    buffers: list[Tensor] = []

    def step(weights: Sequence[Tensor], gradients: Sequence[Tensor], rates: Tensor, _: int) -> None:
        if not buffers:
            buffers.extend(torch.zeros_like(weight) for weight in weights)
        for weight, gradient, buffer in zip(weights, gradients, buffers, strict=True):
            buffer.mul_(0.9).add_(gradient)
            weight.sub_(_shaped(rates, weight) * buffer)

    return step


def adam(decay: float = 0.0) -> Step:
    """Adam with torch's defaults, or AdamW with a weight decay."""
    first: list[Tensor] = []
    second: list[Tensor] = []

    def step(weights: Sequence[Tensor], gradients: Sequence[Tensor], rates: Tensor, t: int) -> None:
        if not first:
            first.extend(torch.zeros_like(weight) for weight in weights)
            second.extend(torch.zeros_like(weight) for weight in weights)
        for weight, gradient, m, v in zip(weights, gradients, first, second, strict=True):
            rate = _shaped(rates, weight)
            weight.mul_(1.0 - rate * decay)
            m.lerp_(gradient, 0.1)
            v.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            weight.sub_(rate * (m / (1.0 - 0.9 ** (t + 1))) / ((v / (1.0 - 0.999 ** (t + 1))).sqrt() + 1e-8))

    return step


#: Name of an optimizer -> a function that makes its step.
STEPS_OF: dict[str, Callable[[], Step]] = {"momentum": momentum, "adam": adam, "adamw": lambda: adam(0.01)}


def train_stack(splits: Splits, rates: Tensor, optimizer: str, batch: int, seed: int) -> Tensor:
    """Return the final validation loss of each run; infinite if the run diverged.

    Args:
        splits: data; validation data judge the runs.
        rates: learning rates, (runs, steps).
        optimizer: a name in ``STEPS_OF``.
        batch: samples in a step.
        seed: seed of the weights and of the batches.
    """
    torch.manual_seed(seed)
    (x, y), runs = splits.train, len(rates)
    network = Mlp(x[0].numel(), splits.classes or 0)
    weights = [p.detach().unsqueeze(0).repeat(runs, *[1] * p.dim()).requires_grad_() for p in network.parameters()]
    x, order, step = x.flatten(1), torch.Generator().manual_seed(seed), STEPS_OF[optimizer]()
    places = torch.empty(0, dtype=torch.int64)
    for t in range(rates.shape[1]):
        if len(places) < batch:
            places = torch.randperm(len(x), generator=order)
        chosen, places = places[:batch], places[batch:]
        losses = _losses(weights, x[chosen], y[chosen])
        gradients = torch.autograd.grad(losses.sum(), weights)
        with torch.no_grad():
            step(weights, gradients, rates[:, t], t)
    with torch.no_grad():
        final = _losses(weights, splits.val[0].flatten(1), splits.val[1])
    return torch.where(final.isfinite(), final, torch.inf)


def _shaped(rates: Tensor, weight: Tensor) -> Tensor:
    """Return a rate for each run, in the shape of the stacked weights."""
    return rates.view(-1, *[1] * (weight.dim() - 1))


def _losses(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross-entropy of each run."""
    runs = len(weights[0])
    out = x.expand(runs, *x.shape)
    for i in range(0, len(weights), 2):
        out = torch.baddbmm(weights[i + 1].unsqueeze(1), out, weights[i].transpose(1, 2))
        out = F.relu(out) if i + 2 < len(weights) else out
    each = F.cross_entropy(out.flatten(0, 1), y.repeat(runs), reduction="none")
    return each.view(runs, -1).mean(1)

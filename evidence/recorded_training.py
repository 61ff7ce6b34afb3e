"""A training that records its validation loss: a plain loop at given learning rates, without Lightning's start-up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrkit.data.in_memory import Splits, fetch_pair

__all__ = ["OPTIMIZERS", "train_recorded"]

Parameters = Iterable[nn.Parameter]
#: Name of an optimizer -> a function that makes it with lrkit's defaults.
OPTIMIZERS: dict[str, Callable[[Parameters], torch.optim.Optimizer]] = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=1.0, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1.0),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1.0, weight_decay=0.01),
}


def train_recorded(
    network: nn.Module,
    splits: Splits,
    optimizer: str,
    rates: Sequence[float],
    *,
    batch: int,
    seed: int,
    every: int,
) -> tuple[list[int], list[float]]:
    """Train a network, and return the numbers of steps after which it was validated, and the validation losses.

    Args:
        network: classes are on the last axis of its output.
        splits: training data, and validation data that judge the run.
        optimizer: a name in ``OPTIMIZERS``.
        rates: learning rate of each step.
        batch: samples in a step; each epoch has a new order.
        seed: seed of the order.
        every: steps between two validations; the last step is validated too.
    """
    (x, y), order = splits.train, torch.Generator().manual_seed(seed)
    stepper = OPTIMIZERS[optimizer](network.parameters())
    epoch = splits.epoch or len(x)
    steps, losses, places = list[int](), list[float](), torch.empty(0, dtype=torch.int64)
    for step, rate in enumerate(rates, 1):
        if len(places) < batch:
            places = torch.randperm(len(x), generator=order)[:epoch]
        chosen, places = places[:batch], places[batch:]
        stepper.param_groups[0]["lr"] = rate
        stepper.zero_grad()
        _measure_loss(network, *fetch_pair(x, y, chosen)).backward()
        stepper.step()
        if step % every == 0 or step == len(rates):
            with torch.no_grad():
                steps.append(step)
                losses.append(_measure_loss(network, *fetch_pair(*splits.val, torch.arange(len(splits.val[0])))).item())
    return steps, losses


def _measure_loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(network(x).flatten(0, -2), y.flatten())

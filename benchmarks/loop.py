"""A plain training loop that follows a plan, without Lightning, for benchmarks with hundreds of runs.

Data order, initial weights, learning rates and optimizer are bit for bit those of ``lrkit train``
(``tests/test_benchmarks.py`` compares the two).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, seed_everything
from torch.nn import functional as F

from lrkit.config import compose as configs
from lrkit.lightning.module import rates_of
from lrkit.optim import factory
from lrkit.optim.param_groups import split_parameters
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.plan import Plan


@dataclass(frozen=True)
class Outcome:
    """The result of a run: final loss and accuracy on validation and test data, and the training loss of each step.

    With a validation after each epoch, ``validated`` has (steps done, validation loss). ``rates`` has the learning
    rate of each step.
    """

    loss: float
    accuracy: float
    test_loss: float
    test_accuracy: float
    losses: list[float]
    validated: list[tuple[int, float]]
    rates: list[float]


def train(
    config: dict[str, Any],
    data: LightningDataModule,
    *,
    plan: Plan | None = None,
    steps: int | None = None,
    validate: bool = False,
) -> Outcome:
    """Train with ``config``, and with another plan and number of steps if these are given.

    With ``validate`` there is a validation after each epoch, and reduce-on-plateau receives its loss. The loop stops
    at a loss that is not finite.
    """
    seed_everything(config["seed"], workers=True, verbose=False)
    node = dict(config["model"])
    node = {k: getattr(data, k) if v == "auto" else v for k, v in node.items()}
    model = configs.build(node, "model")
    groups = split_parameters(model, config["param_groups"])
    plan = (plan or configs.plan(config)).with_groups(rates_of(groups))
    options = {k: v for k, v in config["optimizer"].items() if k not in ("_target_", "lr")}
    target = config["optimizer"]["_target_"]
    optimizer = factory.build_optimizer(target, options, [group.options(plan.base(group.lr_scale)) for group in groups])
    scheduler = PlanScheduler(optimizer, plan)
    loader = data.train_dataloader()
    loader.seed = config["data"]["seed"]
    total, losses, epoch = steps or plan.horizon.steps, [], 0
    validated, rates = [], []
    model.train()
    while len(losses) < total:
        loader.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            loss = _loss(model(x), y)
            loss.backward()
            optimizer.step()
            rates.append(scheduler.get_last_lr()[0])
            scheduler.step()
            losses.append(loss.item())
            if len(losses) == total or not math.isfinite(losses[-1]):
                total = len(losses)
                break
        epoch += 1
        if validate:
            validated.append((len(losses), evaluate(model, data.val_dataloader())[0]))
            scheduler.observe(validated[-1][1])
            model.train()
    ends = *evaluate(model, data.val_dataloader()), *evaluate(model, data.test_dataloader())
    return Outcome(*ends, losses, validated, rates)


@torch.no_grad()
def evaluate(model: torch.nn.Module, batches: Iterable[Any]) -> tuple[float, float]:
    """Return loss and accuracy; the loss is infinite if the weights are not finite."""
    model.eval()
    loss = right = count = 0.0
    for x, y in batches:
        out = model(x)
        loss += float(_loss(out, y)) * len(x)
        right += float((out.flatten(0, -2).argmax(-1) == y.flatten()).float().mean()) * len(x)
        count += len(x)
    loss, accuracy = loss / count, right / count
    return (loss if math.isfinite(loss) else math.inf), accuracy


def _loss(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(out.flatten(0, -2), y.flatten())

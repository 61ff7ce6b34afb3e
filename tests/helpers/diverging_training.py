"""Callbacks that make a training diverge at chosen steps: by its batch, its loss or its gradient."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from lrkit.lightning.imports import Callback
from lrkit.optim.sharded_tensors import gather


class Ill(Callback):
    """At each of ``steps`` (counted by Lightning) the batch, a gradient or the loss goes wrong.

    Args:
        steps: when.
        how: ``batch``: the inputs are nan; ``gradient``: one element of one gradient is inf, before the processes
            exchange theirs; ``spike``: the inputs are 100 times too large; ``loss``: the loss is 100 times what it is.
        rank: on which process; None: on all.
        out: a folder where each process leaves what it ended with.
    """

    def __init__(self, steps: list[int], how: str = "batch", rank: int | None = None, out: str | None = None) -> None:
        self.steps, self.how, self.rank, self.out = set(steps), how, rank, out
        self.now = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        def spoil(grad: torch.Tensor) -> torch.Tensor:
            if not (self.now and self.how == "gradient"):
                return grad
            spoilt = grad.clone()
            spoilt.view(-1)[0] = torch.inf
            return spoilt

        next(iter(pl_module.parameters())).register_hook(spoil)
        training_step = pl_module.training_step
        ill = self.how == "loss"
        pl_module.training_step = lambda *batch: training_step(*batch) * (100.0 if self.now and ill else 1.0)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.now = trainer.global_step in self.steps and self.rank in (None, trainer.global_rank)
        if self.now and self.how in ("batch", "spike"):
            inputs = next(iter(batch.values())) if isinstance(batch, dict) else batch[0]
            inputs.mul_(torch.nan if self.how == "batch" else 100.0)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.leave(trainer, pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.leave(trainer, pl_module, type(exception).__name__)

    def leave(self, trainer: Any, pl_module: Any, error: str = "") -> None:
        if self.out is None:
            return
        weights = torch.cat([gather(p.detach()).reshape(-1) for p in pl_module.parameters()])
        scheduler = trainer.lr_scheduler_configs[0].scheduler
        left = {
            "weights": hashlib.sha256(weights.numpy().tobytes()).hexdigest(),
            "finite": bool(torch.isfinite(weights).all()),
            "applied": scheduler.applied,
            "gain": scheduler.total_gain,
            "error": error,
        }
        Path(self.out, f"left{trainer.global_rank}.json").write_text(json.dumps(left))


class Micro(Callback):
    """The inputs of one batch are nan, counted in batches and not in optimizer steps."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch:
            batch[0].fill_(torch.nan)

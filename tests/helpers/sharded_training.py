"""A script for torchrun: trains a network whose parameters are sharded (FSDP2), with each optimizer of ``conf``.

It writes for each optimizer the largest difference of a weight to one process with the same samples, and to a training
that was saved after half of the steps and loaded into new objects; or the error of the training.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from lrkit.config.compose import compose
from lrkit.optim.factory import build_optimizer, has_modes
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.resolve import resolve_plan
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Linear
from lrkit.training_objects.optimizers import optimizer_of

STEPS, SAMPLES = 6, 16
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
FROM_FIRST = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


class Training:
    """A network, its optimizer and its plan."""

    def __init__(self, name: str, *, sharded: bool) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 1)
        )
        if sharded:
            mesh = init_device_mesh("cpu", (dist.get_world_size(),))
            for part in self.net:
                if any(True for _ in part.parameters()):
                    fully_shard(part, mesh=mesh)
            fully_shard(self.net, mesh=mesh)
        config = compose([f"optimizer={name}"])
        target, options = optimizer_of(config)
        if "weight_decay" in options:
            options["weight_decay"] = 0.1
        lr = config["optimizer"]["lr"]
        groups = [{"params": [*self.net.parameters()], "name": "default", "lr": lr}]
        self.optimizer: Any = build_optimizer(target, options, groups)
        self.scheduler = PlanScheduler(self.optimizer, resolve_plan(lr=lr, schedule=Linear(), horizon=Horizon(STEPS)))
        if has_modes(self.optimizer):
            self.optimizer.train()

    def take(self, steps: int, x: Tensor, y: Tensor) -> Training:
        for _ in range(steps):
            self.optimizer.zero_grad()
            nn.functional.mse_loss(self.net(x), y).backward()
            self.optimizer.step()
            self.scheduler.step()
        return self

    def continued_in(self, other: Training) -> Training:
        """Another training with the saved state of this one."""
        weights = get_model_state_dict(self.net, options=WHOLE)
        state = get_optimizer_state_dict(self.net, self.optimizer, options=WHOLE)
        set_model_state_dict(other.net, weights, options=FROM_FIRST)
        if self.optimizer.state:  # torch fails on a state of groups alone; a run of lrkit loads those itself
            set_optimizer_state_dict(other.net, other.optimizer, state, options=FROM_FIRST)
        other.scheduler.load_state_dict(self.scheduler.state_dict())
        return other

    def difference(self, other: Training) -> float:
        pairs = zip(self.net.parameters(), other.net.parameters(), strict=True)
        return max((_whole(a) - _whole(b)).abs().max().item() for a, b in pairs)


def _whole(parameter: Any) -> Tensor:
    whole: Tensor = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
    return whole.detach()


def compare(name: str) -> dict[str, Any]:
    """Train in three ways with one optimizer."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(SAMPLES, 4, generator=generator), torch.randn(SAMPLES, 1, generator=generator)
    share = SAMPLES // dist.get_world_size()
    own = slice(dist.get_rank() * share, (dist.get_rank() + 1) * share)
    whole, start = Training(name, sharded=False).take(STEPS, x, y), Training(name, sharded=False)
    try:
        sharded = Training(name, sharded=True).take(STEPS, x[own], y[own])
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        return {"error": type(error).__name__}
    found = {"moved": whole.difference(start), "to_one_process": sharded.difference(whole)}
    if has_modes(sharded.optimizer):
        return found  # it has two sets of weights: checkpoints of them are refused
    half = Training(name, sharded=True).take(STEPS // 2, x[own], y[own])
    resumed = half.continued_in(Training(name, sharded=True))
    applied = resumed.scheduler.applied
    resumed.take(STEPS - STEPS // 2, x[own], y[own])
    return {**found, "to_resumed": sharded.difference(resumed), "applied": applied}


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = {name: compare(name) for name in sys.argv[2:]}
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(found))
    dist.destroy_process_group()

"""The time of a step of each optimizer, as lrkit builds it, against torch's AdamW: fused, and in the same mode.

    python benchmarks/optimizers.py [--rounds 5]

The models are ten matrices with ten million parameters, and a thousand small tensors, whose time is mostly overhead.
One core. "In the same mode" is AdamW in plain loops, as optimizers without a fused implementation run on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rows import Row, command, compared, in_turn, middle, per_call
from torch import nn

from lrkit.config.compose import compose
from lrkit.optim.factory import build_optimizer
from lrkit.training_objects.optimizers import optimizer_of

CONF = Path(__file__).parents[1] / "conf" / "optimizer"
MODELS = {"10M parameters": [(1024, 1024)] * 10, "1000 small tensors": [(10, 100)] * 1000}
#: The optimizers that lrkit implements itself; these must be fast.
SEED = ("adabound", "ranger")


def step_of(make: Callable[[list[Any]], torch.optim.Optimizer], shapes: list[tuple[int, int]]) -> Callable[[], Any]:
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape) * 0.02) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) * 0.01
    optimizer = make(parameters)
    if hasattr(optimizer, "train"):
        optimizer.train()
    optimizer.step()
    return optimizer.step


def preset(name: str, parameters: list[Any]) -> torch.optim.Optimizer:
    target, options = optimizer_of(compose([f"optimizer={name}"]))
    return build_optimizer(target, options, [{"params": parameters, "lr": 1e-4, "name": "default"}])


def rows(rounds: int = 5, every: bool = False) -> list[Row]:
    """Return the rows with an aim, or with ``every`` all rows."""
    names = sorted(path.stem for path in CONF.glob("*.yaml")) if every else [*SEED, "adamw"]
    made: list[Row] = []
    for model, shapes in MODELS.items():
        makers: dict[str, Callable[[list[Any]], torch.optim.Optimizer]] = {
            "fused": lambda p: torch.optim.AdamW(p, lr=1e-4, fused=True),
            "loops": lambda p: torch.optim.AdamW(p, lr=1e-4, foreach=False, fused=False),
            **{name: partial(preset, name) for name in names},
        }
        steps = {name: step_of(make, shapes) for name, make in makers.items()}
        taken = in_turn({name: partial(per_call, step, 3) for name, step in steps.items()}, rounds)
        ms = {name: f"{middle(each) * 1e3:.3g}" for name, each in taken.items()}
        for name in names:
            aim = 2.0 if name in SEED else None
            figures = f"ms: {ms[name]}; fused AdamW {ms['fused']}, in loops {ms['loops']}"
            made.append(compared(f"{name}, {model}", "AdamW in loops", taken[name], taken["loops"], aim, figures))
        made.append(compared(f"adamw, {model}", "torch's fused AdamW", taken["adamw"], taken["fused"], 1.1))
    return made if every else [row for row in made if row.aim is not None]


if __name__ == "__main__":
    torch.set_num_threads(1)
    command(__doc__, partial(rows, every=True), rounds=5)

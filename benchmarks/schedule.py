"""The time of a schedule's step: it evaluates the multiplier and writes the rate into every parameter group.

    python benchmarks/schedule.py

The schedule is warmup and cosine. Two times of lrkit are measured: ``scheduler.step()``, as for the others; and the
whole work in a training step, with the checks before and after the optimizer step.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rows import Row, command, compared, in_turn, middle, per_call
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, OneCycleLR, SequentialLR

from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.plan import GroupRate
from lrkit.planning.resolve import resolve_plan
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Cosine, Linear

STEPS, WARMUP = 100_000, 500
SIZES = {1: (1 / 5, 4000), 10: (1 / 5, 2000), 100: (1 / 10, 400), 1000: (1 / 10, 50)}


def optimizer(groups: int) -> Optimizer:
    return SGD([{"params": [torch.zeros(1, requires_grad=True)], "name": f"g{i}"} for i in range(groups)], lr=0.1)


def sequential(groups: int) -> Callable[[], Any]:
    sgd = optimizer(groups)
    parts = [LinearLR(sgd, 0.1, total_iters=WARMUP), CosineAnnealingLR(sgd, STEPS - WARMUP)]
    return SequentialLR(sgd, parts, [WARMUP]).step


def lambdas(groups: int) -> Callable[[], Any]:
    def shape(t: int) -> float:
        return t / WARMUP if t < WARMUP else (1 + math.cos(math.pi * (t - WARMUP) / (STEPS - WARMUP))) / 2

    return LambdaLR(optimizer(groups), shape).step


def one_cycle(groups: int) -> Callable[[], Any]:
    return OneCycleLR(optimizer(groups), 0.1, total_steps=STEPS * 10).step


def scheduler(groups: int, apart: bool) -> PlanScheduler:
    rates = [GroupRate(f"g{i}", 0.9**i if apart else 1.0) for i in range(groups)]
    warmup = Linear(start=0.1, length=WARMUP)
    plan = resolve_plan(lr=0.1, schedule=Cosine(), warmup=warmup, horizon=Horizon(STEPS), groups=rates)
    return PlanScheduler(optimizer(groups), plan)


def ours(groups: int, apart: bool = False) -> Callable[[], Any]:
    made = scheduler(groups, apart)

    def step() -> None:
        made.applied += 1
        made.step()

    return step


def all_of_ours(groups: int) -> Callable[[], Any]:
    made = scheduler(groups, apart=False)
    before = [*made.optimizer._optimizer_step_pre_hooks.values()]
    after = [*made.optimizer._optimizer_step_post_hooks.values()]

    def step() -> None:
        for hook in before:
            hook(made.optimizer, (), {})
        for hook in after:
            hook(made.optimizer, (), {})
        made.step()

    return step


def loop(groups: int) -> Callable[[], Any]:
    """Return the minimal scheduler in Python, as a lower bound."""
    sgd, t = optimizer(groups), 0

    def step() -> None:
        nonlocal t
        t += 1
        factor = t / WARMUP if t < WARMUP else (1 + math.cos(math.pi * (t - WARMUP) / (STEPS - WARMUP))) / 2
        for group in sgd.param_groups:
            group["lr"] = 0.1 * factor

    return step


def rows(rounds: int = 9) -> list[Row]:
    warnings.simplefilter("ignore")  # torch warns about a scheduler step without an optimizer step
    made: list[Row] = []
    for size, (aim, calls) in SIZES.items():
        ways: dict[str, Callable[[], Any]] = {
            "ours": ours(size),
            "apart": ours(size, apart=True),
            "all": all_of_ours(size),
            "loop": loop(size),
            "SequentialLR": sequential(size),
            "LambdaLR": lambdas(size),
            "OneCycleLR": one_cycle(size),
        }
        taken = in_turn({name: partial(per_call, way, calls) for name, way in ways.items()}, rounds)
        us = {name: f"{middle(each) * 1e6:.2g}" for name, each in taken.items()}
        others = ", ".join(f"{name} {us[name]}" for name in ("SequentialLR", "LambdaLR", "OneCycleLR"))
        groups = f"{size} group{'s' * (size > 1)}"
        for what, way, goal, more in (
            ("schedule", "ours", aim, f"; the bare loop {us['loop']}; {others}"),
            ("the same, each group its own base", "apart", aim, ""),
            ("the same with the checks before and after a step", "all", None, ""),
        ):
            if way == "apart" and size == 1:
                continue
            figures = f"us: {us[way]}{more}"
            measured, theirs = taken[way], taken["SequentialLR"]
            made.append(compared(f"{what}, {groups}", "SequentialLR", measured, theirs, goal, figures))
    return made


if __name__ == "__main__":
    torch.set_num_threads(1)
    command(__doc__, rows, rounds=9)

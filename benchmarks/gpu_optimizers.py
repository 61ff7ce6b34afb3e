"""Sections of the GPU benchmark: each optimizer against the CPU, the choice of its implementation, and Muon."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_training import (
    DEVICE,
    ON_GPU,
    Meter,
    Repeated,
    Schedule,
    by_lrkit,
    free_memory,
    make_batches,
    make_network,
    set_precision,
    synchronize,
)
from torch import nn

from lrkit.config.compose import compose
from lrkit.optim.factory import build_optimizer, resolve_optimizer
from lrkit.optim.muon import orthogonalize
from lrkit.training_objects.optimizers import optimizer_of

CONF = Path(__file__).parents[1] / "conf" / "optimizer"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "custom")
STEPS = 20
#: Matrices, a kernel of a convolution, and vectors.
SHAPES = [(128, 256), (256, 128), (64, 64), (16, 8, 3, 3), (256,), (128,), (1,)]
#: The largest difference from the CPU, as a share of the largest distance that a weight moved. Muon orthogonalizes in
#: bfloat16 on a GPU and in float32 on a CPU.
TOLERANCE = {"muon": 0.05}


def optimizers(add: Any, small: bool) -> None:
    """Each preset: 20 steps with the same gradients on the device and on the CPU, and the time of a step."""
    set_precision("fp32")
    for name in NAMES:
        add.attempt(partial(_compare, name, small), optimizer=name)


def _compare(name: str, small: bool) -> Mapping[str, Any]:
    target, options = optimizer_of(config := compose([f"optimizer={name}"]))
    lr = float(config["optimizer"]["lr"])
    (here, used), (there, _) = (_take_steps(target, options, lr, device) for device in (DEVICE, torch.device("cpu")))
    start = _make_parameters(torch.device("cpu"), SHAPES)
    moved = max(float((a.detach() - b.detach()).abs().max()) for a, b in zip(there, start, strict=True))
    apart = max(float((a.detach().cpu() - b.detach()).abs().max()) for a, b in zip(here, there, strict=True))
    columns = {
        "implementation": used,
        "largest difference": apart,
        "largest movement": moved,
        "share": apart / moved if moved else None,
        "same as the CPU": apart <= TOLERANCE.get(name, 1e-3) * moved,
    }
    return columns | _time_implementations(target, options, lr, small)


def _make_parameters(device: torch.device, shapes: list[Any], dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter((torch.randn(shape, generator=draw) * 0.1).to(device, dtype)) for shape in shapes]


def _take_steps(
    target: str, options: Mapping[str, Any], lr: float, device: torch.device
) -> tuple[list[nn.Parameter], str]:
    """The parameters after some steps with given gradients, and the name of the implementation."""
    parameters = _make_parameters(device, SHAPES)
    optimizer = build_optimizer(target, options, [{"params": parameters, "lr": lr, "name": "default"}])
    if hasattr(optimizer, "train"):
        optimizer.train()
    draw = torch.Generator().manual_seed(3)
    for _ in range(STEPS):
        for parameter in parameters:
            parameter.grad = (torch.randn(parameter.shape, generator=draw) * 0.01 + 0.005).to(device)
        optimizer.step()
    return parameters, _name_implementation(optimizer)


def _name_implementation(optimizer: torch.optim.Optimizer) -> str:
    group = optimizer.param_groups[0]
    if group.get("fused"):
        return "fused"
    if group.get("foreach") is None:
        return "torch's default" if "foreach" in group else "its own"
    return "foreach" if group["foreach"] else "loops"


def _time_implementations(target: str, options: Mapping[str, Any], lr: float, small: bool) -> dict[str, Any]:
    """The columns of times: the chosen implementation, and each other one that the class accepts."""
    accepted = inspect.signature(resolve_optimizer(target)).parameters
    others = {
        label: {name: value}
        for label, name, value in (("fused", "fused", True), ("foreach", "foreach", True), ("loops", "foreach", False))
        if name in accepted
    }
    times = {"chosen": _time_step(target, options, lr, small)}
    for label, how in others.items():
        try:
            times[label] = _time_step(target, {**options, **how}, lr, small)
        except Exception:
            times[label] = None
    best = min(each for each in times.values() if each is not None)
    columns: dict[str, Any] = {f"{label} us": times.get(label) for label in ("chosen", "fused", "foreach", "loops")}
    return columns | {"chosen / fastest": times["chosen"] / best if times["chosen"] else None}


def _time_step(target: str, options: Mapping[str, Any], lr: float, small: bool) -> float:
    """The microseconds of a step on 64 tensors."""
    parameters = _make_parameters(DEVICE, ([(8, 8), (8,)] if small else [(256, 256), (256,)]) * (2 if small else 32))
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer = build_optimizer(target, options, [{"params": parameters, "lr": lr, "name": "default"}])
    if hasattr(optimizer, "train"):
        optimizer.train()
    rounds, taken = 2 if small else 20, []
    for _ in range(3):
        optimizer.step()
    for _ in range(3):
        synchronize()
        begun = time.perf_counter()
        for _ in range(rounds):
            optimizer.step()
        synchronize()
        taken.append((time.perf_counter() - begun) / rounds)
    return min(taken) * 1e6


def muon(add: Any, small: bool) -> None:
    """The orthogonalization in bfloat16, and trainings of the transformer in three precisions."""
    set_precision("fp32")
    add.attempt(partial(_measure_singular_values, small), what="orthogonalize, singular values")
    batches = make_batches("transformer", small)
    how = Schedule(first=2, windows=1, length=4) if small else Schedule(windows=3, length=60)
    for precision in ("fp32", "bf16-mixed", "bf16-true"):
        for optimizer in ("adamw", "muon"):
            run = partial(_train, optimizer, precision, batches, how, small)
            add.attempt(run, what=f"{how.steps} steps of {optimizer}", precision=precision)


def _measure_singular_values(small: bool) -> Mapping[str, Any]:
    draw = torch.Generator().manual_seed(4)
    matrix = torch.randn((16, 32) if small else (512, 1024), generator=draw)
    exact = orthogonalize(matrix)
    here = orthogonalize(matrix.to(DEVICE)).cpu()
    values = torch.linalg.svdvals(here)
    return {
        "precision": "bf16" if ON_GPU else "fp32",
        "smallest": float(values.min()),
        "largest": float(values.max()),
        "difference from the CPU": float((here - exact).norm() / exact.norm()),
    }


def _train(optimizer: str, precision: str, batches: Any, how: Schedule, small: bool) -> Mapping[str, Any]:
    free_memory()
    meter = Meter(how)
    done = by_lrkit(
        make_network("transformer", small), Repeated(batches, how.steps), precision, meter,
        f"optimizer.lr={3e-3 if optimizer == 'muon' else 1e-3}", optimizer=optimizer,
    )  # fmt: skip
    loss = done.final.get("train/loss", math.nan)
    return {**meter.speed(), "status": done.status, "train/loss": loss, "finite": math.isfinite(loss)}

"""Claim: the best rate of one schedule and length gives that of another, by a bound for convex problems."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

import lrkit
from evidence.stacked_mlp import train_stack
from lrkit.data import Digits, Mnist1d
from lrkit.planning.plan import Plan

SCHEDULES = ("constant", "step", "cosine", "linear", "sqrt", "wsd")
LENGTHS = (100, 300, 900)
SEEDS = (1, 2, 3)
#: Task -> data set, batch, optimizer, and the exponents of 2 of the lowest and of the highest rate.
TASKS = {
    "MNIST-1D, momentum": (Mnist1d, 100, "momentum", -9, 1),
    "MNIST-1D, Adam": (Mnist1d, 100, "adam", -12, -2),
    "digits, momentum": (Digits, 32, "momentum", -9, 1),
    "digits, AdamW": (Digits, 32, "adamw", -12, -2),
}

#: (schedule, length) -> rate.
Rates = dict[tuple[str, int], float]


def plan_of(schedule: str, length: int, optimizer: str, lr: float = 1.0) -> Plan:
    return lrkit.plan(lr=lr, schedule=schedule, steps=length, optimizer=optimizer, warmup="linear")


def best_rate(losses: Mapping[float, float]) -> float | None:
    """Return the rate at the lowest point of a parabola through the best rate and its neighbours; None at an edge.

    >>> round(best_rate({0.1: 1.0, 0.2: 0.0, 0.4: 1.0}), 6), best_rate({0.1: 0.0, 0.2: 1.0})
    (0.2, None)
    """
    rates = sorted(losses)
    i = min(range(len(rates)), key=lambda place: losses[rates[place]])
    if i in (0, len(rates) - 1):
        return None
    low, mid, high = (losses[rates[j]] for j in (i - 1, i, i + 1))
    if not math.isfinite(low + mid + high):  # the next rate diverges
        return rates[i]
    bend = low - 2 * mid + high
    shift = 0.0 if bend <= 0 else 0.5 * (low - high) / bend
    return rates[i] * (rates[i + 1] / rates[i]) ** shift


def measure_task(name: str, quick: bool) -> tuple[Rates, list[tuple[str, int]]]:
    """Train one task; return the best rates, and the runs whose best rate is at an edge of the rates tried."""
    data, batch, optimizer, lowest, highest = TASKS[name]
    module = data(batch_size=batch)
    splits = module.load()
    tried = [2.0 ** (exponent / 2) for exponent in range(2 * lowest, 2 * highest + 1)]
    found: Rates = {}
    edges = []
    for length in (5, 10) if quick else LENGTHS:
        curves = [plan_of(schedule, length, optimizer).curve.values() for schedule in SCHEDULES]
        rates = torch.tensor([[rate * value for value in curve] for curve in curves for rate in tried])
        runs = [train_stack(splits, rates, optimizer, batch, seed) for seed in SEEDS[: 1 if quick else None]]
        means = torch.stack(runs).mean(0).view(len(SCHEDULES), len(tried)).tolist()
        for schedule, losses in zip(SCHEDULES, means, strict=True):
            best = best_rate(dict(zip(tried, losses, strict=True)))
            if best is None:
                edges.append((schedule, length))
            else:
                found[schedule, length] = best
        print(f"{name}, {length} steps: {found}", flush=True)
    return found, edges

"""Folders of finished runs whose losses follow an annealing law exactly, made without a training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lrkit.config.compose import compose
from lrkit.config.compose import plan as planned
from lrkit.prediction.annealing_law import AnnealingLaw
from lrkit.prediction.recorded_runs import sample_rates
from lrkit.runs.event_reader import Series

__all__ = ["LAW", "write_run"]

LAW = AnnealingLaw(floor=0.5, scale=2.0, exponent=0.5, gain=2.0, lag=20.0)
TASK = ("data=digits", "model=mlp", "optimizer=momentum", "optimizer.lr=0.1", "horizon.steps=400", "warmup=linear")


def write_run(
    folder: Path,
    *words: str,
    law: AnnealingLaw = LAW,
    every: int = 10,
    metric: str = "val/loss",
    noise: float = 0.0,
    status: str = "done",
    gains: Series | None = None,
) -> Path:
    """Write the files of a finished run, with its losses in ``metrics.csv``.

    Args:
        folder: a new folder.
        words: overrides beside those of ``TASK``.
        law: which the losses follow.
        every: steps between two of them.
        metric: name of the loss.
        noise: standard deviation of the losses, as a share.
        status: as in ``metrics.json``.
        gains: recorded gains.
    """
    seeds = [word for word in words if word.startswith("seed=")]
    config = _compose_task(*(word for word in words if word not in seeds))
    if seeds:
        seed = int(seeds[-1].removeprefix("seed="))
        config = {**config, "seed": seed, "data": {**config["data"], "seed": seed}}
    plan = planned(config)
    steps = plan.horizon.end or 0
    rates, width = sample_rates(plan, steps, gains)
    places = np.arange(every, steps + 1, every)
    random = np.random.default_rng([config["seed"], len(words)])
    losses = law.losses(rates, width, places) * np.exp(noise * random.standard_normal(len(places)))
    folder.mkdir(parents=True)
    for name, content in (
        ("plan.json", plan.to_json()),
        ("config.json", config),
        ("metrics.json", {"status": status, "monitor": "val/loss", "steps": steps}),
    ):
        (folder / name).write_text(json.dumps(content))
    rows = [f"{step},{loss!r}," for step, loss in zip(places.tolist(), losses.tolist(), strict=True)]
    if gains is not None:
        rows += [f"{step},,{gain!r}" for step, gain in zip(gains.steps, gains.values, strict=True)]
    (folder / "metrics.csv").write_text("\n".join([f"step,{metric},gain", *rows]) + "\n")
    return folder


@cache
def _compose_task(*words: str) -> dict[str, Any]:
    return compose([*_without(TASK, words), *words])


def _without(words: Sequence[str], others: Sequence[str]) -> list[str]:
    keys = {word.partition("=")[0] for word in others}
    return [word for word in words if word.partition("=")[0] not in keys]

"""Finished runs as loss curves with the learning rates that they used: the plan's, times the recorded gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lrkit.base.errors import ConfigError
from lrkit.planning.plan import Plan
from lrkit.prediction.annealing_law import Numbers
from lrkit.prediction.law_fit import LossCurve
from lrkit.runs.event_reader import Series
from lrkit.runs.run_folders import find_runs
from lrkit.runs.run_reader import FINISHED, Run, load_run

__all__ = ["RecordedRun", "load_recorded_runs", "sample_rates"]

#: The losses that can be predicted; the first one that every run has is taken.
METRICS = ("val/loss", "train/loss")
#: Measurements of the loss that a run needs after its warmup and the first fifth of its steps.
FEWEST = 5
SKIPPED = 0.2  # share of a run's steps at its start that are left out: the law is for what follows
_LOSSES = 1e-12, 1e12  # that shares of the loss can be computed of
_MOST_POINTS = 200  # of a fitted curve; of more, neighbours are averaged
_MOST_BLOCKS = 4_000  # values of the rate of a run; longer runs have one for several steps


@dataclass(frozen=True)
class RecordedRun:
    """A finished run.

    Args:
        name: its folder, relative to the folders that were given.
        folder: its folder.
        plan: its plan.
        seed: its seed.
        metric: name of the loss.
        curve: the part of the loss curve that is fitted, and all rates.
        series: the whole loss curve.
    """

    name: str
    folder: Path
    plan: Plan
    seed: Any
    metric: str
    curve: LossCurve
    series: Series

    @property
    def final_loss(self) -> float:
        """The last measured loss."""
        return float(self.curve.losses[-1])


def sample_rates(plan: Plan, steps: int, gains: Series | None = None) -> tuple[Numbers, int]:
    """Return the learning rate of each block of steps, and the number of steps in a block.

    Args:
        plan: its main group's rates are taken.
        steps: steps of the run.
        gains: the recorded gain, from each of its steps on; None: always 1.

    Raises:
        ConfigError: every rate is 0.
    """
    width = max(1, math.ceil(steps / _MOST_BLOCKS))
    at = [min(steps - 1, block * width + width // 2) for block in range(math.ceil(steps / width))]
    rates = np.array([plan.lr(plan.main_group, step) for step in at])
    if gains is not None and gains.steps:
        places = np.searchsorted(gains.steps, at, side="right") - 1
        rates = rates * np.where(places < 0, 1.0, np.array(gains.values)[np.maximum(places, 0)])
    if not rates.max() > 0.0:
        raise ConfigError("schedule", "must have a step with a rate above 0: without one nothing is learnt")
    return rates, width


def load_recorded_runs(paths: Sequence[Path | str]) -> list[RecordedRun]:
    """Return the finished runs at or below some folders.

    Raises:
        ConfigError: a run has no plan, did not finish, diverged, or recorded too little; or the runs have no loss in
            common.
    """
    from lrkit.config.translated_rate import load_plan

    runs = [load_run(folder, name) for folder, name in find_runs([Path(path) for path in paths]).items()]
    for run in runs:
        if run.status not in FINISHED or run.status == "unknown":
            must = "must be finished: a part of a run says too little about its end"
            raise ConfigError(str(run.folder), must, run.status)
    plans = [load_plan(str(run.folder), str(run.folder)) for run in runs]
    metric = _choose_metric(runs)
    return [_make_recorded(run, plan, metric) for run, plan in zip(runs, plans, strict=True)]


def _choose_metric(runs: Sequence[Run]) -> str:
    for metric in METRICS:
        if all(len(run.series.get(metric, Series()).steps) >= FEWEST for run in runs):
            return metric
    short = min(runs, key=lambda run: max(len(run.series.get(metric, Series()).steps) for metric in METRICS))
    counts = ", ".join(f"{len(short.series.get(metric, Series()).steps)} of {metric}" for metric in METRICS)
    must = f"must have recorded val/loss or train/loss at least {FEWEST} times, as every run"
    raise ConfigError(str(short.folder), f"{must}: trainer.val_check_interval or trainer.log_every_n_steps", counts)


def _make_recorded(run: Run, plan: Plan, metric: str) -> RecordedRun:
    series, key = run.series[metric], str(run.folder)
    length = max(series.steps[-1], min(run.steps or 0, plan.horizon.steps or 0)) or series.steps[-1]
    rates, width = sample_rates(plan, length, run.series.get("gain"))
    steps, losses = np.array(series.steps, dtype=float), np.array(series.values, dtype=float)
    if not np.all((losses >= _LOSSES[0]) & (losses <= _LOSSES[1])):
        odd = losses[~((losses >= _LOSSES[0]) & (losses <= _LOSSES[1]))][0]
        raise ConfigError(key, f"must have a {metric} that is finite and above 0", float(odd))
    kept = (steps >= max(plan.warmup_steps, 1)) & (steps > SKIPPED * length)
    steps, losses = steps[kept], losses[kept]
    if len(steps) < FEWEST:
        must = f"must have measured {metric} at least {FEWEST} times after the first fifth and the warmup"
        raise ConfigError(key, f"{must}: set trainer.val_check_interval", len(steps))
    steps, losses = _average_neighbours(steps), _average_neighbours(losses)
    part = max(1, len(losses) // 3)
    if not losses[-part:].mean() < losses[:part].mean():
        raise ConfigError(key, f"must have a {metric} that falls: the law says nothing about one that rises")
    seed = plan.config.get("seed")
    return RecordedRun(run.name, run.folder, plan, seed, metric, LossCurve(rates, width, steps, losses), series)


def _average_neighbours(values: Numbers) -> Numbers:
    """Return the means of as many neighbours as leave at most ``_MOST_POINTS`` values."""
    size = math.ceil(len(values) / _MOST_POINTS)
    starts = np.arange(0, len(values), size)
    means: Numbers = np.add.reduceat(values, starts) / np.diff([*starts, len(values)])
    return means

"""Claim: two finished runs tell the losses of other schedules, by an annealing law."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from torch import nn

import lrkit
from evidence.claim import NOT_REPRODUCED, REPRODUCED, Claim, Finding
from evidence.lab import Lab
from evidence.pictures import COLOURS, frame
from evidence.recorded_training import train_recorded
from lrkit.base.errors import ConfigError
from lrkit.base.files import read_json
from lrkit.data import Digits, Mnist1d, Text
from lrkit.data.in_memory import InMemoryData, Splits
from lrkit.models import CharTransformer, Cnn1d, Mlp
from lrkit.planning.plan import Plan
from lrkit.prediction.law_fit import LossCurve
from lrkit.prediction.prediction import GATE, PredictedRun, Prediction, predict_losses
from lrkit.prediction.recorded_runs import SKIPPED, RecordedRun, sample_rates
from lrkit.prediction.uncertainty import LEAST, SPREAD, Spread
from lrkit.runs.event_reader import Series
from lrkit.schedules import Cosine, Linear, Schedule, Step, Wsd

__all__ = ["CLAIM", "Cell", "fit_spread", "read_published"]


@dataclass(frozen=True)
class Task:
    """A small task: its data and network, and the training."""

    data: Callable[[], InMemoryData]
    network: Callable[[Splits], nn.Module]
    optimizer: str
    batch: int
    rate: float
    steps: int


TASKS = {
    "digits, MLP": Task(lambda: Digits(batch_size=32), lambda _: Mlp(64, 10), "momentum", 32, 0.05, 400),
    "MNIST-1D, CNN": Task(lambda: Mnist1d(batch_size=100), lambda _: Cnn1d(40, 10), "momentum", 100, 0.05, 800),
    "text, transformer": Task(
        lambda: Text(batch_size=32, context=32, val_samples=128),
        lambda splits: CharTransformer(32, splits.classes or 1, layers=1, width=24), "adam", 32, 0.01, 800,
    ),
}  # fmt: skip
SCHEDULES = ("constant", "cosine", "wsd", "linear", "sqrt", "step", "one_cycle", "rex")
FEW = ("constant", "cosine", "wsd", "linear", "step")
SEEDS = (1, 2, 3)
#: Factors of length and rate, with the schedules that are trained at them.
CONDITIONS = {(1.0, 1.0): SCHEDULES, (0.5, 1.0): FEW, (2.0, 1.0): FEW, (1.0, 2.0): FEW}
#: The runs that the law is fitted to.
FITTED = (("constant", "cosine"), ("constant", "cosine", "wsd"))
#: The share of the cells that 90 % intervals should cover, in percent.
COVERED = (85, 95)
PUBLISHED = "language model, 124M"
_FILE = Path(__file__).parent / "data" / "language_model_124m.csv"

#: (schedule, factor of the length, factor of the rate) -> a run.
Runs = Mapping[tuple[str, float, float], RecordedRun]


@dataclass(frozen=True)
class Cell:
    """A run that was held out, and its prediction from two or three others.

    Args:
        task: its name.
        kind: what it has that no fitted run has: schedule; length; or rate.
        misfit: of the law.
        predicted: the prediction.
        loss: the final loss.
    """

    task: str
    kind: str
    misfit: float
    predicted: PredictedRun
    loss: float

    @property
    def off(self) -> float:
        """The error of the predicted loss, as a share of that loss, by which intervals are measured."""
        return abs(self.predicted.loss - self.loss) / self.predicted.loss

    def is_covered(self, spread: Spread) -> bool:
        """Whether an interval of this spread contains the loss."""
        run = self.predicted
        return self.off <= spread.half_width(self.misfit, run.bootstrap, run.log_length, run.log_rate)


@dataclass(frozen=True)
class Pick:
    """The prediction for the schedules of one length and rate, all from the same runs.

    Args:
        kind: as of a cell.
        rank: rank correlation of predicted and final losses.
        lost: what the schedule that is predicted best loses against the best one, as a share of the loss.
        lost_without: the same for the best one of the fitted schedules; None where none of them was trained.
        wrong, told: of the schedules that are told apart from the pick, those that are better, and all.
        has_numbers: whether the prediction shows losses.
    """

    task: str
    kind: str
    rank: float
    lost: float
    lost_without: float
    wrong: int
    told: int
    has_numbers: bool


def fit_spread(cells: Sequence[Cell]) -> Spread:
    """Return the spread with which 90 % of the cells of each kind are covered."""

    def units(cell: Cell) -> float:
        noise = (cell.off / 1.645) ** 2 - cell.predicted.bootstrap**2
        return math.sqrt(max(0.0, noise)) / max(cell.misfit, LEAST)

    def of(kind: str, needed: Callable[[Cell], float]) -> float:
        values = sorted(needed(cell) for cell in cells if cell.kind == kind)
        return values[min(len(values) - 1, int(0.9 * len(values)))] if values else 0.0

    schedule = of("schedule", units)

    def beyond(cell: Cell, log: float) -> float:
        return math.sqrt(max(0.0, units(cell) ** 2 - schedule**2)) / abs(log)

    return Spread(
        schedule,
        of("length", lambda cell: beyond(cell, cell.predicted.log_length)),
        of("rate", lambda cell: beyond(cell, cell.predicted.log_rate)),
    )


def plan_of(task: Task, schedule: str, length: float, rate: float) -> Plan:
    shape: str | Schedule = Step(every="35%", gamma=0.1) if schedule == "step" else schedule
    warmup = None if schedule == "one_cycle" else "linear"
    steps = round(task.steps * length)
    return lrkit.plan(lr=task.rate * rate, schedule=shape, steps=steps, optimizer=task.optimizer, warmup=warmup)


def train_task(lab: Lab, name: str) -> list[dict[str, Any]]:
    """Train the runs of a task, or read those that were trained before: steps and validation losses of each."""
    file, task = lab.folder / f"{name.replace(', ', '_')}.json", TASKS[name]
    kept = read_json(file) or []
    done = {(run["schedule"], run["length"], run["rate"], run["seed"]) for run in kept}
    splits = task.data().load()
    for seed in SEEDS[: 1 if lab.quick else None]:
        for (length, rate), schedules in CONDITIONS.items():
            for schedule in (each for each in schedules if (each, length, rate, seed) not in done):
                plan = plan_of(task, schedule, 0.1 * length if lab.quick else length, rate)
                rates = [plan.lr(plan.main_group, step) for step in range(plan.horizon.steps or 0)]
                torch.manual_seed(seed)
                how = {"batch": task.batch, "seed": seed, "every": max(1, len(rates) // 40)}
                steps, losses = train_recorded(task.network(splits), splits, task.optimizer, rates, **how)
                what = {"schedule": schedule, "length": length, "rate": rate, "seed": seed}
                kept.append({**what, "steps": steps, "losses": losses})
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(kept))
        print(f"{name}: seed {seed}", flush=True)
    return kept


def record(name: str, plan: Plan, seed: int, steps: Sequence[int], losses: Sequence[float]) -> RecordedRun:
    """Return a run in the form in which `lrkit predict` reads it from a folder."""
    rates, width = sample_rates(plan, plan.horizon.steps or 0)
    kept = [i for i, step in enumerate(steps) if step > max(plan.warmup_steps, SKIPPED * (plan.horizon.steps or 0))]
    curve = LossCurve(rates, width, np.array([float(steps[i]) for i in kept]), np.array([losses[i] for i in kept]))
    return RecordedRun(name, Path(), plan, seed, "val/loss", curve, Series([*steps], [*losses]))


def group_runs(name: str, trained: Sequence[Mapping[str, Any]], scale: float = 1.0) -> Iterator[Runs]:
    """Yield the runs of each seed."""
    for seed in sorted({run["seed"] for run in trained}):
        own = [run for run in trained if run["seed"] == seed]
        at = {(run["schedule"], run["length"], run["rate"]): run for run in own}
        yield {
            key: record(key[0], plan_of(TASKS[name], key[0], key[1] * scale, key[2]), seed, run["steps"], run["losses"])
            for key, run in at.items()
        }


def read_published() -> Runs:
    """Return the recorded runs of a language model; most have only their last loss."""
    rows: dict[tuple[str, int], list[tuple[int, float]]] = {}
    lines = [line for line in _FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    for row in csv.DictReader(lines):
        rows.setdefault((row["schedule"], int(row["length"])), []).append((int(row["step"]), float(row["loss"])))
    found = {}
    for (schedule, length), points in rows.items():
        shape: str | Schedule = Cosine(end=1e-4) if schedule == "cosine" else "constant"
        if schedule[-2:].isdigit():
            shape = Wsd(decay=f"{schedule[-2:]}%", shape="sqrt" if schedule.startswith("sqrt") else "linear")
        plan = lrkit.plan(
            lr=1e-3, schedule=shape, steps=length, optimizer="adamw", warmup=Linear(length=300, start=0.01)
        )
        steps, losses = zip(*points, strict=True)
        found[schedule, length / 25_000, 1.0] = record(schedule, plan, 0, steps, losses)
    return found


def predict_held_out(name: str, runs: Runs, fitted: Sequence[str]) -> Iterator[tuple[list[Cell], Pick]]:
    """Yield the cells and the pick of each length and rate, predicted from runs of the first ones."""
    known = [runs[schedule, 1.0, 1.0] for schedule in fitted]
    for length, rate in dict.fromkeys((length, rate) for _, length, rate in runs):
        kind = "rate" if rate != 1.0 else "length" if length != 1.0 else "schedule"
        there = {schedule: run for (schedule, *at), run in runs.items() if (length, rate) == tuple(at)}
        found = predict_losses(known, {schedule: run.plan for schedule, run in there.items()})
        losses = {schedule: run.final_loss for schedule, run in there.items()}
        new = [run for run in found.predicted if (run.label, length, rate) not in {(s, 1.0, 1.0) for s in fitted}]
        cells = [Cell(name, kind, found.misfit, run, losses[run.label]) for run in new]
        yield cells, _make_pick(name, kind, found, new, losses, fitted)


def _make_pick(
    name: str,
    kind: str,
    found: Prediction,
    new: Sequence[PredictedRun],
    losses: Mapping[str, float],
    fitted: Sequence[str],
) -> Pick:
    lowest, pick = min(losses.values()), found.predicted[0].label
    pairs = [(a.loss < b.loss) == (losses[a.label] < losses[b.label]) for a, b in combinations(new, 2)]
    told = [run.label for run in found.predicted if not run.mark]
    without = min((losses[schedule] for schedule in fitted if schedule in losses), default=math.nan)
    return Pick(
        name, kind, 2.0 * fmean(pairs) - 1.0 if pairs else math.nan,
        losses[pick] / lowest - 1.0, without / lowest - 1.0,
        sum(losses[label] < losses[pick] for label in told), len(told), found.has_numbers,
    )  # fmt: skip


def measure(lab: Lab) -> Finding:
    cells, picks = list[Cell](), list[Pick]()
    groups = {name: [*group_runs(name, train_task(lab, name), 0.1 if lab.quick else 1.0)] for name in TASKS}
    for name, each in {**groups, PUBLISHED: [read_published()]}.items():
        for runs in each:
            for fitted in FITTED:
                present = [s if (s, 1.0, 1.0) in runs else "wsd20" for s in fitted]
                try:
                    found = list(predict_held_out(name, runs, present))
                except ConfigError as error:  # the law does not fit
                    print(f"{name}: {error}")
                    found = []
                cells += [cell for some, _ in found for cell in some]
                picks += [pick for _, pick in found]
    names = list(dict.fromkeys(cell.task for cell in cells))
    spreads = {name: fit_spread([cell for cell in cells if cell.task != name]) for name in names}
    head = ["task", "held out", "cells", "off by, %: median, worst", "rank", "pick loses, %", "without, %",
            "wrongly told apart", "losses shown, %", "covered, %"]  # fmt: skip
    table = [head]
    for name in names:
        for kind in ("schedule", "length", "rate"):
            own = [cell for cell in cells if (cell.task, cell.kind) == (name, kind)]
            if own:
                table.append(_row(name, kind, own, [p for p in picks if (p.task, p.kind) == (name, kind)], spreads))
    for kind in ("schedule", "length", "rate"):
        own = [cell for cell in cells if cell.kind == kind]
        table.append(_row("all", kind, own, [p for p in picks if p.kind == kind], spreads))
    table.append(_row("all", "any", cells, picks, spreads))
    return _judge(cells, picks, spreads, table)


def _judge(
    cells: Sequence[Cell], picks: Sequence[Pick], spreads: Mapping[str, Spread], table: Sequence[Sequence[str]]
) -> Finding:
    share, fitted = _share_covered(cells, spreads), fit_spread(cells)
    told = {name: any(pick.has_numbers for pick in picks if pick.task == name) for name in spreads}
    close = [cell.off for cell in cells if told[cell.task] and cell.kind == "schedule"]
    far = [cell.off for cell in cells if not told[cell.task] and cell.kind == "schedule"]
    ranks = [pick.rank for pick in picks if pick.kind == "schedule"]
    by_task = [_share_covered([cell for cell in cells if cell.task == name], spreads) for name in spreads]
    rows = {
        kind: _share_covered([cell for cell in cells if cell.kind == kind], spreads) for kind in ("schedule", "length")
    }
    words = (
        f"For schedules of the fitted length {fmean(ranks):.2f} is the mean rank correlation. Where the law fits well "
        f"enough for losses ({'; '.join(name for name, good in told.items() if good)}), they are off by "
        f"{100 * median(close):.2f} % in the median, {100 * max(close):.2f} % at worst; elsewhere by "
        f"{100 * median(far or [math.nan]):.0f} %, and only the ranking is shown. "
        f"Intervals with the spread of the other three tasks "
        f"contain {share:.0f} % of {len(cells)} losses ({rows['schedule']:.0f} % for another schedule, "
        f"{rows['length']:.0f} % for another length), {min(by_task):.0f} to {max(by_task):.0f} % of a task's. "
        f"The spread of all four is {fitted.schedule:.2f} for a schedule, "
        f"{fitted.length:.1f} for a length and {fitted.rate:.1f} for a rate; lrkit uses {SPREAD.schedule:g}, "
        f"{SPREAD.length:g} and {SPREAD.rate:g}."
    )
    first = REPRODUCED if fmean(ranks) >= 0.8 else NOT_REPRODUCED
    second = REPRODUCED if close and max(close) <= GATE else NOT_REPRODUCED
    third = REPRODUCED if COVERED[0] <= share <= COVERED[1] else NOT_REPRODUCED
    return Finding(f"ranking: {first}; losses: {second}; intervals: {third}", words, table, _draw(cells))


def _share_covered(cells: Sequence[Cell], spreads: Mapping[str, Spread]) -> float:
    return 100 * sum(cell.is_covered(spreads[cell.task]) for cell in cells) / max(1, len(cells))


def _row(
    name: str, kind: str, cells: Sequence[Cell], picks: Sequence[Pick], spreads: Mapping[str, Spread]
) -> list[str]:
    offs, ranks = [100 * cell.off for cell in cells], [pick.rank for pick in picks if not math.isnan(pick.rank)]
    without = [pick.lost_without for pick in picks if not math.isnan(pick.lost_without)]
    return [
        name, kind, str(len(cells)), f"{median(offs):.3g}, {max(offs):.3g}", f"{fmean(ranks):.2f}",
        f"{100 * fmean(pick.lost for pick in picks):.1f}", f"{100 * fmean(without):.1f}" if without else "-",
        f"{sum(pick.wrong for pick in picks)} of {sum(pick.told for pick in picks)}",
        f"{100 * fmean(pick.has_numbers for pick in picks):.0f}", f"{_share_covered(cells, spreads):.0f}",
    ]  # fmt: skip


def _draw(cells: Sequence[Cell]) -> Any:
    names = list(dict.fromkeys(cell.task for cell in cells))
    figure, axes = frame(*((f"{name}: final loss", "predicted") for name in names), width=4.0 * len(names), height=3.6)
    for ax, name in zip(axes, names, strict=True):
        for i, kind in enumerate(("schedule", "length", "rate")):
            own = [cell for cell in cells if (cell.task, cell.kind) == (name, kind)]
            label = f"another {kind}"
            ax.plot([cell.predicted.loss for cell in own], [cell.loss for cell in own], ls="", marker="o^s"[i], ms=4,
                    color=COLOURS[i], alpha=0.7, label=label)  # fmt: skip
        ends = [cell.loss for cell in cells if cell.task == name]
        ax.plot([min(ends), max(ends)], [min(ends), max(ends)], color="0.6", lw=1)
    axes[0].legend(frameon=False, fontsize=8)
    return figure


CLAIM = Claim(
    "The loss of a schedule that was not trained",
    "The validation loss of language models under any schedule follows one law of the sum and the annealing of the "
    "learning rates, which a run or two determine (Tissue et al. 2024, arXiv:2408.11029).",
    "`python -m evidence predict`: an MLP on digits, the CNN on MNIST-1D (momentum) and a one-layer character "
    "transformer (Adam), and recorded runs of a language model of 124 million parameters (those of Schaipp et al. "
    "2025, arXiv:2501.18965; source and license are in evidence/data). The law is fitted to a fixed rate and a cosine, "
    "then to these and `wsd`, each of one seed (of three), as `lrkit predict` does. Held out: the other schedules of "
    "eight at this length and rate; five at half and at twice the length; five at twice the rate; eight runs of the "
    "language model. *Off by*: as a share of the predicted loss. *Rank*: Kendall's correlation with the final losses "
    "of one seed. *Pick loses*: final loss of the schedule that is predicted best, above the best one's. *Without*: "
    "that of the best fitted schedule. *Wrongly told apart*: schedules that are marked as worse than the pick and are "
    "better. *Covered*: by 90 % intervals whose spread is fitted to the other three tasks. The first fifth of a run, "
    f"which is left out, the bound of the law at 0, the gate of {GATE:.0%} and the least misfit were chosen after a "
    "look at these tasks, so only the coverage is held out. Ranking: the mean rank correlation for schedules is 0.8 or "
    f"more. Losses: where they are shown, none is off by more than {GATE:.0%} for another schedule. Intervals: they "
    f"contain {COVERED[0]} to {COVERED[1]} %.",
    measure,
    [
        "lrkit train -m data=digits model=mlp schedule=constant,cosine",
        "lrkit predict outputs/sweeps/... schedule=linear,wsd",
    ],
)

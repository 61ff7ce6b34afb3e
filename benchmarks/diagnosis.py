"""How often does the diagnosis detect a bad learning rate, and how often is it wrong, on real runs of known class?

    python benchmarks/diagnosis.py             all tasks: about ten minutes on one core
    python benchmarks/diagnosis.py --tuning    the tasks and seeds that were used to choose the thresholds
    python benchmarks/diagnosis.py --quick     one task, one optimizer

For each task and optimizer, a sweep of rates with cosine decay gives the best rate, by the last validation loss. Then
the benchmark trains runs of each class:

    healthy     the best rate by every schedule of ``SCHEDULES``; and half of it, by cosine and fixed
    too high    10 and 30 times the best rate, by cosine and fixed; if the loss is a tenth above the best one
    too low     a 30th and a 100th of the best rate, with the same condition
    early       the best rate, times 0.01 after 15 % of the run; with the same condition
    overfitting a large MLP on few samples for many epochs; if the validation loss ends a tenth above its lowest

A run that is worse by less than a tenth has no class, and is counted separately. Advice is good if its rate is nearer
to the best rate, in decades, than the rate of the run. A finding about the rate of a healthy run is wrong; this run is
trained again at the advised rate, to measure the loss of following the advice.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from loop import train

from lrkit.callbacks.loss_recorder import LossRecorder
from lrkit.config import compose as configs
from lrkit.runs.diagnosis import DECAYED_EARLY, OVERFITTING, TOO_HIGH, TOO_LOW, Curves, Finding, diagnose
from lrkit.runs.event_reader import Series
from lrkit.training_objects.data import data_of

TASKS = {
    "digits, MLP 128": [
        "data=digits", "model=mlp", "model.hidden=[128]", "data.batch_size=64", "trainer.max_epochs=20",
    ],
    "digits, CNN": ["data=digits", "model=cnn2d", "model.widths=[8,16]", "trainer.max_epochs=8"],
    "MNIST-1D, MLP, batch 20": [
        "data=mnist1d", "model=mlp", "data.batch_size=20", "data.train_samples=2000", "trainer.max_epochs=8",
    ],
    "MNIST-1D, CNN": ["data=mnist1d", "model=cnn1d", "data.train_samples=1000", "data.batch_size=50",
                      "trainer.max_epochs=15"],
    "MNIST-1D, linear": ["data=mnist1d", "model=linear", "data.batch_size=100", "trainer.max_epochs=10"],
}  # fmt: skip
TUNED_ON = {
    "digits, MLP": ["data=digits", "model=mlp", "trainer.max_epochs=15"],
    "digits, MLP, batch 8": ["data=digits", "model=mlp", "data.batch_size=8", "trainer.max_epochs=6"],
    "digits, linear": ["data=digits", "model=linear", "trainer.max_epochs=12"],
    "MNIST-1D, MLP": ["data=mnist1d", "model=mlp", "trainer.max_epochs=15"],
    "MNIST-1D, CNN, batch 100": ["data=mnist1d", "model=cnn1d", "data.train_samples=2000", "trainer.max_epochs=12"],
}
RATES = {
    "momentum": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0],
    "sgd": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
    "adamw": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
    "rmsprop": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
}
SCHEDULES = {
    "cosine": ["schedule=cosine"],
    "constant": ["schedule=constant"],
    "step": ["schedule=step"],
    "one_cycle": ["schedule=one_cycle"],
    "restarts": ["schedule=restarts"],
    "cyclic": ["schedule=cyclic"],
    "wsd": ["schedule=wsd", "warmup=linear"],
    "plateau": ["schedule=plateau", "plateau.patience=1"],
}
OVERFIT = {
    f"MNIST-1D, {samples} samples": [
        "data=mnist1d", f"data.train_samples={samples}", "data.batch_size=20", "model.hidden=[256,256]",
        f"trainer.max_epochs={epochs}",
    ]
    for samples, epochs in ((200, 60), (500, 30))
}  # fmt: skip
FITTING = {"momentum": 0.05, "adamw": 3e-3, "sgd": 0.3, "rmsprop": 1e-3}
WORSE = 1.1  #: ratio to the best loss, or to the run's lowest loss, from which a loss counts as worse


def curves(losses: list[float], rates: list[float], validated: list[tuple[int, float]]) -> Curves:
    """Return the curves that a run records."""
    trace = LossRecorder()
    for step, (loss, rate) in enumerate(zip(losses, rates, strict=True), start=1):
        trace.add(torch.tensor(loss), lambda rate=rate: rate, step)
    trace.validated = Series([step for step, _ in validated], [loss for _, loss in validated])
    return trace.curves()


class Bench:
    """Trains runs, and optionally writes a record of each one."""

    def __init__(self, keep: Path | None) -> None:
        self.data: dict[tuple[str, ...], Any] = {}
        self.keep = None if keep is None else keep.open("w")

    def again(self, run: dict[str, Any], finding: Finding) -> str:
        """Train a run again at the advised rate, and return both losses as text."""
        if finding.kind not in (TOO_HIGH, TOO_LOW):
            return ""
        other = self.run(run["overrides"], advised(finding), run["seed"])
        return f" (loss {run['loss']:.3f}; at that rate {other['loss']:.3f})"

    def run(self, overrides: list[str], lr: float, seed: int, **known: Any) -> dict[str, Any]:
        config = configs.compose([*overrides, f"optimizer.lr={lr!r}", f"seed={seed}", "allow_extreme_lr=true"])
        key = (*(part for part in overrides if part.startswith("data")), str(seed))
        if key not in self.data:
            self.data.clear()
            self.data[key] = data_of(config)
            self.data[key].setup()
        done = train(config, self.data[key], validate=True)
        run = {
            **known, "overrides": overrides, "lr": lr, "seed": seed, "loss": done.loss,
            "lowest": min((loss for _, loss in done.validated), default=math.inf),
            "losses": done.losses, "rates": done.rates, "validated": done.validated,
        }  # fmt: skip
        found = diagnose(curves(done.losses, done.rates, done.validated), configs.plan(config))
        if self.keep is not None:
            self.keep.write(json.dumps(run) + "\n")
        return {**run, "found": found}


def cell(bench: Bench, task: str, parts: list[str], optimizer: str, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all runs of a task with an optimizer, each with its true class; an empty string is no class."""
    base, about = [*parts, f"optimizer={optimizer}"], {"task": task, "optimizer": optimizer}
    sweep = [bench.run([*base, "schedule=cosine"], lr, seed, **about, schedule="cosine") for lr in RATES[optimizer]]
    best = min(sweep, key=lambda run: run["loss"])
    lr = best["lr"]
    for name, schedule in SCHEDULES.items():
        for rate in {"cosine": [lr / 2], "constant": [lr, lr / 2]}.get(name, [lr]):
            yield "healthy", bench.run([*base, *schedule], rate, seed, **about, schedule=name)
    yield "healthy", best
    about["best"] = lr
    for name in ("cosine", "constant"):
        for truth, factors in ((TOO_HIGH, (10, 30)), (TOO_LOW, (1 / 30, 1 / 100))):
            for factor in factors:
                run = bench.run([*base, *SCHEDULES[name]], lr * factor, seed, **about, schedule=name)
                yield truth if run["loss"] > WORSE * best["loss"] else "", run
    early = bench.run([*base, "schedule=step", "schedule.every=15%", "schedule.gamma=0.01"], lr, seed, **about,
                      schedule="early step")  # fmt: skip
    yield DECAYED_EARLY if early["loss"] > WORSE * best["loss"] else "", early


def advised(finding: Finding) -> float:
    """Return the learning rate that a finding advises."""
    return float(finding.advice.removeprefix("optimizer.lr=").split(" ")[0])


def right(truth: str, run: dict[str, Any], found: Finding) -> bool:
    """Return whether a finding is right. A run of any class may overfit, as its validation loss shows."""
    if found.kind == OVERFITTING:
        return bool(run["loss"] > WORSE * run["lowest"])
    return found.kind == truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuning", action="store_true", help="use the tasks and seeds that chose the thresholds")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keep", type=Path, help="file for the runs with their curves, one line of JSON each")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    bench, seeds, since = Bench(asked.keep), ((101, 102) if asked.tuning else (3, 4)), time.perf_counter()
    tasks = TUNED_ON if asked.tuning else TASKS
    counts: Counter[tuple[str, str]] = Counter()
    nearer: list[bool] = []

    def count(truth: str, run: dict[str, Any]) -> None:
        true = [found for found in run["found"] if right(truth, run, found)]
        wrong = [found for found in run["found"] if not right(truth, run, found)]
        for found in true:
            if found.kind in (TOO_HIGH, TOO_LOW):
                nearer.append(abs(math.log(advised(found) / run["best"])) < abs(math.log(run["lr"] / run["best"])))
        missed = truth not in ("", "healthy") and not any(found.kind == truth for found in true)
        if truth == "healthy" or not truth:
            counts[truth, "wrong" if wrong else "silent"] += 1
        else:
            counts[truth, "wrong" if wrong else "missed" if missed else "seen"] += 1
        label = f"{run['task']}, {run['optimizer']}, {run['schedule']}, lr {run['lr']:.3g}, seed {run['seed']}"
        for found in wrong:
            print(f"  wrong ({truth or 'no class'}): {label}: {found}{bench.again(run, found)}", file=sys.stderr)
        if missed and not wrong:
            print(f"  missed: {truth}: {label}: {run['loss']:.3f}", file=sys.stderr)

    for i, (task, parts) in enumerate(tasks.items()):
        for j, optimizer in enumerate(RATES):
            if asked.quick and (i or j):
                continue
            for truth, run in cell(bench, task, parts, optimizer, seeds[(i + j) % 2]):
                count(truth, run)
        print(f"{task}: {time.perf_counter() - since:.0f} s", file=sys.stderr)
    for task, parts in OVERFIT.items() if not asked.quick else ():
        for optimizer, lr in FITTING.items():
            for seed in seeds:
                run = bench.run([*parts, f"optimizer={optimizer}", "schedule=constant"], lr, seed, task=task,
                                optimizer=optimizer, schedule="constant")  # fmt: skip
                count(OVERFITTING if run["loss"] > WORSE * run["lowest"] else "", run)
    print("| truth | runs | seen | missed | wrong |\n|---|--:|--:|--:|--:|")
    for truth in (TOO_HIGH, TOO_LOW, DECAYED_EARLY, OVERFITTING):
        row = [counts[truth, answer] for answer in ("seen", "missed", "wrong")]
        print(f"| {truth} | {sum(row)} | {' | '.join(map(str, row))} |")
    for truth in ("healthy", ""):
        silent, wrong = counts[truth, "silent"], counts[truth, "wrong"]
        print(f"| {truth or 'in between'} | {silent + wrong} | | {silent} silent | {wrong} |")
    print(f"{sum(nearer)} of {len(nearer)} advised rates are nearer to the best rate than the run's rate")
    print(f"{sum(counts.values())} runs, {time.perf_counter() - since:.0f} s")


if __name__ == "__main__":
    main()

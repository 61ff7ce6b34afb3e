"""Claim: a range test of a hundred steps finds the range of usable learning rates."""

from __future__ import annotations

import csv
import json
import math
from statistics import fmean, geometric_mean
from typing import Any

from evidence.claim import NOT_REPRODUCED, REPRODUCED, Claim, Finding
from evidence.decay import at_best_rate, at_rates
from evidence.lab import Lab, Runs, accuracy, by, over_seeds
from evidence.pictures import COLOURS, frame, logarithmic
from lrkit.comparison.statistics import Interval
from lrkit.lr_finder.curve_analysis import smooth_losses
from lrkit.runs.run_reader import Run

#: Points of accuracy that the suggestion may lose, and the factor by which the range test may misplace the cliff.
LOST, FACTOR = 1.0, 4.0
#: A run is lost if it diverged, or if it ended below this share of the best accuracy.
COLLAPSED = 0.5
#: The loss at the upper edge of the figure: slightly above that of guessing.
TOP = 2.65
NAMES = {True: "`lrkit find`: range tests and confirmation runs", False: "the range test alone"}


def measure(lab: Lab) -> Finding:
    # A search runs three range tests, with its seed and the next two seeds; these seeds let no two searches share one.
    found = lab.sweep(
        "find", "+experiment=decay", "optimizer.lr=auto", "find.confirm=true,false", "seed=1,4,7",
        "trainer.check_val_every_n_epoch=25",
        quick=["seed=1", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1"],
    )  # fmt: skip
    grid = lab.sweep(
        "grid", "+experiment=decay", "+sweep=range_test", "trainer.check_val_every_n_epoch=25",
        quick=["optimizer.lr=0.1,0.4", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1"],
    )  # fmt: skip
    at = at_rates(grid)["cosine"]
    searched = {key[0]: runs for key, runs in by(found, "find.confirm").items()}
    best = at_best_rate(at)
    truth = over_seeds(at[best], accuracy)
    reached = {confirmed: over_seeds(runs, accuracy) for confirmed, runs in searched.items()}
    lost = {confirmed: fmean(truth.values()) - fmean(values.values()) for confirmed, values in reached.items()}
    tests = [_read_search(run) for run in searched[False].values()]
    steepest = [test["reading"]["estimates"]["steepest"] for test in tests if test["reading"]["estimates"]]
    lowest = [test["reading"]["minimum"] for test in tests if test["reading"]["minimum"]]
    cliff = [rate for test in tests for rate in test["diverged"]]
    first = _find_first_lost(at, fmean(truth.values()))
    near = bool(cliff) and first is not None and 1 / FACTOR <= geometric_mean(cliff) / first <= FACTOR
    table = [["", "rate", "test accuracy, %", "points lost"]]
    table.append(["best of the grid, complete trainings", f"{best:g}", str(Interval.of([*truth.values()])), ""])
    for confirmed, values in reached.items():
        rates = ", ".join(f"{run.facts['optimizer.lr']:g}" for _, run in sorted(searched[confirmed].items()))
        table.append([NAMES[confirmed], rates, str(Interval.of([*values.values()])), f"{lost[confirmed]:.1f}"])
    table.append(["range tests: the loss falls steepest", _format_range(steepest), "", ""])
    table.append(["range tests: the loss is lowest", _format_range(lowest), "", ""])
    table.append(["range tests: the loss diverges", _format_range(cliff), "", ""])
    table.append(["complete trainings: the first that is lost", "none" if first is None else f"{first:g}", "", ""])
    words = (
        f"The suggestion of the whole search loses {lost[True]:.1f} points against the best of the grid; the "
        f"suggestion of the range tests alone, without confirmation runs, {lost[False]:.1f}. "
    )
    if cliff and first is not None:
        words += (
            f"The range tests diverge at {geometric_mean(cliff):.2g}, {geometric_mean(cliff) / first:.2g} times the "
            f"first rate of the grid at which a complete run is lost. "
        )
    words += (
        "Not shown: whether the curve shows the lower end of the range. The grid has factors of 2, so the point of "
        "divergence is not known more exactly."
    )
    parts = [lost[True] <= LOST, near]
    said = REPRODUCED if all(parts) else NOT_REPRODUCED
    if any(parts) and not all(parts):
        held, other = ("suggestion", "cliff")[:: 1 if parts[0] else -1]
        said = f"{REPRODUCED} for the {held}, not for the {other}"
    return Finding(said, words, table, _draw(tests, at, searched))


def _read_search(run: Run) -> dict[str, Any]:
    """Return the files of a search: its reading, the curves of its range tests, and the rates where they diverged."""
    folder = run.folder / "find"
    said = json.loads((folder / "find.json").read_text())
    curves: dict[str, list[tuple[float, float]]] = {}
    with (folder / "find.csv").open() as rows:
        for row in csv.DictReader(rows):
            curves.setdefault(row["repeat"], []).append((float(row["lr"]), float(row["loss"])))
    ended = [sweep["ended"] for sweep in said["sweeps"]]
    diverged = [curve[-1][0] for curve, why in zip(curves.values(), ended, strict=True) if "its end" not in why]
    return {"reading": said["reading"], "curves": [*curves.values()], "diverged": diverged}


def _find_first_lost(at: dict[float, Runs], best: float) -> float | None:
    """Return the lowest rate at which a seed diverged or collapsed; None if there is none."""
    lost = [rate for rate, runs in at.items() if min(map(accuracy, runs.values())) < COLLAPSED * best]
    return min(lost, default=None)


def _format_range(rates: list[float]) -> str:
    """Return the geometric mean and the range of rates, as text."""
    if not rates:
        return "none"
    return f"{geometric_mean(rates):.2g} ({min(rates):.2g} to {max(rates):.2g})"


def _draw(tests: list[dict[str, Any]], at: dict[float, Runs], searched: dict[Any, Runs]) -> Any:
    figure, [left, right] = frame(
        ("the range tests: training loss, smoothed", "learning rate"),
        ("complete trainings: test accuracy, %", "learning rate"), height=3.5,
    )  # fmt: skip
    for test in tests:
        for curve in test["curves"]:
            rates, losses = zip(*curve, strict=True)
            left.plot(rates, smooth_losses(rates, losses), lw=1.2, alpha=0.7, color=COLOURS[0])
        left.plot(test["diverged"], [TOP - 0.03] * len(test["diverged"]), ls="", marker="x", color=COLOURS[0])
    left.set_ylim(2.1, TOP)
    left.set_xlim(1e-3, 5)
    left.axhline(math.log(10), color="#999", lw=0.8, ls=":")
    left.text(1.1e-3, math.log(10) + 0.02, "guessing", fontsize=8, color="#777")
    left.text(1.1e-3, TOP - 0.04, "x: diverged", fontsize=8, color="#777")
    for rate, runs in at.items():
        values = [*map(accuracy, runs.values())]
        right.plot([rate] * len(values), values, ls="", marker="o", ms=4, alpha=0.6, color=COLOURS[0])
    right.plot([*at], [fmean(map(accuracy, runs.values())) for runs in at.values()], lw=1.5, color=COLOURS[0])
    for i, (confirmed, runs) in enumerate(searched.items(), start=1):
        rates = [run.facts["optimizer.lr"] for run in runs.values()]
        right.plot(
            rates, [*map(accuracy, runs.values())], ls="", marker="Ds"[confirmed], ms=5, color=COLOURS[i],
            label=("range test alone", "with confirmation runs")[confirmed],
        )  # fmt: skip
        for rate in rates:
            left.axvline(rate, color=COLOURS[i], lw=0.9, alpha=0.7)
    right.set_ylim(0, 100)
    right.legend(frameon=False, fontsize=8, loc="lower left", title="trained at what was suggested", title_fontsize=8)
    left.set_xscale("log")
    logarithmic(right, at)
    return figure


CLAIM = Claim(
    "The range test",
    "A range test, a single short run with a rising rate, shows the range of usable rates (Smith 2015, "
    "arXiv:1506.01186, section 3.3). Example: Caffe's CIFAR-10 network, lowest rate 0.001, highest 0.006.",
    "A CNN on MNIST-1D, SGD with momentum, cosine with 5 % linear warmup, 1000 steps of 100. Three searches by "
    "`optimizer.lr=auto`, each with three range tests of 100 steps from 1e-7 upwards and then short confirmation "
    "runs. One run trains at each suggested rate, and one at the rate that the range tests alone suggest "
    "(`find.confirm=false`). For comparison: complete runs at 7 rates, 2 seeds; validation accuracy chooses the "
    f"best. Reproduced: the suggestion loses at most {LOST:g} point of test accuracy against this best run, and "
    f"the range tests diverge (geometric mean) within a factor of {FACTOR:g} of the first rate of the grid at "
    "which a seed diverges or ends below half of the best.",
    measure,
    ["lrkit find +experiment=decay", "lrkit train -m +experiment=decay optimizer.lr=auto seed=1,4,7",
     "lrkit train -m +experiment=decay +sweep=range_test"],
)  # fmt: skip

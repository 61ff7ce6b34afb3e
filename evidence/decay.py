"""Claim: a decay is better than a fixed rate; and which decays differ separably."""

from __future__ import annotations

from statistics import fmean

from evidence.claim import NOT_REPRODUCED, NOT_SEPARABLE, REPRODUCED, Claim, Finding, edge, more, verdict
from evidence.lab import Lab, Runs, accuracy, by, over_seeds
from evidence.pictures import COLOURS, frame, logarithmic
from lrkit.comparison.statistics import Interval, means_differ
from lrkit.runs.run_reader import Run

__all__ = ["CLAIM", "at_best_rate", "at_rates"]


def at_rates(runs: list[Run]) -> dict[str, dict[float, Runs]]:
    """Return schedule -> rate -> seed -> run."""
    found: dict[str, dict[float, Runs]] = {}
    for (schedule, rate), some in by(runs, "schedule", "optimizer.lr").items():
        found.setdefault(schedule, {})[rate] = some
    return {schedule: dict(sorted(at.items())) for schedule, at in found.items()}


def at_best_rate(at: dict[float, Runs]) -> float:
    """Return the rate with the best mean final validation accuracy over seeds."""
    return max(at, key=lambda rate: fmean(over_seeds(at[rate], lambda run: accuracy(run, "val")).values()))


def measure(lab: Lab) -> Finding:
    runs = lab.sweep(
        "sweep", "+experiment=decay", "+sweep=decay",
        quick=["schedule=constant,cosine", "optimizer.lr=0.1", "seed=1,2", "trainer.max_epochs=1"],
    )  # fmt: skip
    families = at_rates(runs)
    best = {schedule: at_best_rate(at) for schedule, at in families.items()}
    values = {schedule: over_seeds(at[best[schedule]], accuracy) for schedule, at in families.items()}
    order = sorted(values, key=lambda schedule: -fmean(values[schedule].values()))
    table = [["schedule", "its best rate", "test accuracy, %", "more than fixed", "against the best"]]
    for schedule in order:
        at_edge = edge(best[schedule], families[schedule])
        lower = means_differ(values[order[0]], values[schedule])
        same = "best" if schedule == order[0] else "lower" if lower else "not separable"
        gain = "" if schedule == "constant" else str(more(values[schedule], values["constant"]))
        reached = str(Interval.of([*values[schedule].values()]))
        table.append([schedule, f"{best[schedule]:g}{at_edge}", reached, gain, same])
    said = {schedule: verdict(values[schedule], values["constant"]) for schedule in order if schedule != "constant"}
    won = [schedule for schedule, word in said.items() if word == REPRODUCED]
    alike = [schedule for schedule in order[1:] if not means_differ(values[order[0]], values[schedule])]
    rest = [schedule for schedule in said if schedule not in won]
    words = f"Better than the fixed rate, each at its best rate: {', '.join(won) or 'none'}."
    words += f" Not: {', '.join(f'{schedule} ({said[schedule]})' for schedule in rest)}." if rest else ""
    words += f" Not separable from the best ({order[0]}): {', '.join(alike) or 'none'}."
    panels = ("test accuracy over the rate, %", "learning rate"), ("each at its own best rate, %", "")
    figure, axes = frame(*panels, height=3.8)
    for i, (schedule, at) in enumerate(families.items()):
        means = {rate: fmean(over_seeds(some, accuracy).values()) for rate, some in at.items()}
        axes[0].plot([*means], [*means.values()], marker="o", ms=4, lw=1.5, color=COLOURS[i], label=schedule)
        seen, place = [*values[schedule].values()], order.index(schedule)
        axes[1].plot(seen, [place] * len(seen), ls="", marker="o", ms=4, alpha=0.6, color=COLOURS[i])
        axes[1].plot([fmean(seen)], [place], ls="", marker="|", ms=16, mew=2, color=COLOURS[i])
    logarithmic(axes[0], next(iter(families.values())))
    axes[0].set_ylim(bottom=max(axes[0].get_ylim()[0], 60 if not lab.quick else 0))
    axes[0].legend(frameon=False, fontsize=8)
    axes[1].set_yticks(range(len(order)), order)
    axes[1].invert_yaxis()
    return Finding(REPRODUCED if won and not rest else _describe_part(won, said), words, table, figure)


def _describe_part(won: list[str], said: dict[str, str]) -> str:
    if won:
        return f"{REPRODUCED} for {len(won)} of {len(said)} decays"
    return NOT_REPRODUCED if NOT_REPRODUCED in said.values() else NOT_SEPARABLE


CLAIM = Claim(
    "Decay beats a fixed rate",
    'A decaying rate ends better than the best fixed one; linear decay "matches or outperforms" the others, '
    "also cosine (Defazio et al. 2023, arXiv:2310.07831, abstract). The kind of decay matters less than the decay"
    " itself.",
    "A CNN of 5,210 weights on MNIST-1D, SGD with momentum, 1000 steps of 100, 5 % linear warmup, 7 schedules x 4"
    " rates x 4 seeds. For each schedule, validation accuracy at the end chooses the rate; 10,000 test signals "
    'judge it. "Edge" marks a best rate that is the lowest or highest of the sweep: a better one may lie '
    "beyond.",
    measure,
    ["lrkit train -m +experiment=decay +sweep=decay", "lrkit compare outputs/sweeps/... by=final metric=val/accuracy"],
)

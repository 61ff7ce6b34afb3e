"""Claim: the best rate of one schedule and length gives that of another, by a bound for convex problems."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import median

import torch

import lrkit
from evidence.claim import NOT_REPRODUCED, REPRODUCED, Claim, Finding
from evidence.lab import Lab
from evidence.pictures import COLOURS, frame, logarithmic
from lrkit.base.files import read_json
from lrkit.config.compose import compose
from lrkit.planning.plan import Plan
from lrkit.planning.rate_translation import EXPONENT, WIDTHS, RateTranslation, Widths, translate
from lrkit.stacking.short_trainings import train_members

__all__ = ["CLAIM", "Cell", "best_rate", "loss_at"]

SCHEDULES = ("constant", "step", "cosine", "linear", "sqrt", "wsd")
LENGTHS = (100, 300, 900)
SEEDS = (1, 2, 3)
#: Task -> data set, batch, optimizer, and the exponents of 2 of the lowest and of the highest rate.
TASKS = {
    "MNIST-1D, momentum": ("mnist1d", 100, "momentum", -9, 1),
    "MNIST-1D, Adam": ("mnist1d", 100, "adam", -12, -2),
    "digits, momentum": ("digits", 32, "momentum", -9, 1),
    "digits, AdamW": ("digits", 32, "adamw", -12, -2),
}
#: The share of the cells that 90 % intervals should cover, in percent.
COVERED = (85, 95)

#: (schedule, length) -> rate -> loss.
Losses = dict[tuple[str, int], dict[float, float]]


@dataclass(frozen=True)
class Cell:
    """A best rate, and what another one says about it.

    Args:
        kind: what differs between the two runs: schedule, length, or both.
        off: factor between the translated rate and the best one, >= 1.
        untranslated: the same for the known rate itself.
        found: the translation.
        lost, untranslated_lost: final loss at either rate, above that at the best one.
    """

    task: str
    kind: str
    off: float
    untranslated: float
    found: RateTranslation
    lost: float
    untranslated_lost: float

    @property
    def log_length(self) -> float:
        """The logarithm of the ratio of the lengths."""
        return math.log(self.found.length_factor) / EXPONENT

    def is_covered(self, widths: Widths) -> bool:
        """Whether an interval of these widths contains the best rate."""
        return self.off <= widths.spread(self.found.difference, self.log_length)


def fit_widths(cells: Sequence[Cell]) -> Widths:
    """Return the narrowest widths with which 90 % of the cells of either kind are covered."""

    def needed(kind: str, scale: Callable[[Cell], float]) -> float:
        sizes = [
            math.sqrt(max(0.0, (math.log(cell.off) / 1.645) ** 2 - WIDTHS.known**2)) / scale(cell)
            for cell in cells
            if cell.kind == kind
        ]
        return _quantile(sizes, 0.9) if sizes else 0.0

    return Widths(
        WIDTHS.known,
        needed("schedule", lambda cell: cell.found.difference),
        needed("length", lambda cell: abs(cell.log_length)),
    )


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
    bend = low - 2 * mid + high
    if not 0 < bend < math.inf:  # equal, or the next rate diverges
        return rates[i]
    return rates[i] * (rates[i + 1] / rates[i]) ** (0.5 * (low - high) / bend)


def loss_at(losses: Mapping[float, float], rate: float) -> float:
    """Return the loss at a rate between two that were tried, in a line over the logarithm; beyond them, the nearest.

    >>> loss_at({0.1: 1.0, 0.4: 3.0}, 0.2), loss_at({0.1: 1.0, 0.4: 3.0}, 1.0)
    (2.0, 3.0)
    """
    rates = sorted(losses)
    for low, high in pairwise(rates):
        if low <= rate <= high:
            share = math.log(rate / low) / math.log(high / low)
            return losses[low] * (1 - share) + losses[high] * share if share else losses[low]
    return losses[rates[0] if rate < rates[0] else rates[-1]]


def losses_of(lab: Lab, name: str) -> Losses:
    """Train one task, or read what was trained before: final validation losses, means over the seeds."""
    file = lab.folder / f"{name.replace(', ', '_')}.json"
    if (kept := read_json(file)) is not None:
        return {(each["schedule"], each["length"]): dict(each["losses"]) for each in kept}
    data, batch, optimizer, lowest, highest = TASKS[name]
    words = [f"data={data}", f"data.batch_size={batch}", f"optimizer={optimizer}", "model=mlp"]
    rates = [2.0 ** (exponent / 2) for exponent in range(2 * lowest, 2 * highest + 1)]
    found: Losses = {}
    for length in (20, 40) if lab.quick else LENGTHS:
        plans = [plan_of(schedule, length, optimizer, rate) for schedule in SCHEDULES for rate in rates]
        runs = [final_losses(words, seed, plans) for seed in SEEDS[: 1 if lab.quick else None]]
        means = iter(torch.tensor(runs, dtype=torch.float64).mean(0).tolist())
        found |= {(schedule, length): {rate: next(means) for rate in rates} for schedule in SCHEDULES}
        print(f"{name}: {length} steps", flush=True)
    lab.folder.mkdir(parents=True, exist_ok=True)
    plain = [{"schedule": s, "length": n, "losses": [*at.items()]} for (s, n), at in found.items()]
    file.write_text(json.dumps(plain))
    return found


def final_losses(words: Sequence[str], seed: int, plans: Sequence[Plan]) -> list[float]:
    """Return the final validation loss of a training by each plan; infinite if it diverged."""
    config = compose([*words, f"seed={seed}", "trainer.accelerator=cpu"])
    return [training.score for training in train_members([config] * len(plans), plans)]


def cells_of(name: str, losses: Losses) -> Iterator[Cell]:
    """Yield a cell for each pair of runs of a task, each run at its best rate."""
    optimizer = TASKS[name][2]
    best = {run: rate for run, at in losses.items() if (rate := best_rate(at)) is not None}
    for known, new in combinations(best, 2):
        found = translate(plan_of(*known, optimizer, best[known]), plan_of(*new, optimizer))
        kind = "schedule" if known[1] == new[1] else "length" if known[0] == new[0] else "both"
        lowest = loss_at(losses[new], best[new])
        yield Cell(
            name,
            kind,
            _factor(found.lr, best[new]),
            _factor(best[known], best[new]),
            found,
            loss_at(losses[new], found.lr) - lowest,
            loss_at(losses[new], best[known]) - lowest,
        )


def _factor(a: float, b: float) -> float:
    return max(a / b, b / a)


#: The widths that were fixed before the experiment.
BEFORE = Widths(0.1, 0.3, 0.13)

#: Task -> widths that its own cells had no part in.
HeldOut = Mapping[str, Widths]


def _share_covered(cells: Sequence[Cell], widths: HeldOut) -> float:
    return 100 * sum(cell.is_covered(widths[cell.task]) for cell in cells) / max(1, len(cells))


def _quantile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _row(label: str, kind: str, cells: Sequence[Cell], widths: HeldOut) -> list[str]:
    offs, plain = [cell.off for cell in cells], [cell.untranslated for cell in cells]
    lost, kept = (median(getattr(cell, name) for cell in cells) for name in ("lost", "untranslated_lost"))
    return [
        label, kind, str(len(cells)), f"{median(offs):.2f}, {_quantile(offs, 0.9):.2f}",
        f"{median(plain):.2f}, {_quantile(plain, 0.9):.2f}", f"{lost:.3f}", f"{kept:.3f}",
        f"{_share_covered(cells, widths):.0f}",
    ]  # fmt: skip


def measure(lab: Lab) -> Finding:
    losses = {name: losses_of(lab, name) for name in TASKS}
    cells = [cell for name, at in losses.items() for cell in cells_of(name, at)]
    table = [
        ["task", "differs in", "cells", "off by, translated", "off by, as it is", "nats lost, translated",
         "nats lost, as it is", "covered, %"],
    ]  # fmt: skip
    kinds = ("schedule", "length", "both")
    widths = {name: fit_widths([cell for cell in cells if cell.task != name]) for name in TASKS}
    for name in TASKS:
        own = {kind: [cell for cell in cells if (cell.task, cell.kind) == (name, kind)] for kind in kinds}
        table += [_row(name, kind, some, widths) for kind, some in own.items() if some]
    whole = {kind: [cell for cell in cells if cell.kind == kind] for kind in kinds}
    table += [_row("all", kind, some, widths) for kind, some in whole.items() if some]
    table.append(_row("all", "any", cells, widths))
    closer = all(
        median(cell.off for cell in some) < median(cell.untranslated for cell in some)
        for kind, some in whole.items()
        if some
    )
    share, before = _share_covered(cells, widths), _share_covered(cells, dict.fromkeys(TASKS, BEFORE))
    by_task = [_share_covered([cell for cell in cells if cell.task == name], widths) for name in TASKS]
    shipped = _share_covered(cells, dict.fromkeys(TASKS, WIDTHS))
    fitted = fit_widths(cells)
    words = (
        f"Off by a factor of {median(cell.off for cell in cells):.2f} (median) where the known rate, used as it is, "
        f"is off by {median(cell.untranslated for cell in cells):.2f}. Intervals with widths of the other three tasks "
        f"contain {share:.0f} % of {len(cells)} best rates, {min(by_task):.0f} to {max(by_task):.0f} % of a task's. "
        f"The widths that were fixed before ({BEFORE.schedule:g} and {BEFORE.exponent:g}) were too narrow: {before:.0f}"
        f" %. Those of lrkit ({WIDTHS.schedule:g} and {WIDTHS.exponent:g}), fitted to an earlier repetition with other "
        f"batches, contain {shipped:.0f} %; fitted to this one they would be {fitted.schedule:.2f} and "
        f"{fitted.exponent:.2f}.{_say_edges(losses)}"
    )
    figure, axes = frame(*((f"{name}: best rate", "optimizer steps") for name in losses), height=3.4)
    for ax, (_, at) in zip(axes, losses.items(), strict=True):
        for i, schedule in enumerate(SCHEDULES):
            line = {n: rate for (s, n), each in at.items() if s == schedule and (rate := best_rate(each))}
            ax.plot([*line], [*line.values()], marker="o", ms=4, lw=1.5, color=COLOURS[i], label=schedule)
        logarithmic(ax, sorted({length for _, length in at}))
        ax.set_yscale("log")
    axes[0].legend(frameon=False, fontsize=8)
    first = REPRODUCED if closer else NOT_REPRODUCED
    second = REPRODUCED if COVERED[0] <= share <= COVERED[1] else NOT_REPRODUCED
    return Finding(f"closer: {first}; intervals: {second}", words, table, figure)


def _say_edges(losses: Mapping[str, Losses]) -> str:
    edges = [
        f"{name}, {s}, {n} steps" for name, at in losses.items() for (s, n), e in at.items() if best_rate(e) is None
    ]
    return f" Left out, with a best rate at the edge of those tried: {'; '.join(edges)}." if edges else ""


CLAIM = Claim(
    "A rate for another schedule and length",
    "For language models the best base rate of a schedule follows from that of another one by a bound for convex "
    "problems (Schaipp et al. 2025, arXiv:2501.18965), and falls with the length of the run as a power of it "
    "(Bjorck et al. 2024, arXiv:2409.19913).",
    "`python -m evidence translate`: an MLP with two hidden layers of 64, on MNIST-1D and on digits, each with two "
    "optimizers: six schedules with 5 % linear warmup, 100, 300 and 900 steps, 21 rates a factor of the square root"
    " of 2 apart, 3 seeds. The final validation loss chooses the best rate of each, by a parabola through the best "
    "three. Each pair of these 18 runs of a task is a cell: the best rate of the first is translated to the second."
    " The exponent was fixed before. So were the widths of the intervals, from a CNN on MNIST-1D and from published"
    " runs of language models; after a first result, those of each task come from the other three. *Off by*: the "
    "factor between a rate and the best one, median and 90 % quantile. *As it is*: the second run takes the rate of"
    " the first one. The runs of a task share seeds and data, so cells are not independent. Closer: for each kind "
    "of pair the translated rate is nearer in the median. Intervals: they contain "
    f"{COVERED[0]} to {COVERED[1]} % of the best rates.",
    measure,
    ["lrkit translate 0.1 from.schedule=constant schedule=linear from.horizon.steps=100 horizon.steps=900"],
)

"""Claim: one trunk at a fixed rate with short cooldowns is as good as a cosine run for each budget."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from evidence.claim import NOT_REPRODUCED, NOT_SEPARABLE, REPRODUCED, Claim, Finding, edge, more, verdict
from evidence.lab import Lab, accuracy
from evidence.pictures import COLOURS, frame, logarithmic
from lrkit.comparison.statistics import Interval
from lrkit.runs.run_reader import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Points of accuracy by which the branches' mean may lie below the cosine runs' mean and still count as equally good.
MARGIN = 1.0
BRANCHES, COSINE = "branches", "cosine"

#: Budget in steps -> rate -> seed -> accuracy on validation data and on test data, in percent.
Side = dict[int, dict[float, dict[int, tuple[float, float]]]]


def measure(lab: Lab) -> Finding:
    trunks = lab.sweep(
        "trunks", "+experiment=branches", "+sweep=branches",
        quick=["optimizer.lr=0.1", "seed=1", "trainer.max_steps=16", "callbacks.trunk.every_n_train_steps=4"],
    )  # fmt: skip
    grown = [run for seed in sorted({run.seed for run in trunks}) for run in branched(lab, trunks, seed)]
    cosines = lab.sweep(
        "cosines", "+experiment=decay", "trainer.max_epochs=6,12,24", "trainer.check_val_every_n_epoch=6",
        "optimizer.lr=0.1,0.2,0.4", "seed=1,2,3,4,5",
        quick=["trainer.max_epochs=1", "trainer.max_steps=5,10,20", "optimizer.lr=0.1", "seed=1"],
    )  # fmt: skip
    sides = {BRANCHES: side(grown, trunks), COSINE: side(cosines, cosines)}
    budgets = sorted(sides[COSINE])
    best = {(name, budget): at_best(sides[name][budget]) for name in sides for budget in budgets}
    tested = {
        (name, budget): {seed: test for seed, (_, test) in sides[name][budget][rate].items()}
        for (name, budget), rate in best.items()
    }
    table = [["steps", "branches, %", "their best rate", "cosine, %", "its best rate", "branches - cosine, points"]]
    worse, close, widest = [], [], 0.0
    for budget in budgets:
        ours, theirs = tested[BRANCHES, budget], tested[COSINE, budget]
        gained = more(ours, theirs)
        worse.append(verdict(theirs, ours) == REPRODUCED)
        close.append(gained.mean >= -MARGIN)
        widest = max(widest, gained.half or 0.0)
        cells = []
        for name, values in ((BRANCHES, ours), (COSINE, theirs)):
            rate = best[name, budget]
            cells += [str(Interval.of([*values.values()])), f"{rate:g}{edge(rate, sides[name][budget])}"]
        table.append([str(budget), *cells, str(gained)])
    ratios = [best[BRANCHES, budget] / best[COSINE, budget] for budget in budgets]
    lower = sum(ratio < 1 for ratio in ratios)
    as_good = NOT_REPRODUCED if any(worse) else REPRODUCED if all(close) else NOT_SEPARABLE
    half = REPRODUCED if lower == len(ratios) else NOT_SEPARABLE if lower else NOT_REPRODUCED
    said = f"as good for fewer steps: {as_good}; a lower best rate: {half}"
    said = REPRODUCED if as_good == half == REPRODUCED else said
    words = (
        f"{counted(budgets)} The branches' best rate is {math.exp(fmean(map(math.log, ratios))):.2g} times cosine's "
        f"(geometric mean over the budgets, rates in factors of 2) and lower at {lower} of {len(ratios)} budgets. "
        f"{one_for_all(sides[BRANCHES], {budget: best[BRANCHES, budget] for budget in budgets})}"
    )
    words += f" The widest interval of the differences is ± {widest:.2g} points."
    return Finding(said, words, table, picture(sides, tested, budgets))


def counted(budgets: Sequence[int]) -> str:
    """Return a sentence with the number of steps of each side for all budgets."""
    begun = [budget * 4 // 5 for budget in budgets]
    trained = max(begun) + sum(budgets) - sum(begun)
    return (
        f"A trunk and its branches take {trained} steps, the cosine runs {sum(budgets)}: {trained / sum(budgets):.0%}."
    )


def one_for_all(branches: Side, best: dict[int, float]) -> str:
    """Return a sentence with the cost of one trunk, the best for the largest budget, against one for each budget."""
    one = best[max(best)]
    if {*best.values()} == {one}:
        return f"The trunk at {one:g} is the best for all budgets."
    means = {
        (budget, rate): fmean(test for _, test in branches[budget][rate].values())
        for budget in best
        for rate in (one, best[budget])
    }
    cost = max(means[budget, best[budget]] - means[budget, one] for budget in best)
    return f"The best trunk depends on the budget: the one at {one:g} for all would cost at most {cost:.1f} points."


def branched(lab: Lab, trunks: Sequence[Run], seed: int) -> list[Run]:
    """Run a cooldown from each checkpoint of a seed's trunks: a quarter of the steps so far, a fifth of the whole."""
    files = [file for run in trunks if run.seed == seed for file in checkpoints(run)]
    if not files:
        return []
    paths = ",".join(f"'{os.path.relpath(file)}'" for file in files)
    return lab.sweep(
        f"branches-{seed}", "+experiment=branches", "test=true", "resume.policy=cooldown", "cooldown=sqrt",
        "cooldown.length=25%", f"seed={seed}", f"resume.path={paths}",
    )  # fmt: skip


def checkpoints(trunk: Run) -> list[str]:
    """Return the existing checkpoints at a quarter of the trunk, a half, and its end."""
    _, _, steps = planned(trunk)
    places = [steps // 4, steps // 2, steps]
    return [str(file) for file in (trunk.folder / "checkpoints" / f"{place}.ckpt" for place in places) if file.exists()]


def planned(run: Run) -> tuple[int, float, int]:
    """Return seed, rate and steps from the run's plan; a branch has the seed and the rate of its trunk."""
    plan = json.loads((run.folder / "plan.json").read_text())
    return plan["config"]["seed"], plan["base_lr"], plan["horizon"]["steps"]


def side(runs: Sequence[Run], begun: Sequence[Run]) -> Side:
    """Return budget -> rate -> seed -> accuracies; 0 for a budget that a run of ``begun`` did not finish."""
    found: Side = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        seed, rate, steps = planned(run)
        found[steps][rate][seed] = (accuracy(run, "val"), accuracy(run))
    for steps in found:
        for seed, rate, _ in map(planned, begun):
            found[steps][rate].setdefault(seed, (0.0, 0.0))
    return found


def at_best(at: dict[float, dict[int, tuple[float, float]]]) -> float:
    """Return the rate with the best mean final validation accuracy over seeds."""
    return max(at, key=lambda rate: fmean(val for val, _ in at[rate].values()))


def picture(sides: dict[str, Side], tested: dict[tuple[str, int], dict[int, float]], budgets: list[int]) -> Figure:
    """Draw the test accuracy over the budget, and over the rate."""
    figure, axes = frame(
        ("test accuracy over the steps, %", "steps"), ("test accuracy over the rate, %", "learning rate")
    )
    labels = {BRANCHES: "branches of one trunk", COSINE: "a cosine run each"}
    for i, name in enumerate(sides):
        means = [fmean(tested[name, budget].values()) for budget in budgets]
        axes[0].plot(budgets, means, color=COLOURS[2 * i], lw=1.6, label=labels[name])
        for budget in budgets:
            seen = [*tested[name, budget].values()]
            axes[0].plot([budget] * len(seen), seen, ls="", marker="o", ms=4, alpha=0.6, color=COLOURS[2 * i])
            at = {rate: fmean(test for _, test in some.values()) for rate, some in sorted(sides[name][budget].items())}
            axes[1].plot([*at], [*at.values()], color=COLOURS[2 * i], lw=1.4, marker="o", ms=4)
            end, side_of = (max(at), "left") if name == COSINE else (min(at), "right")
            axes[1].annotate(f" {budget} ", (end, at[end]), fontsize=8, color="#777", va="center", ha=side_of)
    rates = sorted({rate for one in sides.values() for at in one.values() for rate in at})
    logarithmic(axes[0], budgets)
    logarithmic(axes[1], rates)
    axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    return figure


CLAIM = Claim(
    "One trunk instead of many runs",
    "A fixed rate with a short cooldown does as well as cosine. The cooldown can start anywhere, so one trunk "
    "serves every budget (Hu et al. 2024, arXiv:2404.06395; Hägele et al. 2024, arXiv:2405.18392). Hägele: at "
    '210M weights a 20 % cooldown is an "almost perfect match" with the best cosine, at about half its rate.',
    "A CNN on MNIST-1D, SGD with momentum, 5 % linear warmup. Trunks of 768 steps at three rates. At 192, 384 and"
    " 768 steps a branch starts: it falls by 1 - sqrt for another quarter of these steps (20 % of the whole), so "
    "the budgets are 240, 480 and 960 steps. The comparison is cosine over as many steps, at three rates (0.05 is"
    " far too low for cosine and 0.4 is too high for a fixed rate, so these are omitted). 5 seeds. At each "
    "budget, validation accuracy chooses the rate of each side, and 10,000 test signals judge it. As good: at no "
    f"budget worse at 95 %, and in the mean at most {MARGIN:g} point worse (if more: not separable; this case was "
    '"not reproduced" until a part of the results was known, and does not occur in them). A lower best rate: at'
    " every budget (at some: not separable).",
    measure,
    [
        "lrkit train -m +experiment=branches +sweep=branches",
        "lrkit train -m +experiment=branches test=true seed=1 resume.policy=cooldown cooldown=sqrt cooldown.length=25% "
        "resume.path=\"'RUN/checkpoints/192.ckpt','RUN/checkpoints/384.ckpt'\"",
        "lrkit train -m +experiment=decay trainer.max_epochs=6,12,24 optimizer.lr=0.1,0.2,0.4 seed=1,2,3,4,5",
    ],
)

"""Claim: the linear scaling rule holds up to a batch size, and breaks above it."""

from __future__ import annotations

from evidence.claim import NOT_REPRODUCED, REPRODUCED, Claim, Finding
from evidence.lab import Lab, accuracy, by, over_seeds
from evidence.pictures import COLOURS, frame, logarithmic
from lrkit.comparison.statistics import Interval

BASE = 25
RULES = ("linear", "sqrt", "none")
#: Loss of accuracy in points up to which the accuracy counts as flat over the batch size.
FLAT = 3.0


def accuracies(lab: Lab) -> dict[tuple[int, str], Interval]:
    """Return (batch size, rule) -> test accuracy over seeds."""
    quick = ["seed=1", "data.batch_size=200", "trainer.max_epochs=1"]
    base = lab.sweep("base", "+experiment=batch_size", "seed=1,2,3", quick=quick)
    runs = lab.sweep("sweep", "+experiment=batch_size", "+sweep=batch_size", quick=quick)
    start = Interval.of([*over_seeds({run.seed: run for run in base}, accuracy).values()])
    reached = {(BASE, rule): start for rule in RULES}
    for (size, rule), some in by(runs, "data.batch_size", "batch_scaling").items():
        reached[size, rule] = Interval.of([*over_seeds(some, accuracy).values()])
    return reached


def flat_to(reached: dict[tuple[int, str], Interval]) -> int:
    """Return the largest batch size up to which the linear rule costs at most FLAT points."""
    least = reached[BASE, "linear"].mean - FLAT
    sizes = sorted({size for size, _ in reached})
    broken = [size for size in sizes if reached[size, "linear"].mean < least]
    return max(size for size in sizes if not broken or size < broken[0])


def measure(lab: Lab) -> Finding:
    reached = accuracies(lab)
    sizes = sorted({size for size, _ in reached})
    table = [["batch (times the base)", *RULES]]
    table += [[f"{size} ({size // BASE})", *(str(reached[size, rule]) for rule in RULES)] for size in sizes]
    lost = {key: reached[BASE, "linear"].mean - interval.mean for key, interval in reached.items()}
    flat, second = flat_to(reached), sizes[1]
    holds = flat >= 4 * BASE and lost[second, "none"] > FLAT and max(lost[size, "linear"] for size in sizes) > 10
    words = (
        f"With the linear rule at most {FLAT:g} points are lost up to {flat // BASE} times the base; above, the rule "
        f"fails. Twice the batch costs {lost[second, 'none']:.1f} points without scaling, and "
        f"{lost[second, 'sqrt']:.1f} with the square root. Not tested: whether the rule needs the warmup, which makes "
        "no difference on this task below the point of failure."
    )
    figure, [ax] = frame(
        ("test accuracy after 25 epochs, %", f"batch size (the rate is right for {BASE})"), width=5.6, height=3.8
    )
    for i, rule in enumerate(RULES):
        means, bars = zip(*((reached[size, rule].mean, reached[size, rule].half or 0.0) for size in sizes), strict=True)
        line = {"lw": 1.8, "marker": "o", "ms": 4.5, "capsize": 3, "elinewidth": 0.8, "color": COLOURS[i]}
        ax.errorbar(sizes, means, bars, label="no scaling" if rule == "none" else f"{rule} scaling", **line)
    logarithmic(ax, sizes)
    ax.set_ylim(0, 100)
    ax.legend(frameon=False, fontsize=8.5)
    return Finding(REPRODUCED if holds else NOT_REPRODUCED, words, table, figure)


CLAIM = Claim(
    "The linear scaling rule",
    '"When the minibatch size is multiplied by k, multiply the learning rate by k" (Goyal et al. 2017, '
    "arXiv:1706.02677). Their ResNet-50: 23.60 % error at 256, 23.74 at 8k with the rule and warmup, 41.67 "
    "without the rule, 26.22 with the square root (tables 1 and 2); beyond 8k the rule fails (figure 1).",
    "A CNN on MNIST-1D, SGD with momentum at 0.02 for a batch of 25, cosine with 20 % linear warmup, 25 epochs "
    f"for every batch size, 3 seeds. Flat: at most {FLAT:g} points below the base. Reproduced: with the linear "
    "rule accuracy is flat to 4 times the base or more, and falls by more than 10 points at some batch size; "
    "without scaling it is not flat at twice the base.",
    measure,
    ["lrkit train -m +experiment=batch_size +sweep=batch_size"],
)

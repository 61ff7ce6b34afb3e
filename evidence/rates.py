"""Claim: a rate too large diverges, a rate too small is slow; and the width of the range between them."""

from __future__ import annotations

import math
from statistics import fmean

from evidence.claim import NOT_REPRODUCED, REPRODUCED, Claim, Finding
from evidence.lab import Lab, by, loss, over_seeds
from evidence.pictures import COLOURS, frame

OPTIMIZERS = ("sgd", "momentum", "adagrad", "rmsprop", "adam")
#: A rate is usable if its loss is at most this many nats above the optimizer's best.
WITHIN = 0.1
#: A default rate is near enough if its loss is at most this many nats above the optimizer's best.
NEAR = 0.25
DEFAULT = 1e-3  # torch's default learning rate, of SGD and of Adam


def measure(lab: Lab) -> Finding:
    runs = lab.sweep(
        "sweep", "+experiment=rates", "+sweep=rates",
        quick=["optimizer=momentum,adam", "optimizer.lr=1e-5,1e-3,10", "seed=1", "trainer.max_epochs=1"],
    )  # fmt: skip
    figure, [ax] = frame(
        ("test loss after 400 steps at a fixed rate (3: or more)", "learning rate"), width=6.4, height=3.8
    )
    table = [
        ["optimizer", "best rate", "its loss", "usable rates", "a factor of", f"loss at {DEFAULT:g}", "diverged at"]
    ]
    curves, left = {}, {}
    for optimizer in OPTIMIZERS:
        at = {
            key[1]: fmean(over_seeds(some, loss).values())
            for key, some in by(runs, "optimizer", "optimizer.lr").items()
            if key[0] == optimizer
        }
        if not at:
            continue
        at = curves[optimizer] = dict(sorted(at.items()))
        best = min(at, key=at.__getitem__)
        usable = [rate for rate in at if at[rate] <= at[best] + WITHIN]
        lost = [rate for rate in at if not math.isfinite(at[rate])]
        left[optimizer] = at[DEFAULT] - at[best]
        table.append([
            optimizer, f"{best:g}", f"{at[best]:.2f}", f"{min(usable):g} to {max(usable):g}",
            f"{max(usable) / min(usable):.2g}", f"{at[DEFAULT]:.2f}", f"{min(lost):g}" if lost else "none",
        ])  # fmt: skip
        shown = {rate: min(value, 3.0) for rate, value in at.items() if math.isfinite(value)}
        colour = COLOURS[OPTIMIZERS.index(optimizer)]
        ax.plot([*shown], [*shown.values()], marker="o", ms=3.5, lw=1.5, color=colour, label=optimizer)
        ax.plot(lost, [3.0] * len(lost), ls="", marker="x", color=colour)
    ax.axhline(math.log(10), color="#999", lw=0.8, ls=":")
    ax.text(1e-5, math.log(10) + 0.03, "guessing", fontsize=8, color="#777")
    ax.axvline(DEFAULT, color="#bbb", lw=0.8)
    ax.text(DEFAULT, ax.get_ylim()[0], f" {DEFAULT:g}", fontsize=8, color="#777", va="bottom")
    ax.set_xscale("log")
    ax.legend(frameon=False, fontsize=8, title="x: diverged", title_fontsize=8)
    guessing = math.log(10) - WITHIN
    crawls = all(at[min(at)] > guessing for at in curves.values())
    diverges = all(at[max(at)] > guessing for at in curves.values())
    near, far = left["adam"] <= NEAR, left["momentum"] > NEAR
    first = REPRODUCED if crawls and diverges else NOT_REPRODUCED
    second = REPRODUCED if near and far else NOT_REPRODUCED
    words = (
        f"At the smallest rate {'every' if crawls else 'not every'} optimizer only guesses; the largest ruins "
        f"{'every' if diverges else 'not every'} run. At {DEFAULT:g} Adam is {left['adam']:.2f} nats from "
        f"its best, SGD with momentum {left['momentum']:.2f}. The difference depends on the length of the "
        "run, here 400 steps."
    )
    return Finding(f"{first}; Adam's default: {second}", words, table, figure)


CLAIM = Claim(
    "Too large diverges, too small crawls",
    "The learning rate is the hyper-parameter to tune first (Bengio 2012, arXiv:1206.5533). A run with a rate "
    "that is too small learns too slowly; a run with a rate that is too large diverges. SGD with momentum needs "
    "tuning, while Adam's default of 1e-3 is near enough (Kingma and Ba 2015, arXiv:1412.6980; Schmidt et al. "
    "2021, arXiv:2007.01547: several optimizers with their defaults do about as well as one tuned optimizer).",
    "An MLP on MNIST-1D, 400 steps of 100 at a fixed rate, 13 rates from 1e-5 to 10, 3 seeds. A rate is usable if"
    f" its test loss is within {WITHIN:g} nats of the optimizer's best. A run has diverged if the guard ended it. "
    "Reproduced: at the smallest and at the largest rate the loss of every optimizer is at least that of guessing"
    f" (ln 10, less {WITHIN:g}). Adam's default: at {DEFAULT:g} Adam is within {NEAR:g} nats of its best rate, and"
    " SGD with momentum is not.",
    measure,
    ["lrkit train -m +experiment=rates +sweep=rates"],
)

"""Claim: Post-LN transformers need warmup."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from evidence.claim import NOT_REPRODUCED, REPRODUCED, Claim, Finding, verdict
from evidence.lab import Lab, Runs, by, over_seeds
from evidence.lab import loss as lab_loss
from evidence.pictures import COLOURS, frame
from lrkit.comparison.statistics import Interval
from lrkit.runs.run_reader import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Gain of warmup in nats from which it is "needed", and up to which it "hardly" matters.
NEEDED, HARDLY = 0.5, 0.2
#: The loss of a diverged run: about that of guessing among all characters.
LOST = 5.0
NORMS = {"post": "Post-LN", "pre": "Pre-LN"}


def measure(lab: Lab) -> Finding:
    quick = [
        "model.layers=1",
        "data.train_samples=32",
        "data.val_samples=16",
        "trainer.max_epochs=1",
        "warmup.length=0,1",
        "seed=1",
    ]
    runs = arms(lab.sweep("sweep", "+experiment=warmup", "+sweep=warmup", quick=quick))
    low = arms(
        lab.sweep(
            "low",
            "+experiment=warmup",
            "+sweep=warmup",
            "model.norm=post",
            "optimizer.lr=0.001",
            "seed=1,2",
            quick=quick,
        )
    )
    at_high, at_low = gains(runs), gains(low)
    table = [["rate", "layer norm", "test loss without warmup", "with", "warmup is worth, nats"]]
    for rate, some, gained in (("0.01", runs, at_high), ("0.001", low, at_low)):
        for norm, gain in gained.items():
            reached = [str(Interval.of([*over_seeds(some[norm, warm], loss).values()])) for warm in (False, True)]
            table.append([rate, NORMS[norm], *reached, str(Interval.of([*gain.values()]))])
    worth = {norm: fmean(gain.values()) for norm, gain in at_high.items()}
    said = verdict(over_seeds(runs["post", False], loss), over_seeds(runs["post", True], loss))
    slow = fmean(at_low["post"].values())
    shows = "the effect needs a high rate" if slow < HARDLY else "the effect is there too"
    words = (
        f"At 0.01 Post-LN gains {worth['post']:.2f} nats by warmup, Pre-LN {worth['pre']:.2f}. At 0.001 Post-LN "
        f"gains {slow:.2f}: {shows}."
        " A few hundred steps show that Post-LN is stuck, not that it stays so."
    )
    if said == REPRODUCED and worth["post"] < NEEDED:
        said = NOT_REPRODUCED
    if said == REPRODUCED and worth["pre"] > HARDLY:
        said = f"{REPRODUCED} for Post-LN; Pre-LN gains by warmup too"
    return Finding(said, words, table, picture(runs))


def loss(run: Run) -> float:
    """Return the test loss, at most that of guessing; a diverged run has the loss of guessing."""
    return min(lab_loss(run), LOST)


def arms(runs: list[Run]) -> dict[tuple[str, bool], Runs]:
    """Return (norm, whether the run has a warmup) -> seed -> run."""
    return {
        (str(norm), length not in (0, "0")): some
        for (norm, length), some in by(runs, "model.norm", "warmup.length").items()
    }


def gains(runs: dict[tuple[str, bool], Runs]) -> dict[str, dict[object, float]]:
    """Return norm -> seed -> reduction of the test loss by warmup."""
    found: dict[str, dict[object, float]] = {}
    for norm in NORMS:
        if (norm, True) in runs and (norm, False) in runs:
            without, with_it = (over_seeds(runs[norm, warm], loss) for warm in (False, True))
            found[norm] = {seed: without[seed] - with_it[seed] for seed in without}
    return found


def picture(runs: dict[tuple[str, bool], Runs]) -> Figure:
    """Draw the training loss: the mean over seeds, and a thin line for each seed."""
    figure, [ax] = frame(("training loss at a rate of 0.01, nats a character", "step"), width=5.6, height=3.6)
    for i, norm in enumerate(NORMS):
        for warm in (False, True):
            curves = [
                run.series["train/loss"] for run in runs.get((norm, warm), {}).values() if "train/loss" in run.series
            ]
            if not curves:
                continue
            style = {"color": COLOURS[2 * i], "ls": "-" if warm else (0, (4, 1.5))}
            for curve in curves:
                ax.plot(curve.steps, curve.values, lw=0.6, alpha=0.25, **style)
            rows = [*zip(*(curve.values for curve in curves), strict=False)]  # a diverged run has fewer
            mean, label = [fmean(row) for row in rows], f"{NORMS[norm]}, {'with' if warm else 'without'} warmup"
            ax.plot(curves[0].steps[: len(mean)], mean, lw=1.7, label=label, **style)
    ax.set_ylim(top=min(ax.get_ylim()[1], 4.5))  # the first steps are far above
    ax.legend(frameon=False, fontsize=8)
    return figure


CLAIM = Claim(
    "Post-LN transformers need warmup",
    "A transformer with the layer norm after the addition (Post-LN) does not train by Adam without warmup: BLEU "
    "8.45 on IWSLT14 De-En, against about 34 with warmup. With the layer norm before (Pre-LN) the warmup can be "
    "omitted (Xiong et al. 2020, arXiv:2002.04745, section 3.2).",
    "A transformer of 6 layers and width 64 predicts the next character of the source code of Python's standard "
    "library: Adam (betas 0.9 and 0.98), linear decay, 200 steps of 16 windows of 32 characters, with no warmup "
    "or 40 steps of it; at 0.01 with 3 seeds, and Post-LN at 0.001 with 2. The test loss is in nats per "
    f"character; a diverged run counts as {LOST:g}. Reproduced: at 0.01 warmup improves Post-LN, at 95 % and by "
    f"{NEEDED:g} nats or more, and Pre-LN by at most {HARDLY:g}.",
    measure,
    [
        "lrkit train -m +experiment=warmup +sweep=warmup",
        "lrkit train -m +experiment=warmup +sweep=warmup optimizer.lr=0.001",
    ],
)

"""Claim: the gradient noise scale predicts the batch size at which the linear scaling rule ends."""

from __future__ import annotations

import os
from statistics import fmean, geometric_mean
from typing import Any

from evidence.batch_size import accuracies, flat_to
from evidence.claim import NOT_REPRODUCED, REPRODUCED, Claim, Finding
from evidence.lab import Lab, by
from evidence.pictures import COLOURS, frame
from lrkit.callbacks.noise_scale import TAG
from lrkit.runs.run_reader import Run

#: Environment variable with the folder of MNIST's IDX files; without it the MNIST part is left out.
MNIST = "LRKIT_MNIST"
#: The paper's noise scale for MNIST, averaged over a run.
PUBLISHED = 900.0
#: Two values are of the same order if their ratio is at most this factor.
ORDER = 4.0


def measure(lab: Lab) -> Finding:
    words = ["callbacks=noise_scale", "callbacks.noise_scale.every=5", "seed=1,2,3"]
    quick = ["seed=1", "trainer.max_epochs=1"]
    small = lab.sweep("mnist1d", "+experiment=batch_size", "data.batch_size=100", *words, quick=quick)
    end = flat_to(accuracies(Lab(lab.folder.parent / "batch_size", lab.quick)))
    panels = [("noise scale on MNIST-1D, samples", "step")]
    table = [["task", "batch", "first tenth", "last tenth", "mean", "geometric mean", "to compare with"]]
    over_run = geometric_mean([value for run in small for value in values(run)])
    table.append(row("MNIST-1D, CNN", 100, small, f"linear rule flat to {end}"))
    first = REPRODUCED if alike(over_run, end) else NOT_REPRODUCED
    said = (
        f"On MNIST-1D the noise scale is {over_run:.0f} over a run (geometric mean), and the linear rule was flat to a "
        f"batch of {end} (section above)."
    )
    large: dict[int, list[Run]] = {}
    if folder := os.environ.get(MNIST):
        mnist = ["data=idx", f"data.path={folder}", "model=cnn2d", "optimizer.lr=0.05", "data.batch_size=128,512"]
        words = ["callbacks=noise_scale", "callbacks.noise_scale.every=10", "trainer.max_epochs=3", "seed=1,2"]
        quick = ["data.limit=2000", "data.batch_size=128", "trainer.max_epochs=1", "seed=1"]
        runs = lab.sweep("mnist", *mnist, *words, quick=quick)
        large = {size: [*some.values()] for (size,), some in by(runs, "data.batch_size").items()}
        table += [row("MNIST, CNN", size, some, f"{PUBLISHED:.0f} (paper)") for size, some in large.items()]
        panels.append(("on MNIST, samples", "step"))
        means = {size: fmean(fmean(values(run)) for run in some) for size, some in large.items()}
        second = REPRODUCED if all(alike(mean, PUBLISHED) for mean in means.values()) else NOT_REPRODUCED
        told = ", ".join(f"{mean:.0f} at a batch of {size}" for size, mean in means.items())
        said += f" On MNIST its mean over a training is {told}; the paper has {PUBLISHED:.0f}."
    else:
        second = "not measured"
        said += f" MNIST was not available: set {MNIST}=FOLDER to the folder of its IDX files."
    figure, axes = frame(*panels, height=3.6)
    draw(axes[0], {100: small}, end, f"linear rule flat to {end}")
    for ax in axes[1:]:
        draw(ax, large, PUBLISHED, f"paper: {PUBLISHED:.0f} on average")
    return Finding(f"{first}; MNIST's figure: {second}", said, table, figure)


def alike(one: float, other: float) -> bool:
    """Return whether two values are of the same order."""
    return 1 / ORDER <= one / other <= ORDER


def values(run: Run) -> list[float]:
    """Return the positive logged values (the others have no meaning); ``[1.0]`` without any logged value."""
    return [value for value in run.series[TAG].values if value > 0] if TAG in run.series else [1.0]


def row(task: str, batch: int, runs: list[Run], beside: str) -> list[str]:
    all_of = [values(run) for run in runs]
    tenth = [max(1, len(each) // 10) for each in all_of]
    first = fmean(fmean(each[:n]) for each, n in zip(all_of, tenth, strict=True))
    last = fmean(fmean(each[-n:]) for each, n in zip(all_of, tenth, strict=True))
    whole, middle = fmean(map(fmean, all_of)), geometric_mean([value for each in all_of for value in each])
    return [task, str(batch), *(f"{value:.0f}" for value in (first, last, whole, middle)), beside]


def draw(ax: Any, runs: dict[int, list[Run]], level: float, told: str) -> None:
    """Draw the curves of all seeds, a colour for each batch size, with the reference values."""
    for i, (size, some) in enumerate(runs.items()):
        for k, run in enumerate(some):
            if TAG in run.series:
                steps, seen = run.series[TAG].steps, run.series[TAG].values
                label = None if k else f"batch {size}"
                ax.plot(steps, seen, color=COLOURS[i], lw=1.2, alpha=0.8, label=label)
    ax.axhline(level, color="#777", lw=1, ls="--", label=told)
    ax.set_yscale("log")
    ax.legend(frameon=False, fontsize=8)


CLAIM = Claim(
    "Batch size and the gradient noise scale",
    "The simple noise scale tr(Sigma)/|G|^2 predicts the batch size up to which a larger batch, with a linearly "
    "scaled rate, is efficient; it grows during a training. MNIST: 50 at the start, 900 on average, while the "
    "measured critical batch size is 20 at the start and 200 on average (McCandlish et al. 2018, "
    "arXiv:1812.06162, table 1).",
    "`callbacks=noise_scale` (docs/noise_scale.md) while the CNN of the section on the linear rule trains at a "
    "batch of 100, 3 seeds; and a CNN on MNIST, SGD with momentum at 0.05, cosine, 3 epochs, 2 seeds, if its IDX "
    "files are available. Reproduced: the geometric mean over a run has the same order of magnitude (within a "
    f"factor of {ORDER:g}) as the largest batch size at which the linear rule was flat. MNIST's figure: the mean "
    f"over a run has the same order of magnitude as {PUBLISHED:.0f}. The paper claims no more than the order of "
    "magnitude.",
    measure,
    [
        "lrkit train -m +experiment=batch_size data.batch_size=100 callbacks=noise_scale seed=1,2,3",
        "lrkit train callbacks=noise_scale data=idx data.path=MNIST data.train_samples=55000 model=cnn2d",
    ],
)

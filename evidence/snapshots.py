"""Claim: the weights at the end of each cycle of warm restarts are good, and their ensemble is better."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from evidence.claim import WORDS, Claim, Finding, more, verdict
from evidence.decay import at_best_rate
from evidence.lab import Lab, Runs, accuracy, by
from evidence.pictures import COLOURS, frame
from lrkit.comparison.statistics import Interval
from lrkit.runs.run_reader import Run
from lrkit.schedules.shapes import Restarts
from lrkit.training_objects.data import data_of
from lrkit.training_objects.module import module_of

NAMES = {1.0: "restarts in equal cycles", 2.0: "restarts in cycles 1:2:4"}
RATES = (0.1, 0.2)
#: Accuracy in percent below which a trained network counts as lost.
COLLAPSED = 50.0
#: Accuracy in percent by seed.
Values = dict[Any, float]


def measure(lab: Lab) -> Finding:
    quick = ["seed=1,2", "data.train_samples=400"]
    cycled, fallen = list[Run](), list[Run]()
    for rate in RATES:
        asked = ("+experiment=snapshots", f"optimizer.lr={rate}")
        cycled += lab.sweep(f"restarts-{rate}", *asked, "+sweep=snapshots", quick=quick)
        fallen += lab.sweep(f"cosine-{rate}", *asked, "schedule=cosine", "seed=5,6,7,8", quick=quick)
    at, single = _group_runs(cycled), _choose_best(_group_runs(fallen)[None])
    table = [
        ["", "rate", "cycle 1", "cycle 2", "the last alone", "last two averaged", "all three", "gain by all three"]
    ]
    said, kept = {}, {}
    for growth, rates in at.items():
        runs = _choose_best(rates)
        name, ends = NAMES[growth], _find_cycle_ends(next(iter(runs.values())), growth)
        alone, averaged = _measure_snapshots(runs, ends)
        _, two = _measure_snapshots(runs, ends[1:])
        beside, _ = _measure_snapshots(single, ends)
        said[name] = verdict(averaged, alone[ends[-1]])
        gain = str(more(averaged, alone[ends[-1]]))
        means = [_format_mean(values) for values in (*(alone[end] for end in ends), two, averaged)]
        table.append([name, _find_rate(runs), *means, gain])
        unfinished = f"cosine over all, after as many epochs ({', '.join(map(str, ends))})"
        table.append([unfinished, _find_rate(single), *(_format_mean(beside[end]) for end in ends), "", "", ""])
        kept[name] = (ends, alone, averaged, beside)
    words = " ".join(_describe_comparison(name, said[name], *kept[name]) for name in kept)
    lost = {
        f"{NAMES[growth]} at {rate:g}": sum(accuracy(run) < COLLAPSED for run in runs.values())
        for growth, rates in at.items()
        for rate, runs in rates.items()
    }
    lost = {where: count for where, count in lost.items() if count}
    words += (
        f" Networks that a restart ruined: {', '.join(f'{n} with {where}' for where, n in lost.items()) or 'none'}."
    )
    words += (
        " The sources' cycles are long enough for each snapshot to be nearly as good as the last. If the table "
        "shows them far apart, the result says nothing about such cycles."
    )
    whole = next(iter(said.values())) if len({*said.values()}) == 1 else ""
    mixed = "; ".join(f"{word} for {name}" for name, word in said.items())
    return Finding(whole or mixed, words, table, _draw(kept))


def _group_runs(runs: list[Run]) -> dict[float | None, dict[float, Runs]]:
    """Return growth of the cycles (None without restarts) -> rate -> seed -> run."""
    found: dict[float | None, dict[float, Runs]] = {}
    for (growth, rate), some in by(runs, "schedule.growth", "optimizer.lr").items():
        found.setdefault(growth, {})[rate] = some
    return found


def _choose_best(at: dict[float, Runs]) -> Runs:
    return at[at_best_rate(at)]


def _find_rate(runs: Runs) -> str:
    return f"{next(iter(runs.values())).facts['optimizer.lr']:g}"


def _describe_comparison(
    name: str, said: str, ends: list[int], alone: dict[int, Values], averaged: Values, beside: dict[int, Values]
) -> str:
    first, second, last = (alone[end] for end in ends)
    return (
        f"With {name} the average of three is {WORDS[said]} the last snapshot alone ({more(averaged, last)} points), "
        f"and {more(averaged, beside[ends[-1]])} points from one cosine over the same steps; the first snapshot is "
        f"{more(last, first)} points behind the last. At the end of the second cycle the weights are "
        f"{more(second, beside[ends[1]])} points from those of the one cosine at that step."
    )


def _find_cycle_ends(run: Run, growth: float) -> list[int]:
    """Return the number of epochs at the end of each cycle."""
    epochs = run.facts["trainer.max_epochs"]
    steps = epochs * -(-run.facts["data.train_samples"] // run.facts["data.batch_size"])
    edges = Restarts(cycles=run.facts["schedule.cycles"], growth=growth).edges(steps)
    return [edge * epochs // steps for edge in (*edges, steps)]


def _measure_snapshots(runs: Runs, ends: list[int]) -> tuple[dict[int, Values], Values]:
    """Return the test accuracy of each snapshot, and of their averaged predictions; 0 for a diverged run."""
    alone: dict[int, Values] = {end: {} for end in ends}
    averaged: Values = {}
    for seed, run in sorted(runs.items()):
        predicted, labels = _predict(run, ends) if run.status == "done" else ([], torch.empty(0))
        for i, end in enumerate(ends):
            alone[end][seed] = _compute_accuracy(predicted[i], labels) if predicted else 0.0
        averaged[seed] = _compute_accuracy(torch.stack(predicted).mean(0), labels) if predicted else 0.0
    return alone, averaged


def _predict(run: Run, ends: list[int]) -> tuple[list[Tensor], Tensor]:
    """Return the probabilities that the weights after each of ``ends`` epochs predict on test data, and the labels."""
    config = json.loads((run.folder / "config.json").read_text())
    data = data_of(config)
    data.prepare_data()
    data.setup("test")
    module = module_of(config, data).eval()
    samples, labels = (torch.cat(part) for part in zip(*data.test_dataloader(), strict=True))
    found = []
    for end in ends:
        saved = torch.load(run.folder / "checkpoints" / f"epoch={end - 1}.ckpt", weights_only=True)
        module.load_state_dict(saved["state_dict"])
        with torch.inference_mode():
            found.append(module(samples).softmax(-1))
    return found, labels


def _compute_accuracy(probabilities: Tensor, labels: Tensor) -> float:
    return 100 * float((probabilities.argmax(-1) == labels).float().mean())


def _format_mean(values: Values) -> str:
    return str(Interval.of([*values.values()]))


def _draw(kept: dict[str, Any]) -> Any:
    figure, axes = frame(*((f"{name}: test accuracy, %", "epochs") for name in kept), height=3.4)
    low = 100.0
    for ax, (ends, alone, averaged, beside) in zip(axes, kept.values(), strict=True):
        for i, (label, at) in enumerate((("cosine", beside), ("restarts", alone))):
            means = [Interval.of([*at[end].values()]).mean for end in ends]
            low = min(low, *means)
            ax.plot(ends, means, lw=1.5, marker="o", ms=4.5, color=COLOURS[i], label=f"{label}, the weights so far")
        mean = Interval.of([*averaged.values()])
        ax.errorbar(
            [ends[-1]], [mean.mean], [mean.half or 0.0], marker="D", ms=6, capsize=3, ls="",
            color=COLOURS[2], label="three snapshots averaged",
        )  # fmt: skip
        ax.set_xticks(ends)
    for ax in axes:
        ax.set_ylim(max(0.0, low - 4), 100)
    axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    return figure


CLAIM = Claim(
    "Warm restarts give an ensemble for nothing",
    "The weights at the end of each cycle of warm restarts are good, at any time, and the average of the "
    "predictions of these snapshots beats the last one alone (Loshchilov and Hutter 2016, arXiv:1608.03983, "
    "tables 1 and 2: a WRN-28-10 on CIFAR-10 has 4.03 % error alone, 3.51 % with three snapshots averaged; Huang "
    "et al. 2017, arXiv:1704.00109, with cycles of equal length).",
    "A CNN on MNIST-1D, SGD with momentum without warmup, 840 steps of 100 (21 epochs), 4 seeds; other seeds "
    "chose the two rates. Three cycles of 7 epochs each; three cycles of 3, 6 and 12; and one cosine over all 21."
    " Each has the rate of 0.1 and 0.2 with the better validation accuracy at the end. A ModelCheckpoint saves "
    "the weights of each epoch. The weights at the ends of the cycles are loaded, and their softmax outputs are "
    "averaged with equal weight. 10,000 test signals judge it. Reproduced: the average of three is better than "
    "the last one alone. Cosine is shown for comparison.",
    measure,
    [
        "lrkit train -m +experiment=snapshots +sweep=snapshots optimizer.lr=0.1,0.2",
        "lrkit train -m +experiment=snapshots schedule=cosine optimizer.lr=0.1,0.2 seed=5,6,7,8",
    ],
)

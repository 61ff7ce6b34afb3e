"""What does a race (``+sweep.race=true``) save against the whole grid, and what does its answer lose?

    python benchmarks/racing.py             three tasks, two seeds: about eight minutes of one core, into racing.md
    python benchmarks/racing.py --quick     one task and a small grid

Each cell (task, seed) trains the whole grid of 4 schedules x 6 rates x 2 optimizers, and the short copies of the race,
by the plain loop of ``loop.py``, which is `lrkit train` to the bit. The race decides by lrkit's own rule on the copies
that lrkit makes. Its answer is the setting with the lowest validation loss among those trained in full; the grid's is
the one among all. ``random`` is the expected answer of as many steps spent on whole runs of settings drawn at random.

The shares and the rule were chosen on seed 1 of the first two tasks; the table has other seeds, and a third task.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from loop import train

from lrkit.config import compose as configs
from lrkit.config.race_options import RaceOptions
from lrkit.config.sweep_values import expand_jobs
from lrkit.runs.loss_noise import loss_noise
from lrkit.sweep.promotion import Standing, promote
from lrkit.sweep.race_settings import RaceSetting, list_settings, read_options
from lrkit.training_objects import data_of

TASKS = {
    "digits, MLP": ["data=digits", "model=mlp", "trainer.max_epochs=15"],
    "MNIST-1D, CNN": ["data=mnist1d", "model=cnn1d", "trainer.max_epochs=15"],
    "text, transformer": [
        "data=text", "data.context=32", "data.batch_size=32", "data.train_samples=3200", "trainer.max_epochs=5",
        "model=char_transformer", "model.layers=1", "model.width=32", "model.heads=2",
    ],
}  # fmt: skip
RATES = {
    "digits, MLP": ("0.0125,0.025,0.05,0.1,0.2,0.4", "0.001,0.002,0.004,0.008,0.016,0.032"),
    "MNIST-1D, CNN": ("0.0125,0.025,0.05,0.1,0.2,0.4", "0.001,0.002,0.004,0.008,0.016,0.032"),
    "text, transformer": ("0.05,0.1,0.2,0.4,0.8,1.6", "0.002,0.004,0.008,0.016,0.032,0.064"),
}
SCHEDULES, SEEDS = "constant,cosine,linear,wsd", (2, 3)

Outcome = dict[str, Any]


def grid(task: str, seed: int, quick: bool) -> list[list[str]]:
    """Return the jobs of a cell."""
    momentum, adamw = ((rates.split(",")[2:4] if quick else rates.split(",")) for rates in RATES[task])
    pairs = [f"(momentum,{rate})" for rate in momentum] + [f"(adamw,{rate})" for rate in adamw]
    schedules = "constant,cosine" if quick else SCHEDULES
    words = [*TASKS[task], f"schedule={schedules}", f"optimizer,optimizer.lr={','.join(pairs)}", f"seed={seed}"]
    return expand_jobs([*words, "+sweep.race=true"])


class Trainings:
    """The trainings of the benchmark. Each is kept in a file, so that an interrupted benchmark goes on."""

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self.done = {json.dumps(entry["words"]): entry for entry in map(json.loads, lines)}

    def run(self, words: Sequence[str], data: Any) -> Outcome:
        """Return the outcome of a training."""
        key = json.dumps(list(words))
        if key not in self.done:
            config = configs.compose(words)
            made = train(config, data)
            finite = math.isfinite(made.loss) and all(map(math.isfinite, made.losses))
            tail = made.losses[-max(5, len(made.losses) // 10) :]
            entry = {
                "words": list(words), "loss": made.loss if finite else None, "val": made.accuracy * finite,
                "test": made.test_accuracy * finite, "steps": len(made.losses),
                "noise": loss_noise(tail) / math.sqrt(len(tail)) if finite else 0.0,
            }  # fmt: skip
            with self.file.open("a") as out:
                out.write(json.dumps(entry) + "\n")
            self.done[key] = entry
        return self.done[key]


def score(outcome: Outcome) -> float:
    return math.inf if outcome["loss"] is None else float(outcome["loss"])


def measure(task: str, seed: int, trainings: Trainings, quick: bool) -> dict[str, Any]:
    """Return the row of a cell: the cost of the race, and what its answer loses."""
    jobs = grid(task, seed, quick)
    options = read_options(jobs, None)
    assert options is not None
    settings = list_settings(jobs, options, None)
    data = data_of(configs.compose(jobs[0]))
    data.setup()
    left, used, kept = race(settings, options, trainings, data)
    whole = [trainings.run(setting.entries[0].words, data) for setting in settings]
    raced = [trainings.run(setting.entries[0].words, data) for setting in left]
    best, found = min(whole, key=score), min(raced, key=score)
    cost = (used + sum(outcome["steps"] for outcome in raced)) / sum(s.entries[0].steps for s in settings)
    drawn = expected_accuracy(sorted(whole, key=score), round(cost * len(whole)))
    order = sorted(range(len(settings)), key=lambda i: score(whole[i]))
    return {
        "task": task, "seed": seed, "settings": len(settings), "kept": kept, "cost": cost,
        "place": 1 + [whole[i] for i in order].index(found), "loss": score(found) - score(best),
        "val": 100 * (best["val"] - found["val"]), "test": 100 * (best["test"] - found["test"]),
        "random": 100 * (best["val"] - drawn),
    }  # fmt: skip


def race(
    settings: Sequence[RaceSetting], options: RaceOptions, trainings: Trainings, data: Any
) -> tuple[list[RaceSetting], int, list[int]]:
    """Return the settings that the rungs promote, the steps of the short copies, and the number after each rung."""
    left, used, kept = list(settings), 0, []
    for share in options.rungs:
        copies = [trainings.run(setting.entries[0].short_words(Fraction(share)), data) for setting in left]
        used += sum(copy["steps"] for copy in copies)
        standings = [Standing({0: score(copy)}, copy["noise"]) for copy in copies]
        left = [left[i] for i in promote(standings, options.keep)]
        kept.append(len(left))
    return left, used, kept


def expected_accuracy(ranked: Sequence[Outcome], drawn: int) -> float:
    """Return the expected validation accuracy of the setting with the lowest loss among some drawn at random."""
    sets = math.comb(len(ranked), drawn)
    return sum(math.comb(len(ranked) - 1 - i, drawn - 1) / sets * each["val"] for i, each in enumerate(ranked))


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield (
        "| task | seed | settings, after each rung | steps of the grid | place in the grid | validation loss lost"
        " | validation accuracy lost, points | test accuracy lost, points | random settings, points lost |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for row in rows:
        kept = " to ".join(map(str, [row["settings"], *row["kept"]]))
        yield (
            f"| {row['task']} | {row['seed']} | {kept} | {100 * row['cost']:.0f} % | {row['place']} | {row['loss']:.3f}"
            f" | {row['val']:.2f} | {row['test']:.2f} | {row['random']:.2f} |"
        )
    means = {name: fmean(row[name] for row in rows) for name in ("cost", "loss", "val", "test", "random")}
    yield (
        f"| mean | | | {100 * means['cost']:.0f} % | | {means['loss']:.3f} | {means['val']:.2f} | {means['test']:.2f}"
        f" | {means['random']:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one task and a small grid")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="file of the table")
    parser.add_argument("--kept", type=Path, default=Path("racing.jsonl"), help="file of the trainings")
    given = parser.parse_args()
    torch.set_num_threads(1)
    trainings, rows = Trainings(given.kept), []
    for seed in SEEDS[:1] if given.quick else SEEDS:
        for task in list(TASKS)[:1] if given.quick else TASKS:
            rows.append(measure(task, seed, trainings, given.quick))
            print("\n".join(table(rows)), flush=True)
            given.out.write_text("\n".join(table(rows)) + "\n")


if __name__ == "__main__":
    main()

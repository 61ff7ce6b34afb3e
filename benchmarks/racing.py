"""What does a race (``+sweep.race=true``) save against the whole grid, and what does its answer lose?

    python benchmarks/racing.py             three tasks, four seeds: about 15 minutes of one core, into racing.md
    python benchmarks/racing.py --jobs 16   the same, 16 trainings at a time
    python benchmarks/racing.py --quick     one task and a small grid

Each cell (task, seed) trains the whole grid of 4 schedules x 6 rates x 2 optimizers, and the short copies of the race,
by the plain loop of ``loop.py``, which is `lrkit train` to the bit. The race decides by lrkit's own rule on the copies
that lrkit makes. Its answer is the setting with the lowest validation loss among those trained in full; the grid's is
the one among all. ``random`` is the expected answer of as many steps spent on whole runs of settings drawn at random.

The shares and the rule were chosen on seed 1 of the three tasks; the table has other seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from loop import train

from lrkit.config import compose as configs
from lrkit.config.sweep_values import expand_jobs
from lrkit.runs.loss_noise import loss_noise
from lrkit.sweep.promotion import Standing, promote
from lrkit.sweep.race_settings import RaceSetting, list_settings, read_options
from lrkit.training_objects.data import data_of

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
SCHEDULES, SEEDS = "constant,cosine,linear,wsd", (2, 3, 4, 5)

Outcome = dict[str, Any]
Words = tuple[str, ...]


@cache
def data_of_task(task: str) -> Any:
    data = data_of(configs.compose(TASKS[task]))
    data.setup()
    return data


def train_words(given: tuple[str, Words]) -> Outcome:
    """Train one run of a task, and return its outcome."""
    task, words = given
    torch.set_num_threads(1)
    begun = time.process_time()
    made = train(configs.compose(words), data_of_task(task))
    finite = math.isfinite(made.loss) and all(map(math.isfinite, made.losses))
    tail = made.losses[-max(5, len(made.losses) // 10) :]
    return {
        "task": task, "words": list(words), "loss": made.loss if finite else None, "val": made.accuracy * finite,
        "test": made.test_accuracy * finite, "steps": len(made.losses),
        "noise": loss_noise(tail) / math.sqrt(len(tail)) if finite else 0.0,
        "cpu": round(time.process_time() - begun, 3),
    }  # fmt: skip


class Trainings:
    """The trainings of the benchmark. Each is kept in a file as it ends: an interrupted benchmark goes on."""

    def __init__(self, file: Path, jobs: int = 1) -> None:
        self.file, self.jobs = file, jobs
        lines = file.read_text().splitlines() if file.exists() else []
        self.done: dict[Words, Outcome] = {tuple(entry["words"]): entry for entry in map(json.loads, lines)}

    def run(self, missing: Sequence[tuple[str, Words]]) -> None:
        """Run trainings, ``jobs`` at a time."""
        for task in dict.fromkeys(task for task, _ in missing):
            data_of_task(task)  # before the processes are forked, so that they share it
        if self.jobs == 1:
            self._keep(map(train_words, missing))
        else:
            with multiprocessing.get_context("fork").Pool(self.jobs) as pool:
                self._keep(pool.imap_unordered(train_words, missing))

    def _keep(self, outcomes: Iterable[Outcome]) -> None:
        with self.file.open("a") as out:
            for outcome in outcomes:
                out.write(json.dumps(outcome) + "\n")
                out.flush()
                self.done[tuple(outcome["words"])] = outcome


class Cell:
    """A race on one task with one seed, and the grid that it is compared with."""

    def __init__(self, task: str, seed: int, quick: bool = False) -> None:
        momentum, adamw = ((rates.split(",")[2:4] if quick else rates.split(",")) for rates in RATES[task])
        pairs = [f"(momentum,{rate})" for rate in momentum] + [f"(adamw,{rate})" for rate in adamw]
        schedules = "constant,cosine" if quick else SCHEDULES
        words = [*TASKS[task], f"schedule={schedules}", f"optimizer,optimizer.lr={','.join(pairs)}", f"seed={seed}"]
        jobs = expand_jobs([*words, "+sweep.race=true"])
        options = read_options(jobs, None)
        assert options is not None
        self.task, self.seed, self.options = task, seed, options
        self.settings = list_settings(jobs, options, None)

    def list_missing(self, done: dict[Words, Outcome]) -> list[tuple[str, Words]]:
        """Return the trainings that can be begun now: the whole runs, and the copies of the first unfinished rung."""
        wanted = [setting.entries[0].words for setting in self.settings]
        left: Sequence[RaceSetting] = self.settings
        for rung in range(len(self.options.rungs)):
            copies = self._list_copies(left, rung)
            wanted += copies
            if any(words not in done for words in copies):
                break
            left = self._promote(left, copies, done)
        return [(self.task, words) for words in wanted if words not in done]

    def measure(self, done: dict[Words, Outcome]) -> dict[str, Any]:
        """Return the cost of the race, and what its answer loses."""
        left: Sequence[RaceSetting] = self.settings
        used, kept = 0, []
        for rung in range(len(self.options.rungs)):
            copies = self._list_copies(left, rung)
            used += sum(done[words]["steps"] for words in copies)
            left = self._promote(left, copies, done)
            kept.append(len(left))
        whole = sorted((done[setting.entries[0].words] for setting in self.settings), key=score)
        raced = [done[setting.entries[0].words] for setting in left]
        best, found = whole[0], min(raced, key=score)
        steps = sum(setting.entries[0].steps for setting in self.settings)
        cost = (used + sum(outcome["steps"] for outcome in raced)) / steps
        drawn = expected_accuracy(whole, round(cost * len(whole)))
        return {
            "task": self.task, "seed": self.seed, "settings": len(whole), "kept": kept, "cost": cost,
            "place": 1 + whole.index(found), "loss": score(found) - score(best),
            "val": 100 * (best["val"] - found["val"]), "test": 100 * (best["test"] - found["test"]),
            "random": 100 * (best["val"] - drawn),
        }  # fmt: skip

    def _list_copies(self, left: Sequence[RaceSetting], rung: int) -> list[Words]:
        return [setting.entries[0].short_words(self.options.rungs[rung]) for setting in left]

    def _promote(
        self, left: Sequence[RaceSetting], copies: Sequence[Words], done: dict[Words, Outcome]
    ) -> list[RaceSetting]:
        standings = [Standing({0: score(done[words])}, done[words]["noise"]) for words in copies]
        return [left[i] for i in promote(standings, self.options.keep)]


def score(outcome: Outcome) -> float:
    return math.inf if outcome["loss"] is None else float(outcome["loss"])


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
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="seeds, with commas between them")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="file of the table")
    parser.add_argument("--kept", type=Path, default=Path("racing.jsonl"), help="file of the trainings")
    given = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    tasks = list(TASKS)[:1] if given.quick else list(TASKS)
    cells = [Cell(task, seed, given.quick) for task in tasks for seed in seeds[: 1 if given.quick else None]]
    trainings = Trainings(given.kept, given.jobs)
    while missing := [each for cell in cells for each in cell.list_missing(trainings.done)]:
        print(f"{len(missing)} trainings", flush=True)
        trainings.run(missing)
    lines = "\n".join(table([cell.measure(trainings.done) for cell in cells]))
    print(lines)
    given.out.write_text(lines + "\n")


if __name__ == "__main__":
    main()

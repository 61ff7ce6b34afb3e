"""How good is a suggested learning rate? Regret of ``lrkit find`` and of its peers, over tasks, optimizers and seeds.

    python benchmarks/find.py            all cells: more than an hour on two cores
    python benchmarks/find.py --quick    one task, one optimizer, one seed
    python benchmarks/find.py --weak     only the cells in which a search with three rounds lost most
    python benchmarks/find.py --resume   only the cells that the folder's find.jsonl does not have yet

For each cell (task x optimizer x seed):

1. the truth: complete runs with the schedule of the benchmark (warmup, then cosine) at 20 rates from 1e-5 to 10; the
   validation accuracy chooses the best rate;
2. the suggestion of each method with its default settings, and the optimizer steps that it took;
3. a complete run at this rate: *regret* is the test accuracy at the best rate minus the test accuracy at this rate, in
   points. It can be negative, because validation data choose the best rate and test data measure the regret.

A cell is written to find.jsonl as soon as it is done, and a run with ``--resume`` goes on from that file. The cells
that the search finds hardest come first, then those of the tasks in HELD_OUT, which have a table of their own.

The regret of a method without a suggestion is the whole accuracy. No constant was tuned on these seeds: lrkit's
constants were chosen on seeds 100 and 101.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

TASKS = {
    "digits, MLP": ["data=digits", "model=mlp", "trainer.max_epochs=15"],
    "MNIST-1D, MLP": ["data=mnist1d", "model=mlp", "trainer.max_epochs=20"],
    "MNIST-1D, CNN": ["data=mnist1d", "model=cnn1d", "trainer.max_epochs=25"],
    "text, transformer": [
        "data=text", "model=char_transformer", "model.layers=2", "model.width=32", "data.context=32",
        "data.batch_size=32", "data.train_samples=3200", "trainer.max_epochs=4",
    ],
}  # fmt: skip
#: Tasks that played no part in the design of the search.
HELD_OUT = {
    "digits, CNN": ["data=digits", "model=cnn2d", "trainer.max_epochs=12"],
    "MNIST-1D, wide MLP": [
        "data=mnist1d", "model=mlp", "model.hidden=[256]", "data.batch_size=50", "trainer.max_epochs=30",
    ],
}  # fmt: skip
OPTIMIZERS = ("momentum", "adamw", "rmsprop", "lion")
SEEDS, HELD_OUT_SEEDS = (1, 2, 3, 4), (5, 6)
#: The cells in which a search with three rounds lost most, by task and optimizer.
WEAK = (("MNIST-1D, CNN", "rmsprop"), ("text, transformer", "momentum"))
#: lrkit's searches by short runs, and their keys.
SEARCHES = {"lrkit find": [], "lrkit find.rounds=2": ["find.rounds=2"], "lrkit find.full=true": ["find.full=true"]}
GRID = [10 ** (-5 + 6 * i / 19) for i in range(20)]
SCHEDULE = ["warmup=linear", "schedule=cosine"]

Cell = tuple[str, str, int]


def measure(cell: Cell, peers: bool = True) -> dict[str, Any]:
    """Return the results of one cell: the grid of rates, and each method's suggestion with its run.

    Without ``peers``, whose packages need not be installed then, the methods are those of lrkit.
    """
    import torch

    torch.set_num_threads(1)
    from loop import train

    from lrkit.config import compose as configs
    from lrkit.lr_finder.find import find_lr
    from lrkit.training_objects.data import data_of

    task, optimizer, seed = cell

    def config(lr: float, *more: str) -> dict[str, Any]:
        overrides = [
            *{**TASKS, **HELD_OUT}[task],
            *SCHEDULE,
            f"optimizer={optimizer}",
            f"optimizer.lr={lr!r}",
            f"seed={seed}",
            *more,
        ]
        return configs.compose(overrides)

    data = data_of(config(0.1))
    data.setup()
    steps = configs.plan(config(0.1)).horizon.steps

    def outcome(lr: float) -> dict[str, float]:
        done = train({**config(lr), "allow_extreme_lr": True}, data)
        return {"lr": lr, "val": done.accuracy, "test": done.test_accuracy, "test_loss": done.test_loss}

    grid = [outcome(lr) for lr in GRID]
    suggested: dict[str, dict[str, Any]] = {}
    for name, keys in SEARCHES.items():
        with tempfile.TemporaryDirectory() as folder:
            found = find_lr(config(0.1, *keys), Path(folder), quiet=True)
        suggested[name] = {"lr": found.lr, "steps": found.steps, "why": found.reason}
    alone = found.reading.lr if found.reading else None
    tested = sum(len(sweep.losses) for sweep in found.sweeps)
    suggested["lrkit find.confirm=false"] = {"lr": alone, "steps": tested, "why": ""}
    others: dict[str, Any] = {}
    if peers:
        from peers import PEERS as others
    for name, peer in others.items():
        said = peer(config(0.1), data)
        suggested[name] = {"lr": said.lr, "steps": said.steps, "why": said.why}
    for said in suggested.values():
        said["result"] = None if said["lr"] is None else outcome(said["lr"])
    return {"cell": cell, "steps": steps, "grid": grid, "suggested": suggested}


def rows(cells: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table: for each method the regret over all cells, and its cost in steps."""
    yield "method", "median", "mean", "worst", "cells over 3", "median loss lost", "no rate", "steps of the grid"
    for method in cells[0]["suggested"]:
        regrets = sorted(regret(cell, method) for cell in cells)
        losses = [more for cell in cells if (more := loss_regret(cell, method)) is not None]
        shares = [cell["suggested"][method]["steps"] / (len(GRID) * cell["steps"]) for cell in cells]
        nothing = sum(cell["suggested"][method]["lr"] is None for cell in cells)
        lost = f"{median(losses):.3f}" if losses else "-"
        yield (
            method, f"{median(regrets):.1f}", f"{sum(regrets) / len(regrets):.1f}", f"{regrets[-1]:.1f}",
            f"{sum(r > 3 for r in regrets)} of {len(regrets)}", lost, str(nothing),
            f"{100 * median(shares):.1f} % (most {100 * max(shares):.1f} %)",
        )  # fmt: skip


def by_task(cells: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the second table: median and worst regret of each method, for each task and optimizer."""
    methods = list(cells[0]["suggested"])
    yield "task", "optimizer", "best rates", *methods
    for task, optimizer in dict.fromkeys((cell["cell"][0], cell["cell"][1]) for cell in cells):
        here = [cell for cell in cells if tuple(cell["cell"][:2]) == (task, optimizer)]
        rates = [best(cell)["lr"] for cell in here]
        values = [sorted(regret(cell, method) for cell in here) for method in methods]
        told = [f"{median(each):.1f} / {each[-1]:.1f}" for each in values]
        yield task, optimizer, f"{min(rates):.2g}-{max(rates):.2g}", *told


def best(cell: dict[str, Any]) -> dict[str, float]:
    """Return the outcome at the best rate of the grid, by validation accuracy."""
    return max(cell["grid"], key=lambda outcome: outcome["val"])


def regret(cell: dict[str, Any], method: str) -> float:
    """Return the loss of test accuracy against the best rate, in points."""
    result = cell["suggested"][method]["result"]
    return 100 * (best(cell)["test"] - (result["test"] if result else 0.0))


def loss_regret(cell: dict[str, Any], method: str) -> float | None:
    """Return the increase of the test loss against the best rate, in nats; None without a suggestion."""
    result = cell["suggested"][method]["result"]
    return None if result is None else result["test_loss"] - best(cell)["test_loss"]


def markdown(table: Iterator[tuple[str, ...]]) -> str:
    head, *body = table
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells_by_value() -> list[Cell]:
    """Return all cells: the hardest ones first, then the held-out tasks, then a seed at a time, its long runs first."""
    held_out = list(product(HELD_OUT, OPTIMIZERS, HELD_OUT_SEEDS))
    cells = list(product(TASKS, OPTIMIZERS, SEEDS))
    cells.sort(key=lambda cell: (cell[2], -list(TASKS).index(cell[0])))
    return [*weak_cells(), *held_out, *(cell for cell in cells if cell[:2] not in WEAK)]


def weak_cells() -> list[Cell]:
    """Return the cells in which a search with three rounds lost most."""
    return [(*weak, seed) for weak in WEAK for seed in SEEDS]


def report(results: list[dict[str, Any]]) -> str:
    """Return the tables of the tasks, and those of the held-out tasks if there are results of them."""
    parts = []
    for title, tasks in (("", TASKS), ("Tasks that played no part in the design:\n\n", HELD_OUT)):
        if here := [cell for cell in results if cell["cell"][0] in tasks]:
            apart = "Median / worst regret in points of test accuracy:"
            parts.append(f"{title}{markdown(rows(here))}\n\n{apart}\n\n{markdown(by_task(here))}\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one cell")
    parser.add_argument("--weak", action="store_true", help="only the cells in which three rounds lost most")
    parser.add_argument("--no-peers", action="store_true", help="only lrkit, without the other packages")
    parser.add_argument("--resume", action="store_true", help="keep the cells of find.jsonl, and measure the others")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, with one thread each")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"), help="folder for find.jsonl, find.md")
    options = parser.parse_args()
    cells = weak_cells() if options.weak else cells_by_value()
    cells = [("digits, MLP", "momentum", 1)] if options.quick else cells
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "find.jsonl"
    results = _read_results(path) if options.resume and path.exists() else []
    path.write_text("".join(f"{json.dumps(result)}\n" for result in results))
    done = {tuple(result["cell"]) for result in results}
    with ProcessPoolExecutor(options.jobs) as pool, path.open("a") as file:
        for future in as_completed(
            [pool.submit(measure, cell, not options.no_peers) for cell in cells if cell not in done]
        ):
            result = future.result()
            results.append(result)
            print(json.dumps(result), file=file, flush=True)
            told = {name: round(regret(result, name), 1) for name in result["suggested"]}
            print(f"{len(results)} of {len(cells)}: {', '.join(map(str, result['cell']))}: {told}", file=sys.stderr)
    text = report(results)
    (options.out / "find.md").write_text(text)
    print(text)


def _read_results(path: Path) -> list[dict[str, Any]]:
    """Return the results in a file that have all of lrkit's searches, without a last line that a time limit has cut."""
    results = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [result for result in results if SEARCHES.keys() <= result["suggested"].keys()]


if __name__ == "__main__":
    main()

"""Where the trainings of an experiment run: each is a sweep of the command's, as a reader would run it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrkit.cli.main import main
from lrkit.runs.run_reader import Run, find_runs, load_run

__all__ = ["Lab", "accuracy", "by", "loss", "over_seeds"]

#: Seed -> run.
Runs = dict[Any, Run]


@dataclass
class Lab:
    """A folder for sweeps.

    Args:
        folder: sweeps land below it; what is finished there is kept.
        quick: a few steps of each training, to see that all of it works. Nothing is shown by that.
    """

    folder: Path
    quick: bool = False

    def sweep(self, name: str, *words: str, quick: Sequence[str] = ()) -> list[Run]:
        """``lrkit train -m`` with ``words``, into the folder ``name``; its runs.

        Args:
            quick: words that take the place of those with the same key where all is to be quick.
        """
        folder = self.folder / name
        chosen = replaced(words, quick) if self.quick else list(words)
        command = ["lrkit", "train", "-m", *chosen, f"hydra.sweep.dir={folder}"]
        print(f"\n$ {shlex.join(command)}", flush=True)
        code = main(command[1:])  # in this process, so that torch is loaded once for the jobs of all sweeps
        if code not in (0, 3):  # 3: some diverged, which is an answer too
            raise SystemExit(f"the sweep {name} ended with {code}: see {folder}")
        return [load_run(path, run) for path, run in find_runs([folder]).items()]


def replaced(words: Sequence[str], others: Sequence[str]) -> list[str]:
    """``words``, with ``others`` in the place of those that have the same key.

    >>> replaced(["+sweep=a", "seed=1,2"], ["seed=1", "optimizer.lr=1"])
    ['+sweep=a', 'seed=1', 'optimizer.lr=1']
    """
    by_key = {word.partition("=")[0]: word for word in words}
    return list((by_key | {word.partition("=")[0]: word for word in others}).values())


def by(runs: Sequence[Run], *keys: str) -> dict[tuple[Any, ...], Runs]:
    """The runs by the values of ``keys``, options by their names; each as seed -> run.

    A single key makes tuples of one.
    """
    found: dict[tuple[Any, ...], Runs] = {}
    for run in runs:
        found.setdefault(tuple(run.choices.get(key, run.facts.get(key)) for key in keys), {})[run.seed] = run
    return dict(sorted(found.items(), key=lambda pair: str(pair[0])))


def over_seeds(runs: Runs, value: Callable[[Run], float]) -> dict[Any, float]:
    """Seed -> value."""
    return {seed: value(run) for seed, run in sorted(runs.items())}


def accuracy(run: Run, data: str = "test") -> float:
    """Percent of right answers at the end, on test or validation data; 0 for a run that diverged."""
    values = run.test if data == "test" else run.final
    found = 100 * values.get(f"{data}/accuracy", 0.0) if run.status == "done" else 0.0
    return found if math.isfinite(found) else 0.0


def loss(run: Run, data: str = "test") -> float:
    """The loss at the end; infinite for a run that diverged."""
    values = run.test if data == "test" else run.final
    found = values.get(f"{data}/loss", math.inf) if run.status == "done" else math.inf
    return found if math.isfinite(found) else math.inf

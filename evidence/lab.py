"""The runs of an experiment: sweeps of the ``lrkit`` command, as a reader would run them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrkit.cli.main import main
from lrkit.runs.run_folders import find_runs
from lrkit.runs.run_reader import Run, load_run

__all__ = ["Lab", "accuracy", "by", "loss", "over_seeds"]

#: Seed -> run.
Runs = dict[Any, Run]


@dataclass
class Lab:
    """A folder of sweeps.

    Args:
        folder: parent folder of the sweeps; finished runs in it are kept.
        quick: whether each run has only a few steps, as a test of the scripts; such results mean nothing.
    """

    folder: Path
    quick: bool = False

    def sweep(self, name: str, *words: str, quick: Sequence[str] = ()) -> list[Run]:
        """Run ``lrkit train -m`` with ``words`` into the folder ``name``, and return its runs.

        Args:
            name: name of the sweep's folder.
            words: overrides of the command.
            quick: overrides that replace those with the same key if the lab is ``quick``.
        """
        folder = self.folder / name
        chosen = replaced(words, quick) if self.quick else list(words)
        command = ["lrkit", "train", "-m", *chosen, f"hydra.sweep.dir={folder}"]
        print(f"\n$ {shlex.join(command)}", flush=True)
        code = main(command[1:])  # in this process, so that all sweeps share one import of torch
        if code not in (0, 3):  # 3: some runs diverged, which is a result too
            raise SystemExit(f"the sweep {name} ended with {code}: see {folder}")
        return [load_run(path, run) for path, run in find_runs([folder]).items()]


def replaced(words: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return ``words`` with ``others`` in place of the words with the same key.

    >>> replaced(["+sweep=a", "seed=1,2"], ["seed=1", "optimizer.lr=1"])
    ['+sweep=a', 'seed=1', 'optimizer.lr=1']
    """
    by_key = {word.partition("=")[0]: word for word in words}
    return list((by_key | {word.partition("=")[0]: word for word in others}).values())


def by(runs: Sequence[Run], *keys: str) -> dict[tuple[Any, ...], Runs]:
    """Return tuple of the values of ``keys`` -> seed -> run; for a config group, the value is the option's name.

    A single key gives tuples of length 1.
    """
    found: dict[tuple[Any, ...], Runs] = {}
    for run in runs:
        found.setdefault(tuple(run.choices.get(key, run.facts.get(key)) for key in keys), {})[run.seed] = run
    return dict(sorted(found.items(), key=lambda pair: str(pair[0])))


def over_seeds(runs: Runs, value: Callable[[Run], float]) -> dict[Any, float]:
    """Return seed -> value of the run."""
    return {seed: value(run) for seed, run in sorted(runs.items())}


def accuracy(run: Run, data: str = "test") -> float:
    """Return the final accuracy in percent, on test or validation data; 0 for a diverged run."""
    values = run.test if data == "test" else run.final
    found = 100 * values.get(f"{data}/accuracy", 0.0) if run.status == "done" else 0.0
    return found if math.isfinite(found) else 0.0


def loss(run: Run, data: str = "test") -> float:
    """Return the final loss; infinite for a diverged run."""
    values = run.test if data == "test" else run.final
    found = values.get(f"{data}/loss", math.inf) if run.status == "done" else math.inf
    return found if math.isfinite(found) else math.inf

"""The wall time of a sweep with two parallel jobs: the same 12 jobs in four ways, as ratios within one round.

    python benchmarks/sweep.py [--rounds 3]

The ways run in turn in each round: one job at a time, two parallel jobs, two parallel stacks of six jobs, and Hydra's
basic launcher, which runs all jobs in one process. The time is that of the whole command, with the import of torch.
"""

from __future__ import annotations

import sys
from functools import partial

from rows import Row, command, compared, in_turn, middle, seconds

SWEEP = ["schedule=step,cosine,linear,constant", "seed=1,2,3", "trainer.max_epochs=15"]
WAYS = {
    "one at a time": ["jobs=1"], "two at a time": ["jobs=2"], "two stacks": ["jobs=2", "stack=auto"],
    "Hydra's basic launcher": ["hydra/launcher=basic"],
}  # fmt: skip
PAIRS = (
    ("two at a time", "Hydra's basic launcher", 0.35),
    ("two stacks", "Hydra's basic launcher", 0.35),
    ("two at a time", "one at a time", None),
)


def rows(rounds: int = 3) -> list[Row]:
    lrkit = [sys.executable, "-m", "lrkit", "train", "-m", *SWEEP]
    taken = in_turn({way: partial(seconds, [*lrkit, *words]) for way, words in WAYS.items()}, rounds)
    made = []
    for ours, other, aim in PAIRS:
        figures = f"{middle(taken[ours]):.1f} s and {middle(taken[other]):.1f} s"
        made.append(compared(f"a sweep of 12 jobs, {ours}", other, taken[ours], taken[other], aim, figures))
    return made


if __name__ == "__main__":
    command(__doc__, rows, rounds=3)

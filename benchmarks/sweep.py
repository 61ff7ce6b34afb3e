"""How much quicker is a sweep with two jobs at a time? Wall time of the same 12 jobs, as ratios within one round.

    python benchmarks/sweep.py [--rounds 3]

Three ways, one after the other in each round: one job at a time, two at a time, and Hydra's own basic launcher, which
runs all jobs in one process. What is compared is the whole command, loading torch included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial

from rows import Row, against, in_turn, table

SWEEP = ["schedule=step,cosine,linear,constant", "seed=1,2,3", "trainer.max_epochs=15"]
WAYS = {"one at a time": ["jobs=1"], "two at a time": ["jobs=2"], "Hydra's basic launcher": ["hydra/launcher=basic"]}


def seconds(words: list[str]) -> float:
    """The wall time of a sweep, in an empty folder. One thread for each job, so that all compute the same."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        command = [sys.executable, "-m", "lrkit", "train", "-m", *SWEEP, *words]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - begun


def rows(rounds: int = 3) -> list[Row]:
    taken = in_turn({way: partial(seconds, words) for way, words in WAYS.items()}, rounds)
    s = {way: f"{sorted(each)[len(each) // 2]:.1f} s" for way, each in taken.items()}
    made = []
    for other, aim in (("Hydra's basic launcher", 1 / 1.5), ("one at a time", None)):
        ratio, spread = against(taken["two at a time"], taken[other])
        made.append(
            Row("a sweep of 12 jobs, two at a time", other, ratio, aim, spread, f"{s['two at a time']} and {s[other]}")
        )
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    print(table(rows(parser.parse_args().rounds)))

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
from statistics import median

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = [{way: seconds(words) for way, words in WAYS.items()} for _ in range(parser.parse_args().rounds)]
    print("| 12 jobs | seconds, median | of one at a time |\n| --- | --- | --- |")
    for way in WAYS:
        ratios = [each[way] / each["one at a time"] for each in rounds]
        times = [each[way] for each in rounds]
        print(f"| {way} | {median(times):.1f} | {median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) |")


if __name__ == "__main__":
    main()

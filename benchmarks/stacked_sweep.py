"""A sweep of small jobs as stacks, against the same kind of jobs in processes of their own: seconds a job, as ratios.

    python benchmarks/stacked_sweep.py [--rounds 1]

Digits with an MLP (15 epochs, 570 steps) and MNIST-1D with its CNN (5 epochs, 200 steps); two processes at a time with
one thread each. A process of its own is fresh, as on Windows and macOS, or a fork of a warm one, as on Linux. CPU
seconds count all processes of a command; on a shared machine they are the reliable figure. All ways write the same
files. The start of the command is part of a sweep, so a stack of more jobs costs less a job.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from rows import Row, command, compared, in_turn, middle, seconds

RATES = ",".join(f"{0.01 * 1.5**i:.4g}" for i in range(8))
#: The program ``lrkit``, whose sweeps start a fresh process for each job.
FRESH = """
import sys
from lrkit.base import process_pool
from lrkit.cli.main import main
process_pool._FORKS = False
sys.exit(main(sys.argv[1:]))
"""
#: Task -> its overrides, and the aim of the ratio against fresh processes.
TASKS = {
    "digits MLP": (["trainer.max_epochs=15"], 1 / 20),
    "MNIST-1D CNN": (["data=mnist1d", "model=cnn1d", "trainer.max_epochs=5"], 1 / 5),
}


def rows(rounds: int = 1, stacked: int = 64, separate: int = 8) -> list[Row]:
    adopt_orphans()
    made = []
    for task, (words, aim) in TASKS.items():
        ways = {
            "stack": partial(cost, [*words, "stack=auto"], stacked),
            "fresh": partial(cost, [*words, "stack=off"], separate, ("-c", FRESH)),
            "forked": partial(cost, [*words, "stack=off"], separate),
        }
        taken: Any = in_turn(ways, rounds)  # type: ignore[arg-type]
        for i, unit in enumerate(("wall seconds", "CPU seconds")):
            ours = [each[i] for each in taken["stack"]]
            for way, aimed in (("fresh", aim), ("forked", None)):
                theirs = [each[i] for each in taken[way]]
                what = f"{task}: {stacked} jobs as stacks, {unit} a job"
                figures = f"{middle(ours):.2f} s and {middle(theirs):.2f} s a job"
                made.append(compared(what, f"{separate} jobs in {way} processes", ours, theirs, aimed, figures))
    return made


def cost(words: Sequence[str], jobs: int, program: Sequence[str] = ("-m", "lrkit")) -> tuple[float, float]:
    """Return wall and CPU seconds a job of a sweep."""
    seeds = ",".join(str(seed) for seed in range(max(1, jobs // 8)))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    sweep = [*words, "jobs=2", f"optimizer.lr={RATES}", f"seed={seeds}"]
    taken = seconds([sys.executable, *program, "train", "-m", *sweep])
    wait_for_orphans()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return taken / jobs, used / jobs


def adopt_orphans() -> None:
    """Make this process the parent of processes whose parent ends, so that it learns their CPU seconds (Linux)."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def wait_for_orphans() -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.2)
        except ChildProcessError:
            return


if __name__ == "__main__":
    command(__doc__, rows, rounds=1)

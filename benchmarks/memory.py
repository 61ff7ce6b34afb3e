"""How much memory a run takes, against plain Lightning; and whether that of a sweep grows with its jobs.

    python benchmarks/memory.py [--rounds 3] [--jobs 100]

The peak of a process is what the system says at its end (``ru_maxrss``). Both train the same network on the same loader
for the same steps, in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from rows import Row, command, compared, in_turn, middle

HERE = Path(__file__).parent
PEAK = """
import resource, sys, os
sys.path.insert(0, {here!r})
sys.stdout = open(os.devnull, "w")
import torch, training
torch.set_num_threads(1)
{call}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.__stdout__)
"""
PLAIN = "training.lightning(500, True)"
OURS = "training.lrkit(500, 'data=custom', 'data._target_=training.Data', f'data.train_samples={training.SAMPLES}')"


def peak(call: str) -> float:
    """Bytes that a process needs at its peak."""
    script = PEAK.format(here=str(HERE), call=call)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1]) * 1024


def of_a_sweep(jobs: int) -> tuple[float, float]:
    """Bytes of the processes that outlive the jobs, after the first tenth of them and near the end."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = ",".join(str(seed) for seed in range(jobs))
        command = [sys.executable, "-m", "lrkit", "train", "-m", f"seed={seeds}", "trainer.max_epochs=1",
                   "trainer.limit_train_batches=2", "trainer.limit_val_batches=1"]  # fmt: skip
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        sweep = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
        seen: list[float] = []
        assert sweep.stdout is not None
        for line in sweep.stdout:
            if line.startswith("job "):
                seen.append(_resident(sweep.pid))
        sweep.wait()
    tenth = max(1, jobs // 10)
    return seen[tenth], max(seen[-tenth - 1 : -1])


def _resident(pid: int) -> float:
    """Bytes of a process and of the server that jobs are forked from; jobs come and go, so they are left out."""
    total = 0.0
    for each in [pid, *_children(pid)]:
        try:
            words = Path(f"/proc/{each}/cmdline").read_text()
            if each == pid or ("forkserver" in words and not _job(each)):
                total += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return total


def _job(pid: int) -> bool:
    """Whether a process is a child of the server, and not the server."""
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return "forkserver" in Path(f"/proc/{parent}/cmdline").read_text()


def _children(pid: int) -> list[int]:
    file = Path(f"/proc/{pid}/task/{pid}/children")
    direct = [int(child) for child in file.read_text().split()] if file.exists() else []
    return [*direct, *(each for child in direct for each in _children(child))]


def rows(rounds: int = 3, jobs: int = 100) -> list[Row]:
    taken = in_turn({"plain": partial(peak, PLAIN), "ours": partial(peak, OURS)}, rounds)
    figures = f"{middle(taken['ours']) / 2**20:.0f} MiB and {middle(taken['plain']) / 2**20:.0f} MiB"
    other = "plain Lightning with its logging"
    made = [compared("memory of a run, at its peak", other, taken["ours"], taken["plain"], 1.03, figures)]
    if jobs and Path("/proc").is_dir():
        before, after = of_a_sweep(jobs)
        figures = f"{after / 2**20:.0f} and {before / 2**20:.0f} MiB"
        made.append(Row(f"memory of a sweep, at job {jobs - 1}", f"at job {max(1, jobs // 10)}", after / before, 1.03,
                        figures=figures))  # fmt: skip
    return made


if __name__ == "__main__":
    command(__doc__, rows, rounds=3, jobs=100)

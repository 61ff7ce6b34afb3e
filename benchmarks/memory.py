"""The memory of a run, compared with plain Lightning; and whether the memory of a sweep grows with its jobs.

    python benchmarks/memory.py [--rounds 3] [--jobs 100]

The peak memory of a process is the system's ``ru_maxrss`` at its end. lrkit and plain Lightning train the same network
on the same loader for the same number of steps, each in its own process.
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
    """Return the peak memory of a process in bytes."""
    script = PEAK.format(here=str(HERE), call=call)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1]) * 1024


def measure_sweep(jobs: int) -> tuple[float, float]:
    """Return the bytes of a sweep's permanent processes after the first tenth of its jobs, and near its end."""
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
                seen.append(_measure_resident_bytes(sweep.pid))
        sweep.wait()
    tenth = max(1, jobs // 10)
    return seen[tenth], max(seen[-tenth - 1 : -1])


def _measure_resident_bytes(pid: int) -> float:
    """Return the bytes of a process and of its fork server; the jobs themselves are left out."""
    total = 0.0
    for each in [pid, *_list_children(pid)]:
        try:
            words = Path(f"/proc/{each}/cmdline").read_text()
            if each == pid or ("forkserver" in words and not _is_job(each)):
                total += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return total


def _is_job(pid: int) -> bool:
    """Return whether a process is a child of the fork server, and not the server."""
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return "forkserver" in Path(f"/proc/{parent}/cmdline").read_text()


def _list_children(pid: int) -> list[int]:
    file = Path(f"/proc/{pid}/task/{pid}/children")
    direct = [int(child) for child in file.read_text().split()] if file.exists() else []
    return [*direct, *(each for child in direct for each in _list_children(child))]


def rows(rounds: int = 3, jobs: int = 100) -> list[Row]:
    taken = in_turn({"plain": partial(peak, PLAIN), "ours": partial(peak, OURS)}, rounds)
    figures = f"{middle(taken['ours']) / 2**20:.0f} MiB and {middle(taken['plain']) / 2**20:.0f} MiB"
    other = "plain Lightning with its logging"
    made = [compared("memory of a run, at its peak", other, taken["ours"], taken["plain"], 1.03, figures)]
    if jobs and Path("/proc").is_dir():
        before, after = measure_sweep(jobs)
        figures = f"{after / 2**20:.0f} and {before / 2**20:.0f} MiB"
        made.append(Row(f"memory of a sweep, at job {jobs - 1}", f"at job {max(1, jobs // 10)}", after / before, 1.03,
                        figures=figures))  # fmt: skip
    return made


if __name__ == "__main__":
    command(__doc__, rows, rounds=3, jobs=100)

"""The benchmark table of the README: each row is a ratio with an aim.

    make bench                             all parts, under a quarter of an hour on two cores
    python benchmarks/bench.py --only training schedule

The parts run one after another, each in its own process, so that they share no threads, caches or warnings.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from rows import Row, table

HERE = Path(__file__).parent
#: The parts in the order of the table -> the call that returns the rows.
PARTS = {
    "schedule": "schedule.rows()",
    "training": "training.rows(steps=3000, rounds=3)",
    "optimizers": "optimizers.rows(rounds=3)",
    "start": "start.rows(rounds=3)",
    "sweep": "sweep.rows(rounds=2)",
    "stacked_sweep": "stacked_sweep.rows()",
    "memory": "memory.rows(rounds=3, jobs=100)",
    "scale": "scale.rows()",
}
ASK = """
import dataclasses, json, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
import {part}
print(json.dumps([dataclasses.asdict(row) for row in {call}]))
"""


def measure_part(part: str) -> list[Row]:
    env = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    script = ASK.format(part=part, call=PARTS[part])
    done = subprocess.run([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, text=True, check=True)
    return [Row(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def machine() -> str:
    names = [line for line in _read_cpuinfo().splitlines() if line.startswith("model name")]
    cpu = names[0].partition(":")[2].strip() if names else platform.machine()
    versions = subprocess.run(
        [sys.executable, "-c", "import torch, pytorch_lightning as pl; print(torch.__version__, pl.__version__)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    return (
        f"{os.cpu_count()} cores ({cpu}), {platform.system()}, Python {platform.python_version()},"
        f" torch {versions[0]}, pytorch-lightning {versions[1]}"
    )


def _read_cpuinfo() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.exists() else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, help="a file for the table")
    chosen = parser.parse_args()
    begun, rows = time.perf_counter(), []
    for part in chosen.only:
        since = time.perf_counter()
        rows += measure_part(part)
        print(f"{part}: {time.perf_counter() - since:.0f} s", file=sys.stderr, flush=True)
        text = f"{table(rows)}\n{machine()}. Ratios are ours divided by theirs, of one run; medians, with the range.\n"
        if chosen.out:  # after each part: a later part that fails loses nothing
            chosen.out.write_text(text)
    print(text)
    print(f"in {(time.perf_counter() - begun) / 60:.1f} min", file=sys.stderr)


if __name__ == "__main__":
    main()

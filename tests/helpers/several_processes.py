"""Several processes on one CPU: a script by torchrun, or a run of the command that starts its processes itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locations import HELPERS, environment

#: The script that each process of a run executes.
RANKS = HELPERS / "record_rates_of_ranks.py"


@dataclass(frozen=True)
class Done:
    """Processes that have ended: their exit code, what they printed, and the learning rates of each rank."""

    code: int
    out: str
    err: str
    rates: Sequence[list[Any]] = ()


def torchrun(folder: Path, count: int, *words: str, timeout: float = 240, **more: str) -> Done:
    """Run a script or ``-m module`` on ``count`` processes that torchrun starts."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count))
    return _run(folder, [*launcher, *words], timeout, more)


def train(folder: Path, count: int, *overrides: str, timeout: float = 240, **more: str) -> Done:
    """Train on ``count`` processes, and return the rates of each optimizer step on each rank."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("rank*.json"):
        old.unlink()
    words = ["trainer.accelerator=cpu", f"trainer.devices={count}", "logger=none", *overrides]
    if count > 1 and not any("trainer.strategy" in word for word in words):
        words.append("trainer.strategy=ddp")
    done = _run(folder, [str(RANKS), str(folder), "train", *words], timeout, more)
    files = [folder / f"rank{rank}.json" for rank in range(count)]
    return Done(done.code, done.out, done.err, [json.loads(file.read_text()) for file in files if file.is_file()])


def the_run(folder: Path) -> Path:
    """The only run in a working folder: all processes joined it."""
    (found,) = (folder / "outputs" / "runs").iterdir()
    return found


def left_alike(folder: Path, count: int) -> dict[str, Any]:
    """What ``diverging_training.Ill`` leaves of each process at its end, which must be the same on all."""
    first, *others = (json.loads((folder / f"left{rank}.json").read_text()) for rank in range(count))
    assert all(each == first for each in others)
    return dict(first)


def _run(folder: Path, words: Sequence[str], timeout: float, more: dict[str, str]) -> Done:
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=timeout
    )
    return Done(done.returncode, done.stdout, done.stderr)

"""A run on two processes of one CPU, and the learning rates of each process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from locations import HELPERS, environment

#: The script that both processes run.
RANKS = HELPERS / "record_rates_of_ranks.py"
TWO = ("trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp", "logger=none")


def both_ranks(
    tmp_path: Path, *overrides: str, path: tuple[Path, ...] = ()
) -> tuple[list[list[float]], list[list[float]], Path]:
    """The rates of each rank at each step, and the run's folder; ``path`` is where its classes are, too."""
    command = [sys.executable, str(RANKS), str(tmp_path), "train", *TWO, *overrides]
    done = subprocess.run(command, cwd=tmp_path, env=environment(*path), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    folders = list((tmp_path / "outputs" / "runs").iterdir())
    assert len(folders) == 1  # the second process joined the run of the first
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    return first, second, folders[0]

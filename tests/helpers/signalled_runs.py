"""Runs of the command that receive a signal at a chosen step, and readers of their folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BASE = {"trainer.max_epochs": "4", "trainer.limit_train_batches": "6", "trainer.limit_val_batches": "1",
        "model.hidden": "[8]", "model.dropout": "0.3", "logger": "none"}  # fmt: skip


def words(*overrides: str) -> list[str]:
    given = {o.partition("=")[0] for o in overrides}
    return ["train", *(f"{key}={value}" for key, value in BASE.items() if key not in given), *overrides]


def at(step: int, name: str, rank: int = 0, times: int = 1) -> str:
    options = f"step: {step}, name: {name}, rank: {rank}, times: {times}"
    return f"+callbacks.signal={{_target_: failing_parts.SignalAt, {options}}}"


def metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


def only(parent: Path = Path("outputs/runs")) -> Path:
    return max(parent.iterdir(), key=lambda folder: folder.stat().st_mtime)

"""Overrides for runs of a few steps."""

from __future__ import annotations

import json
from pathlib import Path

#: A run of a few steps that writes nothing but its results.
SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=6", "trainer.limit_val_batches=1", "logger=none")


def without_callbacks(folder: Path, *but: str) -> list[str]:
    """The words that leave the callbacks of the run in ``folder`` out, but those that ``but`` names again."""
    named = json.loads((folder / "plan.json").read_text())["config"]["callbacks"]
    return [f"~callbacks.{name}" for name in named if not any(f"callbacks.{name}=" in word for word in but)]

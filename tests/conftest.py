"""What several test files share: composing, running in a temporary folder, and watching what an optimizer does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch.optim.optimizer import register_optimizer_step_post_hook

from lrkit.config.compose import compose

# The quick suite tries the same examples each time, so that it fails by what was changed; `make check` tries others.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

Recorded = list[dict[str, tuple[float, ...]]]

#: A run of a few steps that writes nothing but its results.
SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=6", "trainer.limit_val_batches=1", "logger=none")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are quicker on one thread, and equal bits need equal threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def without_callbacks(folder: Path, *but: str) -> list[str]:
    """The words that leave the callbacks of the run in ``folder`` out, but those that ``but`` names again."""
    named = json.loads((folder / "plan.json").read_text())["config"]["callbacks"]
    return [f"~callbacks.{name}" for name in named if not any(f"callbacks.{name}=" in word for word in but)]


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Any]:
    """Train with overrides, quietly, in a folder of its own; the result is a ``lrkit.training.run.FinishedRun``."""
    count = 0

    def run_it(*overrides: str, short: bool = True) -> Any:
        nonlocal count
        from lrkit.training.run import run_training

        folder = tmp_path / f"run{count}"
        folder.mkdir()
        count += 1
        keys = {o.partition("=")[0] for o in overrides}
        defaults = [o for o in SHORT if o.partition("=")[0] not in keys] if short else []
        return run_training(compose([*defaults, *overrides]), folder, quiet=True)

    return run_it


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """For each step that any optimizer takes, the rate and the momentum of each group, as they were used."""
    steps: Recorded = []

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if "name" not in optimizer.param_groups[0]:
            return  # not lrkit's: a trial of whether a fused implementation works
        steps.append(
            {
                group["name"]: (
                    float(group["lr"]),
                    float(group["betas"][0] if "betas" in group else group.get("momentum", 0.0)),
                )
                for group in optimizer.param_groups
            }
        )

    handle = register_optimizer_step_post_hook(look)
    yield steps
    handle.remove()

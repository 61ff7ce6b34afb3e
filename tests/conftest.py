"""Fixtures of several test files: composed configs, runs in a temporary folder, records of optimizer steps."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from recorded_rates import Recorded
from short_runs import SHORT
from torch.optim.optimizer import register_optimizer_step_post_hook

from lrkit.config.compose import compose

# The quick suite uses the same random examples each time, so that only a change can fail it; `make check` uses others.
# No example has a deadline: a busy machine fails no test.
settings.register_profile("random", deadline=None)
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# A shell starts its background jobs with SIGINT ignored, and each child process inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are quicker on one thread, and equal bits need equal threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unrelated working folder; what a command adds to the import path is removed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


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


@pytest.fixture(scope="module")
def torchvision() -> Iterator[Any]:
    """torchvision, if it is there.

    LRKIT_TORCHVISION may name a folder with a build for CUDA, to use beside a torch for CPU: it then lacks
    two operators, which nothing here calls. (On the ordinary path it keeps Lightning itself from importing.)
    """
    with pytest.MonkeyPatch.context() as patch:
        if folder := os.environ.get("LRKIT_TORCHVISION"):
            patch.syspath_prepend(folder)
            untyped: Any = torch.library.Library
            library = untyped("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        yield pytest.importorskip("torchvision", reason="needs lrkit[vision]")


@pytest.fixture(scope="module")
def datasets() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield pytest.importorskip("datasets", reason="needs lrkit[hf]")

"""The promises on a CUDA device: shown == used == resumed, for each optimizer and precision.

Needs a GPU; skipped without one. `pytest tests/promises/test_gpu.py` runs all of it on one.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupted_runs import full_and_resumed
from recorded_rates import Recorded
from test_shown_rates_are_used import listed, used

from lrkit.cli.main import main
from lrkit.config.compose import CONF_DIR, compose, plan
from lrkit.lightning.imports import Callback
from lrkit.training.run import run_training
from lrkit.training.stacked_runs import train_stacked_runs

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

GPU = ["trainer.accelerator=gpu", "trainer.devices=1"]
SHORT = [*GPU, "logger=none", "model.hidden=[8]", "trainer.max_epochs=2", "trainer.limit_train_batches=4",
         "trainer.limit_val_batches=1"]  # fmt: skip
OPTIMIZERS = sorted(path.stem for path in (CONF_DIR / "optimizer").glob("*.yaml") if path.stem != "custom")
#: They decide about rates themselves, or need to be the only ones who do.
CONSTANT = ("prodigy", "schedule_free_adamw", "schedule_free_sgd")
SKIPPING = [*SHORT, "optimizer=adamw", "guard=skip", "plateau=reduce", "trainer.precision=bf16-mixed"]
RATES = ("0.001", "0.003")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true")


class SeeDevice(Callback):
    """Notes where the parameters are, and whether the optimizer is fused."""

    seen: tuple[str, bool] | None = None

    def on_train_end(self, trainer: Any, module: Any) -> None:
        groups = trainer.optimizers[0].param_groups
        SeeDevice.seen = next(module.parameters()).device.type, any(group.get("fused") for group in groups)


SEE = "+callbacks.see={_target_: test_gpu.SeeDevice}"


def shape_for(optimizer: str) -> list[str]:
    """A warmup and a decay, where the optimizer accepts them."""
    return ["schedule=constant"] if optimizer in CONSTANT else ["schedule=cosine", "warmup=linear", "warmup.length=3"]


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_shown_is_used(optimizer: str, precision: str, recorded: Recorded, tmp_path: Path) -> None:
    config = [*SHORT, f"optimizer={optimizer}", f"trainer.precision={precision}", *shape_for(optimizer), SEE]
    rows = listed(config)
    run_training(compose(config), tmp_path, quiet=True)
    assert SeeDevice.seen is not None and SeeDevice.seen[0] == "cuda"
    assert used(recorded, [{}] * len(recorded), rows) == rows


@pytest.mark.parametrize("optimizer", ["adamw", "momentum", "adam", "sgd"])
def test_fused_is_chosen(optimizer: str, tmp_path: Path) -> None:
    run_training(compose([*SHORT, f"optimizer={optimizer}", SEE]), tmp_path, quiet=True)
    assert SeeDevice.seen == ("cuda", True)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_resumed_is_uninterrupted(precision: str, recorded: Recorded, tmp_path: Path) -> None:
    """Dropout draws from the device's own generator: its state is restored too."""
    full_and_resumed(tmp_path, recorded, 9, *GPU, f"trainer.precision={precision}", "optimizer=adamw",
                     "schedule=restarts", "warmup=linear", "warmup.length=5")  # fmt: skip


@pytest.mark.parametrize("optimizer", ["momentum", "muon", "ranger", "lion", "adafactor"])
def test_resumed_with_each_state(optimizer: str, recorded: Recorded, tmp_path: Path) -> None:
    full_and_resumed(tmp_path, recorded, 10, *GPU, f"optimizer={optimizer}", "schedule=one_cycle"
                     if optimizer in ("momentum", "lion", "ranger") else "schedule=cosine")  # fmt: skip


def too_large_scale(*more: str) -> list[str]:
    """A run of six epochs whose first scale of 16-bit gradients is too large."""
    scaler = "{_target_: torch.amp.GradScaler, device: cuda, init_scale: 8.388608e+6}"
    plugin = (
        f"{{_target_: pytorch_lightning.plugins.MixedPrecision, precision: 16-mixed, device: cuda, scaler: {scaler}}}"
    )
    short = [override for override in SHORT if not override.startswith("trainer.max_epochs=")]
    return [*short, "trainer.max_epochs=6", "optimizer=adamw", "schedule=linear", f"trainer.plugins={plugin}", *more]


def test_infinite_gradients_do_not_count(recorded: Recorded, tmp_path: Path) -> None:
    """The steps that too large a scale costs do not move the schedule."""
    config = too_large_scale()
    shown = [row["lr/default"] for row in listed(config)]
    run_training(compose(config), tmp_path, quiet=True)
    rates = [step["default"][0] for step in recorded]  # with those of steps that a fused optimizer left out
    distinct = [rate for rate, _ in groupby(rates)]
    assert 1 < len(distinct) < len(shown) and distinct == shown[: len(distinct)]


def test_a_guard_that_skips(recorded: Recorded, tmp_path: Path) -> None:
    rows = listed(config := SKIPPING)
    assert run_training(compose(config), tmp_path, quiet=True).status == "done"
    assert used(recorded, [{}] * len(recorded), rows) == rows


def test_find_and_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["find", *GPU, "find.repeats=2", "find.confirm=false", "find.steps=40"]) == 0
    assert "0." in capsys.readouterr().out


def test_a_sweep_has_one_job_at_a_time_on_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *SHORT, "optimizer=sgd,adamw", "optimizer.lr=0.01"]) == 0
    assert len(list(Path("outputs").rglob("metrics.json"))) == 2


def test_the_plan_has_the_devices(tmp_path: Path) -> None:
    assert plan(compose([*SHORT, "batch_scaling=linear", "batch_scaling.base_batch_size=16"])).scale.factor > 1


def test_a_stack_validates_on_the_device(tmp_path: Path) -> None:
    words = [*SHORT, "optimizer=adamw", "stack=off"]
    separate = [run_training(compose([*words, f"optimizer.lr={lr}"]), tmp_path / lr, quiet=True) for lr in RATES]
    stacked: list[float] = []
    train_stacked_runs(
        [compose([*words, f"optimizer.lr={lr}"]) for lr in RATES],
        lambda i, run: stacked.append(run.recorded.record.validations[-1].metrics["val/loss"]),
    )
    assert stacked == pytest.approx([run.final["val/loss"] for run in separate], rel=1e-3)

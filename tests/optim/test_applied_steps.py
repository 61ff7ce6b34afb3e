"""Steps that only the device knows to be skipped: counted exactly, and read one step later, when that costs nothing.

On a GPU a fused optimizer decides by itself whether to take a step. Here a CPU plays its part: its answer "arrives"
after the next backward pass, and for a read before that a GPU would make the host wait.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from equality import same
from recorded_rates import Recorded
from torch import Tensor

from lrkit.lightning.imports import Callback
from lrkit.optim import applied_steps
from lrkit.optim.applied_steps import AppliedSteps


class FakeCopy:
    """In place of ``HostCopy``: notes which reads would have waited."""

    made: ClassVar[list[FakeCopy]] = []
    waits: ClassVar[list[set[str]]] = []  # the functions that led to each read that would have waited

    def __init__(self, values: Tensor) -> None:
        self.values, self.arrived = values.clone(), False
        FakeCopy.made.append(self)

    @staticmethod
    def is_useful(values: Tensor) -> bool:
        return True

    @classmethod
    def let_arrive(cls) -> None:
        for each in cls.made:
            each.arrived = True
        cls.made.clear()

    def read(self) -> Tensor:
        if not self.arrived:
            FakeCopy.waits.append({frame.name for frame in traceback.extract_stack()})
        return self.values


class Arrival(Callback):
    """The device is through with a step when the next one has its gradients, and with all of them after an epoch."""

    def on_after_backward(self, *_: Any) -> None:
        FakeCopy.let_arrive()

    def on_train_epoch_end(self, *_: Any) -> None:
        FakeCopy.let_arrive()


@pytest.fixture
def on_a_device(monkeypatch: pytest.MonkeyPatch) -> type[FakeCopy]:
    monkeypatch.setattr(applied_steps, "HostCopy", FakeCopy)
    FakeCopy.made, FakeCopy.waits = [], []
    return FakeCopy


def test_a_count_waits_only_if_it_is_asked_at_once(on_a_device: type[FakeCopy]) -> None:
    steps = AppliedSteps()
    steps.add(torch.tensor(0.0))
    first = steps.ask_later()
    on_a_device.let_arrive()
    assert not steps.settle() and steps.is_known
    steps.add(torch.tensor(1.0))
    skipped = steps.ask_later()
    assert (steps.at_most, steps.is_known, on_a_device.waits) == (2, False, [])
    on_a_device.let_arrive()
    assert steps.settle()
    steps.add()
    assert (first(), skipped(), steps.at_most, on_a_device.waits) == (1, 1, 2, [])
    steps.add(torch.tensor(1.0))
    assert steps.settle() and len(on_a_device.waits) == 1


MIXED = "{_target_: pytorch_lightning.plugins.MixedPrecision, precision: 16-mixed, device: cpu, scaler: %s}"
SCALER = "{_target_: torch.amp.GradScaler, device: cpu, init_scale: 1.0e+11, backoff_factor: 1.0e-4}"


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_is_the_same_and_does_not_wait(
    accumulate: int, train: Callable[..., Any], recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first steps are skipped by too large a scale: rates, logs and checkpoint are those of reads at once."""
    config = [
        "schedule=cosine", "warmup=linear", "warmup.length=3", "optimizer=adamw", "+optimizer.fused=true",
        "trainer.max_epochs=3", "trainer.log_every_n_steps=2", f"trainer.accumulate_grad_batches={accumulate}",
        f"trainer.plugins={MIXED % SCALER}", "logger=csv", "guard=off",
        "+callbacks.arrival={_target_: test_applied_steps.Arrival}",
    ]  # fmt: skip
    results = []
    for late in (False, True):
        with monkeypatch.context() as patch:
            if late:
                patch.setattr(applied_steps, "HostCopy", FakeCopy)
                FakeCopy.made, FakeCopy.waits = [], []
            run = train(*config)
        saved = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
        (table,) = run.folder.rglob("metrics.csv")
        kept = [saved[name] for name in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "loops")]
        kept.append({name: saved["callbacks"].get(name) for name in ("Trace", "TrainLoss", "StepCount")})
        results.append(([*recorded], run.status, dict(run.final), table.read_text(), kept))
        recorded.clear()
    # The host waits where it reads other values of the device too: for a loss to log, and after a validation.
    assert all(names & {"_has_passed", "on_validation_end"} for names in FakeCopy.waits)
    for at_once, late_read in zip(*results, strict=True):
        assert same(at_once, late_read)
    steps = 18 // accumulate
    assert len(results[1][0]) == steps and results[1][4][2][0]["applied"] == steps - 2

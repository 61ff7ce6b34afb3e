"""An error that a device tells late, of a label that is too large, is told as bad input in the first batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lrkit.base.errors import ConfigError
from lrkit.callbacks.divergence_guard import move_to_one_device
from lrkit.callbacks.first_batch_check import FirstBatchCheck
from lrkit.lightning.imports import LightningModule

LATE = "CUDA error: device-side assert triggered\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1"


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)


class AcceleratorError(RuntimeError):
    """As torch.AcceleratorError, of which only a device makes one."""


def fail(_: torch.device) -> None:
    raise AcceleratorError(LATE)


def test_a_late_error_is_told_in_the_first_batch_also_if_ending_fails_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "synchronize", fail)
    check, module = FirstBatchCheck(), Module()
    check.on_train_batch_start(None, module, torch.zeros(3, 2), 0)
    loss = torch.zeros((), device="meta", requires_grad=True)
    with pytest.raises(ConfigError) as refused, check.explaining(module):
        try:
            check.on_before_backward(None, module, loss)
        except AcceleratorError:
            raise RuntimeError(LATE) from None  # Lightning moves the module to the host, and the device fails again
    told = str(refused.value)
    assert told.startswith("model cannot use the first batch: CUDA error: device-side assert triggered: often a label")
    assert "trainer.accelerator=cpu says which" in told and "float32 (3, 2)" in told and "BLOCKING" not in told


def test_an_error_of_the_device_in_the_step_is_told_although_ending_fails_again() -> None:
    check, module = FirstBatchCheck(), Module()
    check.on_train_batch_start(None, module, torch.zeros(3, 2), 0)
    with (
        pytest.raises(ConfigError, match=r"^model cannot use the first batch: CUDA error: .* often a label"),
        check.explaining(module),
    ):
        try:
            raise AcceleratorError(LATE)
        finally:
            raise AcceleratorError(LATE)
    check.on_train_batch_end(None, module, None, None, 0)
    with pytest.raises(AcceleratorError), check.explaining(module):
        raise AcceleratorError(LATE)


def test_it_waits_in_the_first_batch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waits.append)
    check, module = FirstBatchCheck(), Module()
    for number in range(3):
        check.on_train_batch_start(None, module, torch.zeros(3, 2), number)
        check.on_before_backward(None, module, torch.zeros((), device="meta", requires_grad=True))
        check.on_train_batch_end(None, module, None, None, number)
    assert [each.type for each in waits] == ["meta"]


def test_numbers_of_several_devices_are_joined_off_the_host() -> None:
    host, elsewhere = torch.tensor(1.0, dtype=torch.float64), torch.zeros(1, device="meta")
    moved = move_to_one_device([host, elsewhere], torch.float32)
    assert {(each.device.type, each.dtype, each.shape) for each in moved} == {("meta", torch.float32, torch.Size([]))}
    assert [each.item() for each in move_to_one_device([host, host], torch.float32)] == [1.0, 1.0]

"""The precision of matrix products in float32, during a training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lrkit.lightning.imports import Callback, LightningModule, Trainer

__all__ = ["MatmulPrecision", "MatmulPrecisionNote"]

AMPERE = 8  # the first compute capability with TF32


class MatmulPrecision(Callback):
    """Sets torch's precision of float32 matrix products for a training or a test, and gives the old one back.

    Args:
        precision: ``highest``, ``high`` or ``medium``, as in ``torch.set_float32_matmul_precision``.
    """

    def __init__(self, precision: str) -> None:
        self.precision = precision
        self.before: str | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.before is None:
            self.before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self.precision)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore()

    def on_exception(self, *_: Any) -> None:
        self._restore()

    def _restore(self) -> None:
        if self.before is not None:
            torch.set_float32_matmul_precision(self.before)
            self.before = None


class MatmulPrecisionNote(Callback):
    """Says once that a GPU could compute float32 matrix products faster, if the user has not chosen a precision.

    Lightning says so too, by a logger that lrkit silences, and without the key.

    Args:
        say: prints a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        in_float32 = trainer.precision in ("32-true", "32")
        undecided = torch.get_float32_matmul_precision() == "highest"
        if trainer.is_global_zero and in_float32 and undecided and has_tf32(pl_module.device):
            self.say(
                "note: trainer.matmul_precision=high computes float32 matrix products in TF32 on this GPU: faster, and"
                " less exactly; trainer.matmul_precision=highest ends this note"
            )


def has_tf32(device: torch.device) -> bool:
    """Whether a device has tensor cores for float32 matrix products."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= AMPERE

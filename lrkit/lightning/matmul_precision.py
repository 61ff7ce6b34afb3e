"""The precision of matrix products in float32, during a training."""

from __future__ import annotations

from typing import Any

import torch

from lrkit.lightning.imports import Callback, LightningModule, Trainer

__all__ = ["MatmulPrecision"]


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

"""A callback that ends the process after the first training step, to measure the time of the start."""

from __future__ import annotations

import os
from typing import Any

from pytorch_lightning import Callback


class First(Callback):
    def on_train_batch_end(self, *_: Any) -> None:
        os._exit(0)

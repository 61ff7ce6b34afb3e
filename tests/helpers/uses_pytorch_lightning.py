"""A callback of ``pytorch_lightning``, in a process that may use ``lightning.pytorch``."""

from __future__ import annotations

from pytorch_lightning import Callback


class Spoken(Callback):
    pass

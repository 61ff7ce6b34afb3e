"""A callback of ``pytorch_lightning``, whatever else is used."""

from __future__ import annotations

from pytorch_lightning import Callback


class Spoken(Callback):
    pass

"""The peers, in the order of the page that shows them."""

from __future__ import annotations

from parity import fastai, fvcore, keras, mmengine, optax, others, pretraining, timm, torch

__all__ = ["PEERS", "UNSAID"]

PEERS = [
    *torch.PEERS, timm.PEER, fastai.PEER, mmengine.PEER, fvcore.PEER, *pretraining.PEERS, keras.PEER, optax.PEER,
    *others.PEERS,
]  # fmt: skip

#: What lrkit cannot say, and why. A row without overrides must stand here, and no other.
UNSAID: dict[str, str] = {}

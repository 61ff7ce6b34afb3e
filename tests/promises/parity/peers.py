"""The peers, in the order of the page that shows them."""

from __future__ import annotations

from parity import fastai, fvcore, keras, mmengine, optax, others, pretraining, timm

__all__ = ["PEERS", "UNSAID"]

PEERS = [
    timm.PEER, fastai.PEER, mmengine.PEER, fvcore.PEER, *pretraining.PEERS, keras.PEER, optax.PEER, *others.PEERS,
]  # fmt: skip

#: What lrkit cannot say, and why. A row without overrides must stand here, and no other.
UNSAID = {
    "timm: CosineLRScheduler(t_initial=60, warmup_t=10, warmup_lr_init=0.01)":
        "The warmup lies over the beginning of the schedule",
}  # fmt: skip

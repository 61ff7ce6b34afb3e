"""The earlier paths of moved classes, which users' configs, saved plans and checkpoints still name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["MOVED", "with_current_paths"]

MOVED = {
    "lrkit.adabound.AdaBound": "lrkit.optim.adabound.AdaBound",
    "lrkit.data.idx.Idx": "lrkit.data.Idx",
    "lrkit.guard.Guard": "lrkit.planning.guard.Guard",
    "lrkit.lamb.Lamb": "lrkit.optim.lamb.Lamb",
    "lrkit.muon.Muon": "lrkit.optim.muon.Muon",
    "lrkit.noise.NoiseScale": "lrkit.callbacks.noise_scale.NoiseScale",
    "lrkit.plateau.Plateau": "lrkit.planning.plateau.Plateau",
}


def with_current_paths(node: Any) -> Any:
    """Return a copy of a config or a plan with the current path of each class of lrkit.

    >>> with_current_paths({"optimizer": {"_target_": "lrkit.muon.Muon", "lr": 0.02}})
    {'optimizer': {'_target_': 'lrkit.optim.muon.Muon', 'lr': 0.02}}
    """
    if isinstance(node, Mapping):
        return {name: with_current_paths(inner) for name, inner in node.items()}
    if isinstance(node, list):
        return [with_current_paths(inner) for inner in node]
    return MOVED.get(node, node) if isinstance(node, str) else node

"""The config that a checkpoint carries in its plan; read without Lightning, for it is asked before that is chosen."""

from __future__ import annotations

import json
from typing import Any

import torch

__all__ = ["config_in"]


def config_in(path: str) -> dict[str, Any] | None:
    """The config of the run that wrote the checkpoint ``path``; None where none can be read. Nothing is executed."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        config = json.loads(content["lrkit"]["plan"])["config"]
    except Exception:  # whatever a damaged file provokes; why it cannot be read is told by whoever goes on from it
        return None
    return config if isinstance(config, dict) else None

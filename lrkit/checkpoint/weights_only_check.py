"""Which part of a checkpoint ``torch.load(weights_only=True)`` refuses."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from lrkit.checkpoint.plain_data_format import DEPTH, PLAIN_TENSORS, Path

__all__ = ["find_unreadable"]


def find_unreadable(checkpoint: Mapping[str, Any]) -> str:
    """What of a checkpoint the reader refuses, as a name; an empty string where it reads all. Tensors are left out.

    A part is written to memory and read back, so that it is the reader who says it.
    """
    if _reads(_skeleton(checkpoint)):
        return ""

    def look(value: Any, at: Path) -> Path:
        if isinstance(value, dict) and len(at) < DEPTH:
            for name, part in value.items():
                if not _reads(part):
                    return look(part, (*at, name))
        if isinstance(value, (list, tuple)) and len(at) < DEPTH:
            for i, part in enumerate(value):
                if not _reads(part):
                    return look(part, (*at, i))
        return at

    return ".".join(map(str, look(_skeleton(checkpoint), ()))) or "its content"


def _reads(part: Any) -> bool:
    stream = io.BytesIO()
    try:
        torch.save(part, stream)
        stream.seek(0)
        torch.load(stream, weights_only=True, map_location="cpu")
    except Exception:
        return False
    return True


def _skeleton(value: Any, depth: int = 0) -> Any:
    """The same, without the tensors that the reader knows anyway, which would take it longest."""
    if type(value) in PLAIN_TENSORS:
        return None
    if depth > 2 * DEPTH:
        return value
    if type(value) in (dict, OrderedDict):
        return {key: _skeleton(each, depth + 1) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_skeleton(each, depth + 1) for each in value)
    return value

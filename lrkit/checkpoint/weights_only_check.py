"""Finds the part of a checkpoint that ``torch.load(weights_only=True)`` refuses."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from lrkit.checkpoint.plain_data_format import DEPTH, PLAIN_TENSORS, Path

__all__ = ["find_unreadable"]


def find_unreadable(checkpoint: Mapping[str, Any]) -> str:
    """Return the name of the part that ``torch.load`` refuses; an empty string if there is none. Ignores tensors.

    Each part is written to memory and read again, so that the result is that of ``torch.load`` itself.
    """
    if _can_be_read(_remove_tensors(checkpoint)):
        return ""

    def look(value: Any, at: Path) -> Path:
        if isinstance(value, dict) and len(at) < DEPTH:
            for name, part in value.items():
                if not _can_be_read(part):
                    return look(part, (*at, name))
        if isinstance(value, (list, tuple)) and len(at) < DEPTH:
            for i, part in enumerate(value):
                if not _can_be_read(part):
                    return look(part, (*at, i))
        return at

    return ".".join(map(str, look(_remove_tensors(checkpoint), ()))) or "its content"


def _can_be_read(part: Any) -> bool:
    stream = io.BytesIO()
    try:
        torch.save(part, stream)
        stream.seek(0)
        torch.load(stream, weights_only=True, map_location="cpu")
    except Exception:
        return False
    return True


def _remove_tensors(value: Any, depth: int = 0) -> Any:
    """Return a value without its plain tensors: ``torch.load`` always reads them, and they take most of the time."""
    if type(value) in PLAIN_TENSORS:
        return None
    if depth > 2 * DEPTH:
        return value
    if type(value) in (dict, OrderedDict):
        return {key: _remove_tensors(each, depth + 1) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_remove_tensors(each, depth + 1) for each in value)
    return value

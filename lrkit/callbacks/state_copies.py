"""Copies of a training's state, on its device or, where they would take much of its memory, on the host."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["copy_state", "is_kept_on_host"]

State = tuple[dict[str, Any], dict[str, Any]]
#: The share of the device's free memory that the copies may take.
SHARE = 0.1


def is_kept_on_host(state: State, copies: int, free: int | None) -> bool:
    """Whether so many copies of a state would take more than a tenth of ``free``; None: they are on the host anyway."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in _tensors_of(state))
    return free is not None and copies * size > SHARE * free


def copy_state(state: State, on_host: bool = False) -> State:
    """A copy of the weights and the optimizer's state; its large tensors are on the host if ``on_host``."""
    # A deep copy takes each tensor that is in its memo from there.
    memo: dict[int, Any] = {id(tensor): _copy_to_host(tensor) for tensor in _tensors_of(state)} if on_host else {}
    return copy.deepcopy(state, memo)


def _copy_to_host(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda).copy_(tensor)


def _tensors_of(state: State) -> Iterator[Tensor]:
    """The weights, and the state that the optimizer has of each."""
    weights, optimizer = state
    parts = [weights, *(part for part in optimizer["state"].values() if isinstance(part, Mapping))]
    return (value for part in parts for value in part.values() if isinstance(value, Tensor))

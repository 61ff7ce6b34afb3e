"""Finds the tensors in an object that a checkpoint stores only as a text."""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

__all__ = ["find_tensors", "is_wrapper_tensor"]

NODES = 10_000  #: objects in which the search for tensors looks


def find_tensors(value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in an object, with their dotted names."""
    seen: set[int] = set()
    waiting: deque[tuple[str, Any]] = deque([("", value)])
    while waiting and len(seen) < NODES:
        name, each = waiting.popleft()
        if id(each) in seen or isinstance(each, type | types.ModuleType | str | bytes | int | float):
            continue
        seen.add(id(each))
        if isinstance(each, Tensor):
            if not is_lazy(each):
                bare = each.detach()
                yield name, bare if is_wrapper_tensor(bare) else bare.as_subclass(Tensor)
        elif isinstance(each, np.ndarray | np.generic):
            with suppress(TypeError, ValueError):
                yield name, torch.from_numpy(np.array(each))
        else:
            waiting.extend((f"{name}.{key}" if name else str(key), part) for key, part in _list_parts(each))


def _list_parts(value: Any) -> Iterable[tuple[Any, Any]]:
    """Return the parts of an object: names or positions, and values."""
    if isinstance(value, nn.Module):
        return [*value.named_parameters(), *value.named_buffers()]
    if isinstance(value, Mapping):
        with suppress(Exception):  # from a mapping of the user's class
            return [*value.items()]
        return []
    if isinstance(value, list | tuple | set | frozenset | deque):
        return enumerate(value)
    if isinstance(value, functools.partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    if isinstance(value, types.MethodType):
        return [("self", value.__self__)]
    slots = [name for kind in type(value).__mro__ for name in kind.__dict__.get("__slots__", ())]
    held = [(name, getattr(value, name)) for name in slots if isinstance(name, str) and hasattr(value, name)]
    return [*getattr(value, "__dict__", {}).items(), *held]


def is_wrapper_tensor(value: Any) -> bool:
    """Return whether a tensor consists of other tensors."""
    return bool(is_traceable_wrapper_subclass(value))

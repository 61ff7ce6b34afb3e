"""Random number generators, captured and put back: the global ones, and those that objects carry as attributes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["RandomState", "capture_global", "capture_own", "restore_global", "restore_own"]

#: What ``capture_global`` returns: plain data and tensors, which a checkpoint can hold.
RandomState = dict[str, Any]


def capture_global() -> RandomState:
    """The states of the global generators: torch's, of each CUDA device too, numpy's and Python's.

    >>> state = capture_global()
    >>> first = torch.rand(1), np.random.rand(), random.random()
    >>> restore_global(state)
    >>> first == (torch.rand(1), np.random.rand(), random.random())
    True
    """
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": _of_numpy(np.random.get_state(legacy=True)),
        "python": _of_python(random.getstate()),
    }


def restore_global(state: Mapping[str, Any]) -> None:
    """Put back what ``capture_global`` returned; CUDA's generators where there are as many devices as there were."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(_numpy(state["numpy"]))
    random.setstate(_python(state["python"]))


def capture_own(owners: Mapping[str, Any]) -> RandomState:
    """The states of the generators that are attributes of ``owners``, by ``<owner>.<attribute>``.

    >>> class Sampler:
    ...     def __init__(self):
    ...         self.generator = np.random.default_rng(0)
    >>> sampler = Sampler()
    >>> state = capture_own({"sampler": sampler})
    >>> first = sampler.generator.random()
    >>> restore_own({"sampler": sampler}, state)
    >>> sampler.generator.random() == first
    True
    """
    return {name: _state(generator) for name, generator in _carried(owners)}


def restore_own(owners: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Put back what ``capture_own`` returned, into objects that carry the same generators under the same names."""
    for name, generator in _carried(owners):
        kind, value = state.get(name, ("", None))
        if kind != _KINDS.get(type(generator)):
            continue
        if isinstance(generator, torch.Generator):
            generator.set_state(value)
        elif isinstance(generator, np.random.RandomState):
            generator.set_state(_numpy(value))
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = json.loads(value)
        else:
            generator.setstate(_python(value))


_KINDS: dict[type, str] = {
    torch.Generator: "torch", np.random.RandomState: "numpy", np.random.Generator: "numpy.Generator",
    random.Random: "python",
}  # fmt: skip


def _carried(owners: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for owner, thing in owners.items():
        for name, value in getattr(thing, "__dict__", {}).items():
            if type(value) in _KINDS:
                yield f"{owner}.{name}", value


def _state(generator: Any) -> tuple[str, Any]:
    kind = _KINDS[type(generator)]
    if isinstance(generator, torch.Generator):
        return kind, generator.get_state()
    if isinstance(generator, np.random.RandomState):
        return kind, _of_numpy(generator.get_state(legacy=True))
    if isinstance(generator, np.random.Generator):  # whole numbers of 128 bits, and arrays: as text
        return kind, json.dumps(generator.bit_generator.state, default=lambda array: array.tolist())
    return kind, _of_python(generator.getstate())


def _of_numpy(state: Any) -> list[Any]:
    version, keys, position, has_gauss, gauss = state
    return [str(version), keys.tolist(), int(position), int(has_gauss), float(gauss)]


def _numpy(state: Any) -> Any:
    version, keys, position, has_gauss, gauss = state
    return version, np.array(keys, dtype=np.uint32), position, has_gauss, gauss


def _of_python(state: Any) -> list[Any]:
    version, inner, gauss = state
    return [version, list(inner), gauss]


def _python(state: Any) -> Any:
    version, inner, gauss = state
    return version, tuple(inner), gauss

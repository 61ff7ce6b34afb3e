"""Captures and restores random number generators: the global ones, and those that are attributes of objects."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["RandomState", "capture_global", "capture_own", "restore_global", "restore_own"]

#: The states of generators, as plain data and tensors, which a checkpoint can contain.
RandomState = dict[str, Any]


def capture_global() -> RandomState:
    """Return the states of the global generators: torch (also of each CUDA device), numpy and Python.

    >>> state = capture_global()
    >>> first = torch.rand(1), np.random.rand(), random.random()
    >>> restore_global(state)
    >>> first == (torch.rand(1), np.random.rand(), random.random())
    True
    """
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": _encode_numpy(np.random.get_state(legacy=True)),
        "python": _encode_python(random.getstate()),
    }


def restore_global(state: Mapping[str, Any]) -> None:
    """Restore the result of ``capture_global``; the CUDA generators only if the number of devices is the same."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(_decode_numpy(state["numpy"]))
    random.setstate(_decode_python(state["python"]))


def capture_own(owners: Mapping[str, Any]) -> RandomState:
    """Return the states of the generators that are attributes of ``owners``, by ``<owner>.<attribute>``.

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
    return {name: _capture_generator(generator) for name, generator in _list_generators(owners)}


def restore_own(owners: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Restore the result of ``capture_own`` in objects with the same generators under the same names."""
    for name, generator in _list_generators(owners):
        kind, value = state.get(name, ("", None))
        if kind != _KINDS.get(type(generator)):
            continue
        if isinstance(generator, torch.Generator):
            generator.set_state(value)
        elif isinstance(generator, np.random.RandomState):
            generator.set_state(_decode_numpy(value))
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = json.loads(value)
        else:
            generator.setstate(_decode_python(value))


_KINDS: dict[type, str] = {
    torch.Generator: "torch", np.random.RandomState: "numpy", np.random.Generator: "numpy.Generator",
    random.Random: "python",
}  # fmt: skip


def _list_generators(owners: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for owner, thing in owners.items():
        for name, value in getattr(thing, "__dict__", {}).items():
            if type(value) in _KINDS:
                yield f"{owner}.{name}", value


def _capture_generator(generator: Any) -> tuple[str, Any]:
    kind = _KINDS[type(generator)]
    if isinstance(generator, torch.Generator):
        return kind, generator.get_state()
    if isinstance(generator, np.random.RandomState):
        return kind, _encode_numpy(generator.get_state(legacy=True))
    if isinstance(generator, np.random.Generator):  # as JSON: it has integers of 128 bits, and arrays
        return kind, json.dumps(generator.bit_generator.state, default=lambda array: array.tolist())
    return kind, _encode_python(generator.getstate())


def _encode_numpy(state: Any) -> list[Any]:
    version, keys, position, has_gauss, gauss = state
    return [str(version), keys.tolist(), int(position), int(has_gauss), float(gauss)]


def _decode_numpy(state: Any) -> Any:
    version, keys, position, has_gauss, gauss = state
    return version, np.array(keys, dtype=np.uint32), position, has_gauss, gauss


def _encode_python(state: Any) -> list[Any]:
    version, inner, gauss = state
    return [version, list(inner), gauss]


def _decode_python(state: Any) -> Any:
    version, inner, gauss = state
    return version, tuple(inner), gauss

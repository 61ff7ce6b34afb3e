"""Where the samples of a dataset in memory are during a training: on the device if they fit, else on the host.

With the samples on the device, a batch is chosen there, and nothing is copied at a step. A larger dataset stays on
the host; its next batch is gathered into page-locked (pinned) memory while the device computes, and the device reads it
from there by itself. The place changes neither the order of the samples nor their values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from lrkit.base.errors import ConfigError

__all__ = ["PLACES", "Placement", "choose_place", "count_bytes", "move_tensors"]

Pair = tuple[Tensor, Tensor]

PLACES = ("auto", "device", "pinned", "host")
#: The share of the device's free memory that the samples may take under ``auto``; the rest is for the training.
SHARE = 0.25


def choose_place(asked: str, device: str, size: int, free: int | None) -> str:
    """Where the samples go: ``device``, ``pinned`` or ``host``.

    Args:
        asked: ``auto``, or the place that the user wants. A CPU has only the host, and only CUDA has pinned memory.
        device: the type of the device, such as ``cuda``.
        size: bytes of the samples.
        free: free bytes of the device; None: unknown, and ``auto`` leaves the samples on the host.

    Raises:
        ConfigError: the user wants them on the device, and they do not fit.

    >>> [choose_place("auto", "cuda", size, free=100) for size in (25, 26)], choose_place("device", "cpu", 1, free=0)
    (['device', 'pinned'], 'host')
    """
    if device == "cpu" or asked == "host":
        return "host"
    if asked == "device" and free is not None and size > free:
        must = f"must be auto, pinned or host: the data has {size} bytes, and {free} are free on the device"
        raise ConfigError("data.placement", must, asked)
    if asked == "device" or (asked == "auto" and free is not None and size <= SHARE * free):
        return "device"
    return "pinned" if device == "cuda" else "host"


def count_bytes(tensors: Sequence[Tensor]) -> int:
    """The bytes of the memory behind some tensors; memory that several share counts once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def move_tensors(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The tensors on a device. Views of one memory, such as overlapping windows of a text, stay views of one."""
    moved: dict[tuple[int, torch.dtype], Tensor] = {}
    views = []
    for tensor in tensors:
        key = tensor.untyped_storage().data_ptr(), tensor.dtype
        if key not in moved:
            moved[key] = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage()).to(device)
        views.append(moved[key].as_strided(tensor.size(), tensor.stride(), tensor.storage_offset()))
    return views


class Placement:
    """The samples of a part of a dataset, at their place.

    The place is decided at the first batch, because a trainer has its device then.

    Args:
        asked: the value of the key ``data.placement``.
        pair: inputs and targets, on the host.
        device: returns the device of the training.
        note: is called with a line on the place, where it is not the host.
    """

    def __init__(self, asked: str, pair: Pair, device: Callable[[], torch.device], note: Callable[[str], None]) -> None:
        self.asked, self.pair, self.device, self.note = asked, pair, device, note
        self.place: str | None = None
        self.moved: Pair = pair

    def settle(self) -> None:
        """Decide the place, and move the samples there."""
        if self.place is not None:
            return
        device, size = self.device(), count_bytes(self.pair)
        self.place = choose_place(self.asked, device.type, size, free_bytes(device))
        if self.place == "device":
            x, y = move_tensors(self.pair, device)
            self.moved = x, y
        if device.type != "cpu":
            where = {"device": f"on {device}", "pinned": "on the host, with pinned batches", "host": "on the host"}
            self.note(f"{size / 2**20:.3g} MiB {where[self.place]}")

    def fetch(self, indices: Tensor) -> Pair:
        """The batch of these indices."""
        x, y = self.moved
        if self.place != "pinned":
            return as_floats(x[indices]), y[indices]
        return as_floats(_gather_pinned(x, indices), pin=True), _gather_pinned(y, indices)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Pair]:
        """The batches of an epoch, from the indices of each."""
        self.settle()
        if self.place == "device" and indices:  # one copy an epoch, instead of one at each step
            moved = torch.cat([*indices]).to(self.moved[0].device)
            indices = torch.split(moved, [len(each) for each in indices])
        return make_ahead(self.fetch, indices) if self.place == "pinned" else map(self.fetch, indices)

    def release(self) -> None:
        """Free the memory of the device; the place is decided anew at the next batch."""
        self.place, self.moved = None, self.pair


def make_ahead(make: Callable[[Tensor], Pair], indices: Iterable[Tensor]) -> Iterator[Pair]:
    """The same as ``map``, with the next result made in a thread while the caller uses this one."""
    with ThreadPoolExecutor(1, "lrkit-data") as pool:
        waiting: Future[Pair] | None = None
        for each in indices:
            following = pool.submit(make, each)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def as_floats(x: Tensor, pin: bool = False) -> Tensor:
    """Images of bytes as floats in [0, 1]; other inputs as they are."""
    if x.dtype != torch.uint8:
        return x
    # Divided by a tensor: on a GPU a division by a number is a product with its reciprocal, with another last bit.
    floats = torch.empty(x.shape, dtype=torch.float32, pin_memory=True) if pin else None
    return torch.div(x.float(), torch.full((), 255.0, device=x.device), out=floats)


def free_bytes(device: torch.device) -> int | None:
    """The free memory of a device; None if it is unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        free: Any = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return int(free)
    return None


def _gather_pinned(source: Tensor, indices: Tensor) -> Tensor:
    shape = (len(indices), *source.shape[1:])
    return torch.index_select(source, 0, indices, out=torch.empty(shape, dtype=source.dtype, pin_memory=True))

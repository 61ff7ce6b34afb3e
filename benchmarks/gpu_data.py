"""A section of the GPU benchmark: images in pageable memory, in pinned memory, and on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from gpu_training import (
    DEVICE,
    ON_GPU,
    Meter,
    Schedule,
    by_hand,
    by_lightning,
    by_lrkit,
    free_memory,
    make_network,
    set_precision,
)
from torch import Tensor

from lrkit.data.in_memory import InMemoryData, Splits
from lrkit.data.placement import PLACES as PLACES_OF_LRKIT

PLACES = ("pageable", "pinned", "device")


class Images:
    """A loader of images of bytes, in a random order, which each batch converts to floats in [0, 1].

    Args:
        place: ``pageable``: gathered and converted on the host, copied by the trainer. ``pinned``: gathered on the host
            into pinned memory, copied one batch ahead, converted on the device. ``device``: all on the device.
    """

    def __init__(self, x: Tensor, y: Tensor, size: int, place: str, count: int) -> None:
        self.place, self.size, self.count = place, size, count
        self.x, self.y = (x.to(DEVICE), y.to(DEVICE)) if place == "device" else (x, y)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(len(self.x), device=self.x.device).split(self.size)
        chosen = (order[i % len(order)] for i in range(self.count))
        if self.place != "pinned" or not ON_GPU:
            yield from ((self.x[each].float() / 255, self.y[each]) for each in chosen)
            return
        # Four buffers in turn: a buffer is written again when its copy has long ended.
        shape = (self.size, *self.x.shape[1:])
        buffers = [torch.empty(shape, dtype=torch.uint8).pin_memory() for _ in range(4)]
        labels = [torch.empty(self.size, dtype=self.y.dtype).pin_memory() for _ in range(4)]
        copied = [torch.cuda.Event() for _ in range(4)]
        ahead: list[Any] = []
        for number, each in enumerate(chosen):
            i = number % 4
            copied[i].synchronize()
            torch.index_select(self.x, 0, each, out=buffers[i])
            torch.index_select(self.y, 0, each, out=labels[i])
            ahead.append((buffers[i].to(DEVICE, non_blocking=True), labels[i].to(DEVICE, non_blocking=True)))
            copied[i].record()
            if len(ahead) > 1:
                x, y = ahead.pop(0)
                yield x.float() / 255, y
        yield from ((x.float() / 255, y) for x, y in ahead)


class Own(InMemoryData):
    """The same images as a dataset of lrkit."""

    def __init__(self, x: Tensor, y: Tensor, size: int, placement: str) -> None:
        super().__init__(size, placement=placement)
        self.pair = x, y

    def load(self) -> Splits:
        few = (self.pair[0][:64], self.pair[1][:64])
        return Splits(self.pair, few, few, classes=10)


def data(add: Any, small: bool) -> None:
    """A small convolutional network on 131072 images of 3 x 32 x 32 bytes (403 MB)."""
    samples, size = (256, 8) if small else (131_072, 512)
    how = Schedule(first=2, windows=2, length=2, profiled=2) if small else Schedule(windows=4, length=50, profiled=10)
    draw = torch.Generator().manual_seed(2)
    x = torch.randint(0, 256, (samples, 3, 32, 32), dtype=torch.uint8, generator=draw)
    y = torch.randint(0, 10, (samples,), generator=draw)
    set_precision("TF32")
    fastest = None
    for precision in ("TF32", "bf16-mixed"):
        for place in reversed(PLACES):
            ways: dict[str, Callable[..., Any]] = {"by hand": by_hand, "Lightning": by_lightning, "lrkit": by_lrkit}
            for name, way in ways.items():
                loader = Images(x, y, size, place, how.steps)
                run = partial(_measure, way, loader, precision, how, small, fastest)
                done = add.attempt(run, precision=precision, data=place, way=name)
                fastest = fastest or done.get("steps/s")
        for placement in PLACES_OF_LRKIT:
            own = partial(by_lrkit, data=Own(x, y, size, placement))
            run = partial(_measure, own, None, precision, how, small, fastest)
            add.attempt(run, precision=precision, data=f"data.placement={placement}", way="lrkit")
        fastest = None


def _measure(way: Callable[..., Any], loader: Any, precision: str, how: Schedule, small: bool, fastest: Any) -> Any:
    free_memory()
    meter = Meter(how)
    way(make_network("conv", small), loader, precision, meter)
    columns = meter.speed()
    columns["time / on the device by hand"] = fastest / columns["steps/s"] if fastest else 1.0
    return {**columns, **meter.columns}

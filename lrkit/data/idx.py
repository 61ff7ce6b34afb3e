"""Image files in the format of MNIST."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

from lrkit.base.errors import ConfigError
from lrkit.base.memory import check_fits
from lrkit.data.file_readers import unzipped
from lrkit.data.in_memory import _MORE, InMemoryData, Pair, Splits, hold_out
from lrkit.data.options import check_flag, check_path
from lrkit.data.tensor_loader import check_whole_number

__all__ = ["Idx"]


class Idx(InMemoryData):
    """A folder of IDX files, plain or gzipped: MNIST, Fashion-MNIST, KMNIST and the like.

    The names are the usual ones: ``train-images-idx3-ubyte``, ``t10k-labels.idx1-ubyte.gz``, ...

    Args:
        path: The folder.
        val_samples: Training images that are held out to validate on; always the same ones.
        limit: Train on this many of the others only.
        flatten: Make each image a vector, instead of ``(1, height, width)``.

    Source: the format is described at http://yann.lecun.com/exdb/mnist.
    """

    origin = "data.path"

    def __init__(
        self,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        train_samples: int | None = None,
        path: str | None = None,
        val_samples: int = 5000,
        limit: int | None = None,
        flatten: bool = False,
    ) -> None:
        super().__init__(batch_size, seed, drop_last, train_samples)
        self.path = check_path("data.path", path, "the folder with the IDX files")
        self.val_samples = check_whole_number("data.val_samples", val_samples)
        self.limit = None if limit is None else check_whole_number("data.limit", limit)
        self.flatten = check_flag("data.flatten", flatten)

    def load(self) -> Splits:
        if not self.path.is_dir():
            raise ConfigError("data.path", "must be a folder that exists", str(self.path))
        rest, val = hold_out(self._part("train"), self.val_samples, "data.val_samples")
        if self.limit is not None and self.limit > len(rest[0]):
            raise ConfigError("data.limit", f"must be at most {len(rest[0])}", self.limit)
        return Splits((rest[0][: self.limit], rest[1][: self.limit]), val, self._part("t10k"))

    def _part(self, name: str) -> Pair:
        images, labels = self._read(f"{name}-images", 3), self._read(f"{name}-labels", 1)
        if len(images) != len(labels):
            must = f"must hold as many labels as images: {name} has {len(images)} images"
            raise ConfigError("data.path", must, len(labels))
        return images.flatten(1) if self.flatten else images.unsqueeze(1), labels.long()

    def _read(self, name: str, axes: int) -> Tensor:
        names = [f"{name}{dot}idx{axes}-ubyte{zipped}" for zipped in ("", ".gz") for dot in ("-", ".")]
        file = next((self.path / each for each in names if (self.path / each).is_file()), None)
        if file is None:
            raise ConfigError("data.path", f"must hold {names[0]} or {names[2]}", str(self.path))
        start = 4 + 4 * axes
        try:
            head = unzipped(file, start)
            shape = [int.from_bytes(head[at : at + 4], "big") for at in range(4, start, 4)]
            # Two zeros, 8 for "unsigned bytes", the number of axes, and each one's length.
            if head[:4] != bytes([0, 0, 8, axes]) or len(head) < start:
                must = f"must hold IDX files of bytes, with {axes} axes: {file.name} is not one"
                raise ConfigError("data.path", must, str(self.path))
            check_fits(start + math.prod(shape), "data.path", file)
            content = unzipped(file, start + math.prod(shape) + _MORE)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError("data.path", f"must hold readable files: {file.name}: {error}") from error
        if len(content) != start + math.prod(shape):
            must = f"must hold whole files: {file.name} should have {start + math.prod(shape)} bytes"
            raise ConfigError("data.path", must, len(content))
        return torch.frombuffer(bytearray(content), dtype=torch.uint8)[start:].reshape(shape)

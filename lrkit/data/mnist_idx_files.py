"""Images and labels in IDX files, the format of MNIST, Fashion-MNIST and similar datasets."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

from lrkit.base.available_memory import check_fits
from lrkit.base.errors import ConfigError
from lrkit.data.file_readers import read_unzipped
from lrkit.data.in_memory import EXTRA_BYTES, InMemoryData, Pair, Splits, hold_out
from lrkit.data.option_checks import check_flag, check_path
from lrkit.data.tensor_loader import check_whole_number

__all__ = ["Idx"]


class Idx(InMemoryData):
    """A folder of IDX files, plain or gzipped: MNIST, Fashion-MNIST, KMNIST and the like.

    The file names are those of MNIST: ``train-images-idx3-ubyte``, ``t10k-labels.idx1-ubyte.gz``, ...

    Args:
        path: The folder.
        val_samples: Number of training images to hold out for validation: the same images in every run.
        limit: Number of the other images to train on. None: all.
        flatten: Make each image a vector instead of ``(1, height, width)``.

    Source of the format: http://yann.lecun.com/exdb/mnist.
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
        placement: str = "auto",
    ) -> None:
        super().__init__(batch_size, seed, drop_last, train_samples, placement)
        self.path = check_path("data.path", path, "the folder with the IDX files")
        self.val_samples = check_whole_number("data.val_samples", val_samples)
        self.limit = None if limit is None else check_whole_number("data.limit", limit)
        self.flatten = check_flag("data.flatten", flatten)

    def check_source(self) -> None:
        if not self.path.is_dir():
            raise ConfigError("data.path", "must be an existing folder", str(self.path))

    def load(self) -> Splits:
        rest, val = hold_out(self._read_part("train"), self.val_samples, "data.val_samples")
        if self.limit is not None and self.limit > len(rest[0]):
            raise ConfigError("data.limit", f"must be at most {len(rest[0])}", self.limit)
        return Splits((rest[0][: self.limit], rest[1][: self.limit]), val, self._read_part("t10k"))

    def _read_part(self, name: str) -> Pair:
        images, labels = self._read_file(f"{name}-images", 3), self._read_file(f"{name}-labels", 1)
        if len(images) != len(labels):
            must = f"must have as many labels as images: {name} has {len(images)} images"
            raise ConfigError("data.path", must, len(labels))
        return images.flatten(1) if self.flatten else images.unsqueeze(1), labels.long()

    def _read_file(self, name: str, axes: int) -> Tensor:
        names = [f"{name}{dot}idx{axes}-ubyte{zipped}" for zipped in ("", ".gz") for dot in ("-", ".")]
        file = next((self.path / candidate for candidate in names if (self.path / candidate).is_file()), None)
        if file is None:
            raise ConfigError("data.path", f"must contain {names[0]} or {names[2]}", str(self.path))
        start = 4 + 4 * axes
        try:
            head = read_unzipped(file, start)
            shape = [int.from_bytes(head[at : at + 4], "big") for at in range(4, start, 4)]
            # The header: two zeros, 8 for "unsigned bytes", the number of axes, and the length of each axis.
            if head[:4] != bytes([0, 0, 8, axes]) or len(head) < start:
                must = f"must have IDX files of bytes with {axes} axes: {file.name} is not one"
                raise ConfigError("data.path", must, str(self.path))
            check_fits(start + math.prod(shape), "data.path", file)
            content = read_unzipped(file, start + math.prod(shape) + EXTRA_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError("data.path", f"must have readable files: {file.name}: {error}") from error
        if len(content) != start + math.prod(shape):
            must = f"must have complete files: {file.name} should have {start + math.prod(shape)} bytes"
            raise ConfigError("data.path", must, len(content))
        return torch.frombuffer(bytearray(content), dtype=torch.uint8)[start:].reshape(shape)

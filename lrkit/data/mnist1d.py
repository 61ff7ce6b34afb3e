"""MNIST-1D, generated."""

from __future__ import annotations

import random
from importlib import metadata

import numpy as np
import torch

from lrkit.data.file_readers import cache_folder, read_cache, write_cache
from lrkit.data.in_memory import Array, InMemoryData, Splits
from lrkit.data.options import extra_is_missing, import_extra
from lrkit.data.tensor_loader import check_whole_number

__all__ = ["Mnist1d"]


class Mnist1d(InMemoryData):
    """MNIST-1D: ten classes of procedural signals of 40 points, on which schedules tell apart in seconds.

    Made by the ``mnist1d`` package with its default arguments (never by its download), once for each size
    and version, then kept in the user's cache folder. Its mean is 0, its standard deviation 1.

    Source: S. Greydanus and D. Kobak, *Scaling Down Deep Learning with MNIST-1D*, 2024, arXiv:2011.14439.
    """

    def __init__(
        self,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        train_samples: int = 4000,
        val_samples: int = 2000,
        test_samples: int = 10000,
    ) -> None:
        super().__init__(batch_size, seed, drop_last, train_samples)
        self.sizes = (
            check_whole_number("data.train_samples", train_samples),
            check_whole_number("data.val_samples", val_samples),
            check_whole_number("data.test_samples", test_samples),
        )

    def load(self) -> Splits:
        try:
            version = metadata.version("mnist1d")
        except metadata.PackageNotFoundError:
            raise extra_is_missing("mnist1d", "mnist1d", "mnist1d") from None
        total = -(-sum(self.sizes) // 10) * 10  # the package makes equally many of each of the ten classes
        # Every other parameter is the default of that version.
        file = cache_folder() / f"mnist1d-{version}-{total}.npz"
        x, y = read_cache(file) or write_cache(file, _make_mnist1d(total))
        sizes = [*self.sizes, total - sum(self.sizes)]
        signals, labels = (torch.split(torch.from_numpy(each), sizes) for each in (x, y))
        train, val, test, _ = zip(signals, labels, strict=True)
        return Splits(train, val, test, classes=10)


def _make_mnist1d(samples: int) -> tuple[Array, Array]:
    """``samples`` signals; the global random states, which the package seeds, are left as they were."""
    package = import_extra("mnist1d.data", "mnist1d", "mnist1d")
    before = np.random.get_state(), random.getstate()
    try:
        arguments = package.get_dataset_args()
        arguments.num_samples, arguments.train_split = samples, 1.0
        made = package.make_dataset(arguments)
    finally:
        np.random.set_state(before[0])
        random.setstate(before[1])
    return made["x"].astype(np.float32), made["y"].astype(np.int64)

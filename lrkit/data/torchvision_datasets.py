"""Datasets of torchvision, by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.config.named_datasets import check_torchvision, without_ghostscript
from lrkit.data.file_readers import cache_folder
from lrkit.data.in_memory import InMemoryData, Splits, assemble_splits
from lrkit.data.options import check_flag, check_fractions, check_path, import_extra
from lrkit.data.tensor_conversion import images_and_labels

__all__ = ["Torchvision"]


class Torchvision(InMemoryData):
    """A data set of images and classes from ``torchvision.datasets``, by name.

    Args:
        name: The class, such as ``FashionMNIST`` or ``CIFAR10``; of ``lrkit.config.named_datasets.TORCHVISION`` alone.
        root: The folder with its files. None: in the user's cache folder.
        download: Fetch the files when they are not there.
        options: Further arguments of the class, such as ``{split: letters}`` for ``EMNIST``.
        val_fraction: Share of the training images to validate on.
        test_fraction: Share to test on, where the set has no test part of its own.
    """

    origin = "data.name"

    def __init__(
        self,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        train_samples: int | None = None,
        name: str | None = None,
        root: str | None = None,
        download: bool = False,
        options: Mapping[str, Any] | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
    ) -> None:
        super().__init__(batch_size, seed, drop_last, train_samples)
        if not isinstance(name, str) or not name:
            raise ConfigError("data.name", "must be a name in torchvision.datasets: FashionMNIST, say", name)
        check_torchvision(name)
        self.dataset = name
        self.root = None if root is None else check_path("data.root", root, "a folder")
        self.download = check_flag("data.download", download)
        self.options = dict(options or {})
        self.fractions = check_fractions(val_fraction, test_fraction)

    def prepare_data(self) -> None:
        """Downloads, where asked to: Lightning calls this in one process only."""
        if self.download:
            self._parts()

    def load(self) -> Splits:
        sets = self._parts()
        try:
            with without_ghostscript():
                parts = {part: images_and_labels(images, self.origin) for part, images in sets.items()}
        except OSError as error:
            raise ConfigError(
                "data.root", f"must hold images that can be read: {error}", str(self._folder())
            ) from error
        return assemble_splits(parts, self.origin, *self.fractions)

    def _folder(self) -> Path:
        return self.root or cache_folder() / "torchvision"

    def _parts(self) -> dict[str, Sequence[tuple[Any, Any]]]:
        datasets = import_extra("torchvision", "torchvision", "vision").datasets
        make = getattr(datasets, self.dataset, None)
        if not isinstance(make, type):
            raise ConfigError("data.name", "must be a name in torchvision.datasets of this release", self.dataset)
        accepted = _accepted(make)
        # The classes agree on no single way to ask for the test part.
        if "train" in accepted:
            parts: dict[str, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
        elif "split" in accepted and "split" not in self.options:
            parts = {"train": {"split": "train"}, "test": {"split": "test"}}
        else:
            parts = {"train": {}}
        root = self._folder()
        given = {"root": root, "download": self.download, **self.options}
        options = {key: value for key, value in given.items() if key in accepted or key in self.options}
        try:
            return {part: make(**which, **options) for part, which in parts.items()}
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            must = f"must lead to {self.dataset}'s files, or set data.download=true: {error}"
            raise ConfigError("data.root", must, str(root)) from error


def _accepted(make: type) -> set[str]:
    """The arguments that a class takes, with those that it hands up as ``**kwargs``."""
    names: set[str] = set()
    for base in make.__mro__:
        parameters = inspect.signature(base).parameters
        names |= parameters.keys()
        if all(each.kind is not each.VAR_KEYWORD for each in parameters.values()):
            break
    return names

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
from lrkit.data.option_checks import check_flag, check_fractions, check_path, find_extra, import_extra
from lrkit.data.tensor_conversion import images_and_labels

__all__ = ["Torchvision"]


class Torchvision(InMemoryData):
    """A dataset of images and classes from ``torchvision.datasets``, by name.

    Args:
        name: The class, such as ``FashionMNIST`` or ``CIFAR10``: one of ``lrkit.config.named_datasets.TORCHVISION``.
        root: The folder with its files. None: a folder in the user's cache folder.
        download: Download the files if they do not exist.
        options: Further arguments of the class, such as ``{split: letters}`` for ``EMNIST``.
        val_fraction: Share of the training images to hold out for validation.
        test_fraction: Share of the training images to hold out for the test, for a dataset without a test part.
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
        placement: str = "auto",
    ) -> None:
        super().__init__(batch_size, seed, drop_last, train_samples, placement)
        if not isinstance(name, str) or not name:
            raise ConfigError("data.name", "must be a class of torchvision.datasets, such as FashionMNIST", name)
        check_torchvision(name)
        self.dataset = name
        self.root = None if root is None else check_path("data.root", root, "a folder")
        self.download = check_flag("data.download", download)
        self.options = dict(options or {})
        self.fractions = check_fractions(val_fraction, test_fraction)

    def prepare_data(self) -> None:
        """Downloads the files with ``download: true``. Lightning calls this in one process only."""
        if self.download:
            self._load_parts()

    def check_source(self) -> None:
        find_extra("torchvision", "torchvision", "vision")
        if not self.download and self.dataset != "FakeData" and not self._find_folder().is_dir():
            must = f"must be the folder with the files of {self.dataset}; data.download=true downloads them"
            raise ConfigError("data.root", must, str(self._find_folder()))

    def load(self) -> Splits:
        sets = self._load_parts()
        try:
            with without_ghostscript():
                parts = {part: images_and_labels(images, self.origin) for part, images in sets.items()}
        except OSError as error:
            raise ConfigError(
                "data.root", f"must be a folder with readable images: {error}", str(self._find_folder())
            ) from error
        return assemble_splits(parts, self.origin, *self.fractions)

    def _find_folder(self) -> Path:
        return self.root or cache_folder() / "torchvision"

    def _load_parts(self) -> dict[str, Sequence[tuple[Any, Any]]]:
        datasets = import_extra("torchvision", "torchvision", "vision").datasets
        make = getattr(datasets, self.dataset, None)
        if not isinstance(make, type):
            raise ConfigError(
                "data.name", "must be a class of torchvision.datasets in the installed release", self.dataset
            )
        accepted = _accepted_arguments(make)
        # The classes have no common argument for the test part.
        if "train" in accepted:
            parts: dict[str, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
        elif "split" in accepted and "split" not in self.options:
            parts = {"train": {"split": "train"}, "test": {"split": "test"}}
        else:
            parts = {"train": {}}
        root = self._find_folder()
        given = {"root": root, "download": self.download, **self.options}
        options = {key: value for key, value in given.items() if key in accepted or key in self.options}
        try:
            return {part: make(**which, **options) for part, which in parts.items()}
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            must = f"must be the folder with the files of {self.dataset}; data.download=true downloads them: {error}"
            raise ConfigError("data.root", must, str(root)) from error


def _accepted_arguments(make: type) -> set[str]:
    """The arguments of a class, with those of its bases that it accepts by ``**kwargs``."""
    names: set[str] = set()
    for base in make.__mro__:
        parameters = inspect.signature(base).parameters
        names |= parameters.keys()
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return names

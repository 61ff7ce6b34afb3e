"""Datasets of Hugging Face, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.config.named_datasets import check_hugging_face, without_ghostscript
from lrkit.data.arrays import describe_targets
from lrkit.data.in_memory import Array, InMemoryData, Splits, assemble_splits
from lrkit.data.option_checks import check_fractions, find_extra, import_extra
from lrkit.data.tensor_conversion import check_target_kind, refuse_huge_images, stack_items, to_pixels_or_floats

__all__ = ["HuggingFace"]


class HuggingFace(InMemoryData):
    """A dataset of the Hugging Face ``datasets`` library: from the hub, from files, or saved to disk.

    Args:
        path: The ``path`` argument of ``load_dataset`` (``mnist``, or ``parquet`` with ``options.data_files``), or
            the folder that ``save_to_disk`` wrote.
        x: The column of the inputs: images, or lists of numbers of one length. With a list of
            columns of numbers, each column is a feature.
        y: The column of the targets: integers or strings are classes, floats are regressed on.
        targets: ``classes`` or ``numbers``. auto: decided by the type of the targets.
        options: Further arguments of ``load_dataset``.
        val_fraction: Share of the training samples to hold out for validation, without a validation part.
        test_fraction: Share of the training samples to hold out for the test, without a test part.
    """

    origin = "data.path"

    def __init__(
        self,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        train_samples: int | None = None,
        path: str | None = None,
        x: str | Sequence[str] = "image",
        y: str = "label",
        targets: str = "auto",
        options: Mapping[str, Any] | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        placement: str = "auto",
    ) -> None:
        super().__init__(batch_size, seed, drop_last, train_samples, placement)
        if not isinstance(path, str) or not path:
            raise ConfigError("data.path", "must be a name for load_dataset, or a folder that save_to_disk wrote", path)
        self.path, self.options = path, dict(options or {})
        if self.options.get("trust_remote_code"):
            raise ConfigError("data.options.trust_remote_code", "must not be set: lrkit runs no code of a dataset")
        self.x = [x] if isinstance(x, str) else list(x)
        self.y, self.targets = y, check_target_kind(targets)
        self.fractions = check_fractions(val_fraction, test_fraction)

    def check_source(self) -> None:
        find_extra("datasets", "huggingface", "hf")

    def load(self) -> Splits:
        library = import_extra("datasets", "huggingface", "hf")
        check_hugging_face(library, self.path)
        folder = Path(self.path).expanduser()
        saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
        try:
            load, location = (library.load_from_disk, str(folder)) if saved else (library.load_dataset, self.path)
            loaded = load(location, **self.options)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError("data.path", f"must be a dataset that can be loaded: {error}", self.path) from error
        parts = dict(loaded) if isinstance(loaded, Mapping) else {"train": loaded}
        if "train" not in parts:
            raise ConfigError("data.path", "must have a part named train", sorted(parts))
        named = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
        try:
            with without_ghostscript():
                columns = {named[part]: self._read_columns(table) for part, table in parts.items() if part in named}
        except OSError as error:
            raise ConfigError("data.x", f"must be a column of readable images: {error}", self.x) from error
        splits = assemble_splits(columns, self.origin, *self.fractions, self.targets)
        self.notes = (describe_targets(f"column {self.y}", columns["train"][1], splits.classes),)
        return splits

    def _read_columns(self, table: Any) -> tuple[Tensor, Array]:
        for key, column in [*(("data.x", name) for name in self.x), ("data.y", self.y)]:
            if column not in table.column_names:
                hint = did_you_mean(column, table.column_names)
                raise ConfigError(key, f"must be a column. {hint}", column)
        rows = table.with_format("numpy")
        with refuse_huge_images("data.x"):
            x = [stack_items(rows[name], f"data.x={name}") for name in self.x]
        joined = x[0] if len(x) == 1 else np.stack(x, axis=1)
        return to_pixels_or_floats(joined, "data.x"), stack_items(rows[self.y], "data.y")

"""The base of the datasets that fit in memory: a ``LightningDataModule``, its splits and its batches.

The constructor checks the arguments and reads nothing; ``setup`` reads, checks and splits the data. A batch is always
``(x, y)``. After ``setup`` the data module has the facts that a model needs: ``inputs``, ``outputs``, ``loss``.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrkit.base.errors import ConfigError
from lrkit.base.validation import one_of
from lrkit.data.option_checks import check_flag
from lrkit.data.placement import PLACES, Placement, as_floats
from lrkit.data.tensor_conversion import convert_targets
from lrkit.data.tensor_loader import TensorLoader, check_whole_number, seeded_generator
from lrkit.lightning.imports import LightningDataModule
from lrkit.lightning.replicas import count_replicas, replica_index

__all__ = ["InMemoryData", "ModuleLoaders", "Splits", "loaders_of"]


Pair = tuple[Tensor, Tensor]
Array = NDArray[Any]


class Splits(NamedTuple):
    """Inputs and targets for training, validation and test, as a dataset loads them.

    Attributes:
        train: ``x`` of shape ``(n, ...)`` and ``y``: classes as int64, or targets as floats ``(n, k)``.
            An ``x`` of bytes holds images: it stays bytes in memory, and each batch becomes floats in [0, 1].
        val: Inputs and targets for validation.
        test: Inputs and targets for the test.
        classes: Number of classes; None: one more than the highest label.
        epoch: Number of samples in an epoch, drawn anew from ``train`` in each epoch; None: all of them.
    """

    train: Pair
    val: Pair
    test: Pair
    classes: int | None = None
    epoch: int | None = None


class InMemoryData(LightningDataModule, ABC):
    """The base of every dataset; a subclass defines ``load``.

    Args:
        batch_size: Number of samples in a batch of one device.
        seed: Seed of the order of the training samples. The splits do not depend on it.
        drop_last: Drop a last training batch that is smaller than ``batch_size``.
        train_samples: Number of training samples in an epoch, if known: the plan needs it before the data is read.
        placement: Where the samples are during a training (``lrkit.data.placement``): ``device``, ``pinned``, ``host``,
            or ``auto``: on the device if they take at most a quarter of its free memory, else pinned.

    Attributes:
        inputs: After ``setup``: the number of features, or the shape of a sample where it has several axes.
        outputs: After ``setup``: the number of classes, or of targets.
        loss: After ``setup``: ``cross_entropy`` or ``mse``.
        train_count: After ``setup``: the number of training samples in an epoch, over all devices.
        notes: After ``setup``: lines for the plan on how the data was interpreted.
        placed: During a training on another device than the CPU: the size and the place of each part in use.
    """

    origin: ClassVar[str] = "data"  # the key that an error about the data names

    inputs: int | tuple[int, ...]
    outputs: int
    loss: Literal["cross_entropy", "mse"]
    train_count: int
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        train_samples: int | None = None,
        placement: str = "auto",
    ) -> None:
        super().__init__()
        self.batch_size = check_whole_number("data.batch_size", batch_size)
        self.seed = check_whole_number("data.seed", seed, least=0)
        self.drop_last = check_flag("data.drop_last", drop_last)
        self.train_samples = None if train_samples is None else check_whole_number("data.train_samples", train_samples)
        one_of(*PLACES).check("data.placement", placement)
        self.placement = placement
        self.placed: dict[str, str] = {}
        self._placements: dict[str, Placement] = {}
        self._splits: Splits | None = None

    @abstractmethod
    def load(self) -> Splits:
        """Read and split the data; called once.

        Raises:
            ConfigError: The data is missing, damaged or unusable.
        """

    def check_source(self) -> None:
        """Refuse a missing package, file or folder; no data is read.

        Raises:
            ConfigError: The message has the key, or the command that installs the package.
        """

    def setup(self, stage: str | None = None) -> None:
        """Read the data once, and check that a model can be trained on it.

        Raises:
            ConfigError: There are too few samples, values that are not finite, or another number than
                ``train_samples``.
        """
        if self._splits is not None:
            return
        self.check_source()
        loaded = self.load()
        train, val, test = (
            _check_pair(pair, self.origin, part)
            for part, pair in zip(("train", "val", "test"), loaded[:3], strict=True)
        )
        splits = Splits(train, val, test, loaded.classes, loaded.epoch)
        count = len(train[0]) if splits.epoch is None else splits.epoch
        if self.train_samples not in (None, count):
            must = f"must be null or {count}, the number of training samples"
            raise ConfigError("data.train_samples", must, self.train_samples)
        x, y = train
        self.inputs = x.shape[1] if x.ndim == 2 else tuple(x.shape[1:])
        self.loss = "mse" if y.is_floating_point() else "cross_entropy"
        if self.loss == "mse":
            self.outputs = y.shape[1]
        else:
            self.outputs = splits.classes or 1 + max(int(labels.max()) for _, labels in (train, val, test))
        self.train_count = count
        self._splits = splits
        self.train_dataloader()  # refuses a batch size that leaves no batch, before the first step

    def train_dataloader(self) -> TensorLoader[Pair]:
        """Training batches in a new order each epoch; in the same order with the trainer's ``overfit_batches``."""
        trainer: Any = self.trainer  # Any: Lightning's annotations do not have all of its attributes
        return self._make_loader(
            "train",
            shuffle=not getattr(trainer, "overfit_batches", 0),
            drop_last=self.drop_last,
            samples=self.train_count,
            # Lightning resumes after the batches that it has counted as processed.
            progress=trainer and (lambda: trainer.fit_loop.epoch_loop.batch_progress.current.processed),
        )

    def val_dataloader(self) -> TensorLoader[Pair]:
        """Each validation sample once, in a fixed order."""
        return self._make_loader("val", shuffle=False)

    def test_dataloader(self) -> TensorLoader[Pair]:
        """Each test sample once, in a fixed order."""
        return self._make_loader("test", shuffle=False)

    def with_seed(self, seed: int) -> Self:
        """Return the same loaded samples in the order of another seed, for another training: nothing is copied."""
        other = copy.copy(self)
        other.seed, other.trainer, other.placed, other._placements = seed, None, {}, {}
        return other

    def teardown(self, stage: str) -> None:
        """Free the memory of the device; a later training or test places the samples anew."""
        for placement in self._placements.values():
            placement.release()

    def _loaded_splits(self) -> Splits:
        if self._splits is None:
            raise RuntimeError(f"{type(self).__name__} has not read its data: call setup() first")
        return self._splits

    def _make_loader(self, part: str, *, samples: int | None = None, **how: Any) -> TensorLoader[Pair]:
        rank, world = (replica_index(self.trainer), count_replicas(self.trainer)) if self.trainer else (0, 1)
        if part not in self._placements:
            pair: Pair = getattr(self._loaded_splits(), part)
            note = partial(self.placed.__setitem__, part)
            self._placements[part] = Placement(self.placement, pair, self._find_device, note)
        placement = self._placements[part]
        size = len(placement.pair[0])
        return TensorLoader(
            placement.fetch, samples or size, self.batch_size, batches=placement.batches,
            seed=self.seed, rank=rank, world=world, population=size, **how,
        )  # fmt: skip

    def _find_device(self) -> torch.device:
        """The device of the training, which exists from the first batch on."""
        trainer: Any = self.trainer
        found: torch.device | None = getattr(getattr(trainer, "strategy", None), "root_device", None)
        return found or torch.device("cpu")


class ModuleLoaders(LightningDataModule):
    """A data module without data: the model's own ``train_dataloader`` and ``val_dataloader`` are used."""


def loaders_of(data: LightningDataModule) -> LightningDataModule | None:
    """The ``datamodule`` argument of a trainer; None if the module has its own loaders, which Lightning then uses."""
    return None if isinstance(data, ModuleLoaders) else data


EXTRA_BYTES = 2**16  # bytes of a file read beyond its declared size: a gzipped file can decompress to any size


def fetch_pair(x: Tensor, y: Tensor, indices: Tensor) -> Pair:
    """The batch of these indices; images of bytes become floats in [0, 1]."""
    return as_floats(x[indices]), y[indices]


def _check_pair(pair: Pair, key: str, part: str) -> Pair:
    """The inputs and targets of a part, floats as float32.

    Raises:
        ConfigError: There are no samples, another number of targets than inputs, or values that are not finite.
    """
    x, y = (tensor.float() if tensor.is_floating_point() else tensor for tensor in pair)
    if len(x) == 0 or len(x) != len(y):
        must = f"must have {part} samples, and as many targets as inputs: {len(x)} inputs"
        raise ConfigError(key, must, len(y))
    for kind, values in (("inputs", x), ("targets", y)):
        bad = int((~values.isfinite()).sum()) if values.is_floating_point() else 0
        if bad:
            count = f"{bad} of {values.numel()} numbers in the {part} {kind}"
            raise ConfigError(key, f"must have only finite numbers: {count} are NaN or infinite")
    return x, y


def hold_out(pair: Pair, count: int, key: str) -> tuple[Pair, Pair]:
    """``(the rest, count samples)``, chosen at random by a fixed seed: the split is the same in every run."""
    size = len(pair[0])
    if count >= size:
        raise ConfigError(key, f"must be below the number of samples, {size}, so that some are left to train on", count)
    order = torch.randperm(size, generator=seeded_generator(0))
    rest, held = order[count:].sort().values, order[:count].sort().values
    return (pair[0][rest], pair[1][rest]), (pair[0][held], pair[1][held])


def assemble_splits(
    parts: Mapping[str, tuple[Tensor, Array]],
    key: str,
    val_fraction: float,
    test_fraction: float,
    kind: str = "auto",
) -> Splits:
    """The splits, with targets as tensors; a missing part is held out from the training samples.

    Raises:
        ConfigError: The parts differ in shape, or a class has no training sample.
    """
    targets, classes = convert_targets([np.asarray(y) for _, y in parts.values()], key, kind)
    pairs = {name: (x, y) for (name, (x, _)), y in zip(parts.items(), targets, strict=True)}
    for name, (x, y) in pairs.items():
        if len(x) != len(y):
            raise ConfigError(key, f"must have as many targets as inputs: {name} has {len(x)} inputs", len(y))
        if x.shape[1:] != pairs["train"][0].shape[1:] or y.shape[1:] != pairs["train"][1].shape[1:]:
            raise ConfigError(key, f"must have samples of one shape in train and {name}", tuple(x.shape[1:]))
    total = len(pairs["train"][0])
    for name, fraction in (("val", val_fraction), ("test", test_fraction)):
        if name not in pairs:
            count = max(1, round(total * fraction))
            pairs["train"], pairs[name] = hold_out(pairs["train"], count, f"data.{name}_fraction x samples")
    if classes is not None:
        _check_classes(pairs, np.unique(np.concatenate([np.asarray(y).reshape(-1) for _, y in parts.values()])), key)
    return Splits(pairs["train"], pairs["val"], pairs["test"], classes)


def _check_classes(pairs: Mapping[str, Pair], names: Array, key: str) -> None:
    """Refuse classes without a training sample: their outputs would be evaluated and never trained."""
    trained = set(pairs["train"][1].tolist())
    for part in ("val", "test"):
        if lost := sorted(set(pairs[part][1].tolist()) - trained):
            must = f"must have every class among the training samples; these are in {part} only"
            raise ConfigError(key, must, names[lost[:5]].tolist())


def standardise_splits(splits: Splits) -> Splits:
    """The splits with inputs of mean 0 and standard deviation 1, per feature, over the training samples."""
    mean, deviation = splits.train[0].mean(0), splits.train[0].std(0, correction=0)
    deviation[deviation == 0] = 1  # a constant feature becomes 0
    train, val, test = (((x - mean) / deviation, y) for x, y in splits[:3])
    return splits._replace(train=train, val=val, test=test)

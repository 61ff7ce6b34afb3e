"""Data that fits in memory: one small ``LightningDataModule`` per source.

Constructing one checks its arguments and reads nothing; ``setup`` reads, checks and splits. A batch is always
``(x, y)``, and after ``setup`` the module says what a model needs to know: ``inputs``, ``outputs``, ``loss``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrkit.base.errors import ConfigError
from lrkit.data.options import check_flag
from lrkit.data.tensor_conversion import targets_of
from lrkit.data.tensor_loader import TensorLoader, check_whole_number, seeded_generator
from lrkit.lightning.classes import LightningDataModule
from lrkit.lightning.replicas import count_replicas, replica_index

__all__ = ["InMemoryData", "ModuleLoaders", "Splits", "loaders_of"]


Pair = tuple[Tensor, Tensor]
Array = NDArray[Any]


class Splits(NamedTuple):
    """What a source loads: inputs and targets for training, validation and test.

    Attributes:
        train: ``x`` of shape ``(n, ...)`` and ``y``: classes as int64, or targets as floats ``(n, k)``.
            ``x`` of bytes is images: it stays bytes in memory and becomes floats in [0, 1] batch by batch.
        val: The same for validation.
        test: The same for the test.
        classes: How many classes there are; None: one more than the highest label.
        epoch: Samples that make one epoch, drawn anew from ``train`` each time; None: all of them.
    """

    train: Pair
    val: Pair
    test: Pair
    classes: int | None = None
    epoch: int | None = None


class InMemoryData(LightningDataModule, ABC):
    """The base of every source: a subclass says how to ``load``.

    Args:
        batch_size: Samples in a batch of one device.
        seed: Where the order of the training samples starts from. Splits do not depend on it.
        drop_last: Leave out a last training batch that is smaller than ``batch_size``.
        train_samples: Samples in an epoch, as far as known: the plan needs it before any data is read.

    Attributes:
        inputs: After ``setup``: the number of features, or the shape of a sample where it has several axes.
        outputs: After ``setup``: the number of classes, or of targets.
        loss: After ``setup``: ``cross_entropy`` or ``mse``.
        train_count: After ``setup``: training samples in an epoch, over all devices.
        notes: After ``setup``: what the data was taken for, where it does not say so itself, in lines for the plan.
    """

    origin: ClassVar[str] = "data"  # the key to name when what it leads to is unusable

    inputs: int | tuple[int, ...]
    outputs: int
    loss: Literal["cross_entropy", "mse"]
    train_count: int
    notes: tuple[str, ...] = ()

    def __init__(
        self, batch_size: int, seed: int = 0, drop_last: bool = False, train_samples: int | None = None
    ) -> None:
        super().__init__()
        self.batch_size = check_whole_number("data.batch_size", batch_size)
        self.seed = check_whole_number("data.seed", seed, least=0)
        self.drop_last = check_flag("data.drop_last", drop_last)
        self.train_samples = None if train_samples is None else check_whole_number("data.train_samples", train_samples)
        self._splits: Splits | None = None

    @abstractmethod
    def load(self) -> Splits:
        """Reads and splits the data; called once.

        Raises:
            ConfigError: It is missing, damaged or unusable.
        """

    def setup(self, stage: str | None = None) -> None:
        """Reads the data, once, and checks that it can be trained on.

        Raises:
            ConfigError: It cannot: too few samples, values that are not finite, a wrong ``train_samples``.
        """
        if self._splits is not None:
            return
        loaded = self.load()
        train, val, test = (
            _checked(pair, self.origin, part) for part, pair in zip(("train", "val", "test"), loaded[:3], strict=True)
        )
        splits = Splits(train, val, test, loaded.classes, loaded.epoch)
        count = len(train[0]) if splits.epoch is None else splits.epoch
        if self.train_samples not in (None, count):
            must = f"must be {count}, which is how many there are, or null"
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
        self.train_dataloader()  # a batch size that leaves no batch is an error now, not at the first step

    def train_dataloader(self) -> TensorLoader[Pair]:
        """Batches in a new order each epoch; in the same order where Lightning is to overfit a few."""
        trainer: Any = self.trainer  # Any: Lightning does not declare all that it has
        return self._batches(
            self._ready().train,
            shuffle=not getattr(trainer, "overfit_batches", 0),
            drop_last=self.drop_last,
            samples=self.train_count,
            # Lightning resumes after the batches it calls processed.
            progress=trainer and (lambda: trainer.fit_loop.epoch_loop.batch_progress.current.processed),
        )

    def val_dataloader(self) -> TensorLoader[Pair]:
        """Each validation sample once, in a fixed order."""
        return self._batches(self._ready().val, shuffle=False)

    def test_dataloader(self) -> TensorLoader[Pair]:
        """Each test sample once, in a fixed order."""
        return self._batches(self._ready().test, shuffle=False)

    def _ready(self) -> Splits:
        if self._splits is None:
            raise RuntimeError(f"{type(self).__name__} has read no data yet: call setup() first")
        return self._splits

    def _batches(self, pair: Pair, *, samples: int | None = None, **how: Any) -> TensorLoader[Pair]:
        rank, world = (replica_index(self.trainer), count_replicas(self.trainer)) if self.trainer else (0, 1)
        size = len(pair[0])
        return TensorLoader(
            partial(fetch_pair, *pair), samples or size, self.batch_size,
            seed=self.seed, rank=rank, world=world, population=size, **how,
        )  # fmt: skip


class ModuleLoaders(LightningDataModule):
    """No data of its own: the model's ``train_dataloader`` and ``val_dataloader`` are used."""


def loaders_of(data: LightningDataModule) -> LightningDataModule | None:
    """What a trainer is given; None for loaders of the module itself, which it then looks for."""
    return None if isinstance(data, ModuleLoaders) else data


_MORE = 2**16  # bytes of a file that are read beyond those that it is to have: it may unpack to any number


# --- from numbers to tensors ----------------------------------------------------------------------


def fetch_pair(x: Tensor, y: Tensor, indices: Tensor) -> Pair:
    chosen = x[indices]
    return chosen.float() / 255 if chosen.dtype == torch.uint8 else chosen, y[indices]


def _checked(pair: Pair, key: str, part: str) -> Pair:
    """The pair as float32 and int64, when it can be trained on."""
    x, y = (each.float() if each.is_floating_point() else each for each in pair)
    if len(x) == 0 or len(x) != len(y):
        must = f"must have {part} samples, and as many targets as inputs: there are {len(x)} inputs"
        raise ConfigError(key, must, len(y))
    for what, values in (("inputs", x), ("targets", y)):
        bad = int((~values.isfinite()).sum()) if values.is_floating_point() else 0
        if bad:
            count = f"{bad} of {values.numel()} numbers in the {part} {what}"
            raise ConfigError(key, f"must lead to finite numbers only: {count} are NaN or infinite")
    return x, y


def hold_out(pair: Pair, count: int, key: str) -> tuple[Pair, Pair]:
    """``(the rest, count samples)``, chosen at random but always the same: no seed moves the split."""
    size = len(pair[0])
    if count >= size:
        raise ConfigError(key, f"must leave something to train on, of {size} samples", count)
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
    """Targets made tensors, and the parts that are missing held out from the training samples."""
    targets, classes = targets_of([np.asarray(y) for _, y in parts.values()], key, kind)
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
        _check_trained(pairs, np.unique(np.concatenate([np.asarray(y).reshape(-1) for _, y in parts.values()])), key)
    return Splits(pairs["train"], pairs["val"], pairs["test"], classes)


def _check_trained(pairs: Mapping[str, Pair], names: Array, key: str) -> None:
    """Refuse classes that no training sample has: their outputs would be evaluated, and never trained."""
    trained = set(pairs["train"][1].tolist())
    for part in ("val", "test"):
        if lost := sorted(set(pairs[part][1].tolist()) - trained):
            must = f"must have every class among the samples to train on; {part} alone has these"
            raise ConfigError(key, must, names[lost[:5]].tolist())


def standardise_splits(splits: Splits) -> Splits:
    mean, deviation = splits.train[0].mean(0), splits.train[0].std(0, correction=0)
    deviation[deviation == 0] = 1  # a feature that never changes carries nothing: it becomes 0
    train, val, test = (((x - mean) / deviation, y) for x, y in splits[:3])
    return splits._replace(train=train, val=val, test=test)


# --- mnist1d --------------------------------------------------------------------------------------


# --- arguments ------------------------------------------------------------------------------------

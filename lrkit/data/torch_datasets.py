"""Your own torch Datasets as data: batches by torch's ``DataLoader``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, random_split

from lrkit.base.errors import ConfigError
from lrkit.data.option_checks import check_flag, check_fractions
from lrkit.data.tensor_loader import check_whole_number, seeded_generator
from lrkit.lightning.imports import LightningDataModule

__all__ = ["Datasets"]


class Datasets(LightningDataModule):
    """Datasets of your own, each a ``torch.utils.data.Dataset``: ``data=datasets data.train._target_=mycode.Train``.

    A batch is what torch's default collation makes of the samples: ``(x, y)`` for a network whose loss lrkit computes.

    Args:
        train: the training samples. The ``DataLoader`` of an iterable dataset does not shuffle.
        val, test: the others; None: without validation samples they are held out from ``train``, at random by a fixed
            seed; without test samples there is no test.
        batch_size: number of samples in a batch of one device.
        seed: seed of the order of the training samples.
        drop_last: drop a last training batch that is smaller than ``batch_size``.
        workers: processes that load samples; 0: the training's own.
        val_fraction: share of ``train`` to hold out, without ``val``.
        train_samples: number of training samples, if known: the plan needs it before the data is read.

    Attributes:
        inputs: after ``setup``, for samples ``(x, y)``: the number of features, or the shape of ``x``.
        outputs: after ``setup``: the number of ``train.classes``, or of targets.
        loss: after ``setup``: ``mse`` for targets that are floats, else ``cross_entropy``.

    >>> from torch.utils.data import TensorDataset
    >>> data = Datasets(TensorDataset(torch.rand(10, 3), torch.rand(10, 1)), batch_size=4, val_fraction=0.2)
    >>> data.setup()
    >>> data.inputs, data.outputs, data.loss, [len(x) for x, _ in data.train_dataloader()]
    (3, 1, 'mse', [4, 4])
    """

    def __init__(
        self,
        train: Dataset[Any],
        val: Dataset[Any] | None = None,
        test: Dataset[Any] | None = None,
        batch_size: int = 128,
        seed: int = 0,
        drop_last: bool = False,
        workers: int = 0,
        val_fraction: float = 0.1,
        train_samples: int | None = None,
    ) -> None:
        super().__init__()
        for name, dataset in (("train", train), ("val", val), ("test", test)):
            if not isinstance(dataset, Dataset) and (dataset is not None or name == "train"):
                must = "must be a torch.utils.data.Dataset, such as {_target_: mycode.Train}"
                raise ConfigError(f"data.{name}", must, dataset)
        self.train, self.val, self.test = train, val, test
        self.batch_size = check_whole_number("data.batch_size", batch_size)
        self.seed = check_whole_number("data.seed", seed, least=0)
        self.drop_last = check_flag("data.drop_last", drop_last)
        self.workers = check_whole_number("data.workers", workers, least=0)
        self.val_fraction = check_fractions(val_fraction, 0.5)[0]
        self.train_samples = None if train_samples is None else check_whole_number("data.train_samples", train_samples)

    def setup(self, stage: str | None = None) -> None:
        """Hold out validation samples, and look at the first training sample.

        Raises:
            ConfigError: there is no training sample, or none is left.
        """
        if self.val is None:
            self.train, self.val = self._hold_out(self.train)
        if isinstance(self.train, IterableDataset):
            return
        count = len(self.train)  # type: ignore[arg-type]
        if not count:
            raise ConfigError("data.train", "must have samples", type(self.train).__name__)
        if self.train_samples not in (None, count):
            must = f"must be null or {count}, the number of training samples"
            raise ConfigError("data.train_samples", must, self.train_samples)
        sample = self.train[0]
        if isinstance(sample, list | tuple) and len(sample) == 2:
            self._describe(*sample)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches in a new order each epoch."""
        shuffle = not isinstance(self.train, IterableDataset)
        return self._make_loader(self.train, shuffle=shuffle, drop_last=self.drop_last)

    def val_dataloader(self) -> DataLoader[Any]:
        """Each validation sample once, in a fixed order."""
        assert self.val is not None
        return self._make_loader(self.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """Each test sample once, in a fixed order.

        Raises:
            ConfigError: there is no test dataset.
        """
        return self._make_loader(self.check_test())

    def check_test(self) -> Dataset[Any]:
        """The test dataset.

        Raises:
            ConfigError: there is none.
        """
        if self.test is None:
            raise ConfigError("data.test", "must be set for test=true", None)
        return self.test

    def _hold_out(self, train: Dataset[Any]) -> tuple[Dataset[Any], Dataset[Any]]:
        if isinstance(train, IterableDataset):
            raise ConfigError("data.val", "must be set for an iterable dataset, which cannot be split", None)
        size = len(train)  # type: ignore[arg-type]
        held = max(1, round(size * self.val_fraction))
        if held >= size:
            must = f"must leave samples to train on: data.train has {size}, of which {held} are held out"
            raise ConfigError("data.val_fraction", must, self.val_fraction)
        rest, val = random_split(train, [size - held, held], generator=seeded_generator(0))
        return rest, val

    def _describe(self, x: Any, y: Any) -> None:
        """The facts that a model needs, from one sample; none are set that it does not say."""
        if isinstance(x, Tensor) or hasattr(x, "shape"):
            shape = tuple(x.shape)
            self.inputs = shape[0] if len(shape) == 1 else shape
        floats = isinstance(y, float) or (isinstance(y, Tensor) and y.is_floating_point())
        self.loss = "mse" if floats else "cross_entropy"
        classes = getattr(getattr(self.train, "dataset", self.train), "classes", None)
        if floats:
            self.outputs = y.numel() if isinstance(y, Tensor) else 1
        elif classes is not None:
            self.outputs = len(classes)

    def _make_loader(self, dataset: Dataset[Any], **how: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            self.batch_size,
            num_workers=self.workers,
            generator=seeded_generator(self.seed),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
            **how,
        )

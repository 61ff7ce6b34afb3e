"""Data that fits in memory: one small ``LightningDataModule`` per source.

Constructing one checks its arguments and reads nothing; ``setup`` reads, checks and splits. A batch is always
``(x, y)``, and after ``setup`` the module says what a model needs to know: ``inputs``, ``outputs``, ``loss``.
"""

from __future__ import annotations

import gzip
import importlib
import inspect
import math
import random
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import metadata, resources
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.memory import check_fits
from lrkit.base.option_rules import is_number
from lrkit.config.missing_values import missing_policy
from lrkit.config.named_datasets import check_hugging_face, check_torchvision, without_ghostscript
from lrkit.data.file_readers import (
    cache_folder,
    read_cache,
    read_csv,
    read_npz,
    read_text,
    standard_library,
    unzipped,
    write_cache,
)
from lrkit.data.tensor_conversion import (
    images_and_labels,
    kind_of_targets,
    opening_images,
    stack_items,
    targets_of,
    to_floats,
    to_pixels_or_floats,
)
from lrkit.data.tensor_loader import TensorLoader, check_whole_number, seeded_generator
from lrkit.lightning.classes import LightningDataModule
from lrkit.lightning.replicas import count_replicas, replica_index

__all__ = [
    "Arrays",
    "Digits",
    "HuggingFace",
    "Idx",
    "InMemoryData",
    "Mnist1d",
    "Splits",
    "Text",
    "Torchvision",
]

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
        self.drop_last = _flag("data.drop_last", drop_last)
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
            partial(_fetch, *pair), samples or size, self.batch_size,
            seed=self.seed, rank=rank, world=world, population=size, **how,
        )  # fmt: skip


class ModuleLoaders(LightningDataModule):
    """No data of its own: the model's ``train_dataloader`` and ``val_dataloader`` are used."""


def loaders_of(data: LightningDataModule) -> LightningDataModule | None:
    """What a trainer is given; None for loaders of the module itself, which it then looks for."""
    return None if isinstance(data, ModuleLoaders) else data


class Digits(InMemoryData):
    """1797 handwritten digits of 8x8 pixels in [0, 1]: 1197 to train on, 300 to validate, 300 to test.

    They come with lrkit, so that a first run needs no download.

    Source: E. Alpaydin and C. Kaynak (1998), UCI Machine Learning Repository; see ``digits.LICENSE.txt``.
    """

    def load(self) -> Splits:
        packed = resources.files("lrkit.data").joinpath("digits.csv.gz").read_bytes()
        lines = gzip.decompress(packed).decode("ascii").splitlines()
        table = torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=np.int64))
        both = table[:, :-1].float() / 16, table[:, -1]
        rest, test = _hold_out(both, 300, "data")
        train, val = _hold_out(rest, 300, "data")
        return Splits(train, val, test, classes=10)


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
            raise _missing("mnist1d", "mnist1d", "mnist1d") from None
        total = -(-sum(self.sizes) // 10) * 10  # the package makes equally many of each of the ten classes
        # Every other parameter is the default of that version.
        file = cache_folder() / f"mnist1d-{version}-{total}.npz"
        x, y = read_cache(file) or write_cache(file, _make_mnist1d(total))
        sizes = [*self.sizes, total - sum(self.sizes)]
        signals, labels = (torch.split(torch.from_numpy(each), sizes) for each in (x, y))
        train, val, test, _ = zip(signals, labels, strict=True)
        return Splits(train, val, test, classes=10)


class Text(InMemoryData):
    """Next-character prediction on a text: ``x`` is ``context`` characters, ``y`` the same moved by one.

    An epoch is ``train_samples`` windows at random offsets into the first 90 % of the text, drawn anew each
    time; validation and test are ``val_samples`` windows each, evenly spread over the two halves of the rest.

    Args:
        path: Any text file in UTF-8. None: 1.5 MB of the source code of Python's own standard library, which
            every machine has (its text depends on the version of Python).
        context: Characters in a window.
        train_samples: Windows in an epoch.
        val_samples: Windows in the validation set, and in the test set.

    Attributes:
        vocabulary: After ``setup``: the characters, in the order of their numbers.
    """

    origin = "data.path"
    class_axis = -1  # the next character of each: (batch, context, characters), however long the context is
    vocabulary: str

    def __init__(
        self,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        path: str | None = None,
        context: int = 64,
        train_samples: int = 6400,
        val_samples: int = 512,
    ) -> None:
        super().__init__(batch_size, seed, drop_last, train_samples)
        self.path = None if path is None else _path("data.path", path, "a text file")
        self.context = check_whole_number("data.context", context)
        self.windows = check_whole_number("data.train_samples", train_samples)
        self.val_samples = check_whole_number("data.val_samples", val_samples)

    def load(self) -> Splits:
        text = standard_library() if self.path is None else read_text(self.path)
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        symbols, numbers = np.unique(codes, return_inverse=True)
        self.vocabulary = "".join(map(chr, symbols))
        ids = torch.from_numpy(numbers.astype(np.int64))
        cut, middle = len(ids) * 90 // 100, len(ids) * 95 // 100
        if middle - cut <= self.context:
            must = f"must have {20 * (self.context + 1)} characters or more at context {self.context}"
            raise ConfigError("data.path", must, len(ids))
        train, *held_out = (self._windows(part) for part in (ids[:cut], ids[cut:middle], ids[middle:]))
        if self.windows > len(train[0]):
            raise ConfigError("data.train_samples", f"must be at most {len(train[0])} here", self.windows)
        val, test = (self._spread(pair) for pair in held_out)
        return Splits(train, val, test, classes=len(symbols), epoch=self.windows)

    def _windows(self, ids: Tensor) -> Pair:
        """Every window of the text: views that overlap, so they take no memory."""
        windows = ids.unfold(0, self.context + 1, 1)
        return windows[:, :-1], windows[:, 1:]

    def _spread(self, pair: Pair) -> Pair:
        count = len(pair[0])
        if self.val_samples > count:
            raise ConfigError("data.val_samples", f"must be at most {count} here", self.val_samples)
        offsets = torch.arange(self.val_samples) * count // self.val_samples
        return _fetch(*pair, offsets)


_MORE = 2**16  # bytes of a file that are read beyond those that it is to have: it may unpack to any number


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
        self.path = _path("data.path", path, "the folder with the IDX files")
        self.val_samples = check_whole_number("data.val_samples", val_samples)
        self.limit = None if limit is None else check_whole_number("data.limit", limit)
        self.flatten = _flag("data.flatten", flatten)

    def load(self) -> Splits:
        if not self.path.is_dir():
            raise ConfigError("data.path", "must be a folder that exists", str(self.path))
        rest, val = _hold_out(self._part("train"), self.val_samples, "data.val_samples")
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


class Arrays(InMemoryData):
    """Your own numbers: an ``.npz`` of arrays or a ``.csv`` table.

    Targets that are integers or strings are classes; targets that are floats are regressed on (mse); the plan says
    which. Where there is no validation or test part, one is held out from the training samples, always the same.

    Args:
        path: ``.npz`` with ``x`` and ``y``, or ``x_train``, ``y_train`` and perhaps ``x_val``, ``x_test`` and
            so on; or ``.csv``, where a first line of names is recognised.
        target: The column of a ``.csv`` to predict. None: the last one.
        targets: ``classes`` or ``numbers``, where it is not to be told by how they are written.
        missing: What to do with samples that miss a value (nan, NA, null, an empty cell, ...): ``refuse`` the file,
            ``drop`` them, or ``keep`` such words as the names of classes that they are.
        standardise: Subtract each feature's mean over the training samples, divide by its standard deviation.
        val_fraction: Share of all training samples to validate on.
        test_fraction: Share of all training samples to test on.
    """

    origin = "data.path"

    def __init__(
        self,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        train_samples: int | None = None,
        path: str | None = None,
        target: str | None = None,
        targets: str = "auto",
        missing: str = "refuse",
        standardise: bool = False,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
    ) -> None:
        super().__init__(batch_size, seed, drop_last, train_samples)
        self.path = _path("data.path", path, "an .npz or .csv file")
        if self.path.suffix not in (".npz", ".csv"):
            raise ConfigError("data.path", "must end in .npz or .csv", str(self.path))
        if target is not None and self.path.suffix == ".npz":
            must = "must be null with an .npz as data.path, whose array y has the targets: it names a column of a .csv"
            raise ConfigError("data.target", must, target)
        self.target, self.targets, self.missing = target, kind_of_targets(targets), missing_policy(missing)
        self.standardise = _flag("data.standardise", standardise)
        self.fractions = _fractions(val_fraction, test_fraction)

    def load(self) -> Splits:
        try:
            if self.path.suffix == ".npz":
                table = read_npz(self.path, self.missing)
            else:
                table = read_csv(self.path, self.target, self.targets, self.missing)
        except OSError as error:
            raise ConfigError("data.path", f"must be a readable file: {error}", str(self.path)) from error
        tensors = {name: (to_floats(x, self.origin), y) for name, (x, y) in table.parts.items()}
        splits = _assemble(tensors, self.origin, *self.fractions, self.targets)
        self.notes = (_taken_for(table.target, table.parts["train"][1], splits.classes),)
        if table.dropped:
            self.notes += (f"samples left out, for they miss a value: {table.dropped} (data.missing=drop)",)
        return _standardised(splits) if self.standardise else splits


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
        self.root = None if root is None else _path("data.root", root, "a folder")
        self.download = _flag("data.download", download)
        self.options = dict(options or {})
        self.fractions = _fractions(val_fraction, test_fraction)

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
        return _assemble(parts, self.origin, *self.fractions)

    def _folder(self) -> Path:
        return self.root or cache_folder() / "torchvision"

    def _parts(self) -> dict[str, Sequence[tuple[Any, Any]]]:
        datasets = _extra("torchvision", "torchvision", "vision").datasets
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


class HuggingFace(InMemoryData):
    """A data set of the Hugging Face ``datasets`` library: from the hub, from files, or saved to disk.

    Args:
        path: What ``load_dataset`` takes (``mnist``, or ``parquet`` with ``options.data_files``), or the
            folder that ``save_to_disk`` wrote.
        x: The column of the inputs: images, or lists of numbers of one length. A list of columns of numbers
            makes each of them a feature.
        y: The column of the targets: integers or strings are classes, floats are regressed on.
        targets: ``classes`` or ``numbers``, where it is not to be told by their type.
        options: Further arguments of ``load_dataset``.
        val_fraction: Share of the training samples to validate on, where there is no part of its own.
        test_fraction: The same for the test.
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
    ) -> None:
        super().__init__(batch_size, seed, drop_last, train_samples)
        if not isinstance(path, str) or not path:
            raise ConfigError("data.path", "must be a name that load_dataset takes, or a saved folder", path)
        self.path, self.options = path, dict(options or {})
        if self.options.get("trust_remote_code"):
            raise ConfigError("data.options.trust_remote_code", "must not be set: a data set is data, not code")
        self.x = [x] if isinstance(x, str) else list(x)
        self.y, self.targets = y, kind_of_targets(targets)
        self.fractions = _fractions(val_fraction, test_fraction)

    def load(self) -> Splits:
        library = _extra("datasets", "huggingface", "hf")
        check_hugging_face(library, self.path)
        folder = Path(self.path).expanduser()
        saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
        try:
            load, where = (library.load_from_disk, str(folder)) if saved else (library.load_dataset, self.path)
            found = load(where, **self.options)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError("data.path", f"must be a data set that loads: {error}", self.path) from error
        parts = dict(found) if isinstance(found, Mapping) else {"train": found}
        if "train" not in parts:
            raise ConfigError("data.path", "must have a part named train. It has", sorted(parts))
        named = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
        try:
            with without_ghostscript():
                columns = {named[part]: self._columns(table) for part, table in parts.items() if part in named}
        except OSError as error:
            raise ConfigError("data.x", f"must hold images that can be read: {error}", self.x) from error
        splits = _assemble(columns, self.origin, *self.fractions, self.targets)
        self.notes = (_taken_for(f"column {self.y}", columns["train"][1], splits.classes),)
        return splits

    def _columns(self, table: Any) -> tuple[Tensor, Array]:
        for key, column in [*(("data.x", name) for name in self.x), ("data.y", self.y)]:
            if column not in table.column_names:
                hint = did_you_mean(column, table.column_names)
                raise ConfigError(key, f"must be a column. {hint}", column)
        rows = table.with_format("numpy")
        with opening_images("data.x"):
            x = [stack_items(rows[name], f"data.x={name}") for name in self.x]
        joined = x[0] if len(x) == 1 else np.stack(x, axis=1)
        return to_pixels_or_floats(joined, "data.x"), stack_items(rows[self.y], "data.y")


# --- from numbers to tensors ----------------------------------------------------------------------


def _fetch(x: Tensor, y: Tensor, indices: Tensor) -> Pair:
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


def _hold_out(pair: Pair, count: int, key: str) -> tuple[Pair, Pair]:
    """``(the rest, count samples)``, chosen at random but always the same: no seed moves the split."""
    size = len(pair[0])
    if count >= size:
        raise ConfigError(key, f"must leave something to train on, of {size} samples", count)
    order = torch.randperm(size, generator=seeded_generator(0))
    rest, held = order[count:].sort().values, order[:count].sort().values
    return (pair[0][rest], pair[1][rest]), (pair[0][held], pair[1][held])


def _taken_for(name: str, y: Array, classes: int | None) -> str:
    """What targets were taken for, by how they are written, in words."""
    if classes is None:
        return f"targets: numbers of {name} (mean squared error); data.targets=classes makes classes of them"
    numbers = "" if y.dtype.kind in "US" else "; data.targets=numbers makes a regression of them"
    return f"targets: {classes} classes of {name} (cross entropy){numbers}"


def _assemble(
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
            pairs["train"], pairs[name] = _hold_out(pairs["train"], count, f"data.{name}_fraction x samples")
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


def _standardised(splits: Splits) -> Splits:
    mean, deviation = splits.train[0].mean(0), splits.train[0].std(0, correction=0)
    deviation[deviation == 0] = 1  # a feature that never changes carries nothing: it becomes 0
    train, val, test = (((x - mean) / deviation, y) for x, y in splits[:3])
    return splits._replace(train=train, val=val, test=test)


def _accepted(make: type) -> set[str]:
    """The arguments that a class takes, with those that it hands up as ``**kwargs``."""
    names: set[str] = set()
    for base in make.__mro__:
        parameters = inspect.signature(base).parameters
        names |= parameters.keys()
        if all(each.kind is not each.VAR_KEYWORD for each in parameters.values()):
            break
    return names


# --- mnist1d --------------------------------------------------------------------------------------


def _make_mnist1d(samples: int) -> tuple[Array, Array]:
    """``samples`` signals; the global random states, which the package seeds, are left as they were."""
    package = _extra("mnist1d.data", "mnist1d", "mnist1d")
    before = np.random.get_state(), random.getstate()
    try:
        arguments = package.get_dataset_args()
        arguments.num_samples, arguments.train_split = samples, 1.0
        made = package.make_dataset(arguments)
    finally:
        np.random.set_state(before[0])
        random.setstate(before[1])
    return made["x"].astype(np.float32), made["y"].astype(np.int64)


# --- arguments ------------------------------------------------------------------------------------


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(key, "must be true or false", value)
    return value


def _path(key: str, value: Any, what: str) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(key, f"must be {what}", value)
    return Path(value).expanduser()


def _fractions(val: Any, test: Any) -> tuple[float, float]:
    for key, value in (("data.val_fraction", val), ("data.test_fraction", test)):
        if not is_number(value) or not 0 < value < 1:
            raise ConfigError(key, "must be a share between 0 and 1", value)
    if val + test >= 1:
        raise ConfigError("data.val_fraction", f"must be below 1 - data.test_fraction ({test})", val)
    return float(val), float(test)


def _extra(module: str, data: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module.partition(".")[0], data, extra) from error


def _missing(package: str, data: str, extra: str) -> ConfigError:
    return ConfigError(f"data={data}", f"needs the package {package}: pip install 'lrkit[{extra}]'")

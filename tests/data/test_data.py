"""Each data source loads, has a reproducible split, and reports a wrong file in one sentence."""

from __future__ import annotations

import gzip
import importlib
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from lrkit.base.errors import ConfigError
from lrkit.config.instantiate import build
from lrkit.data.arrays import Arrays
from lrkit.data.digits import Digits
from lrkit.data.hugging_face import HuggingFace
from lrkit.data.in_memory import InMemoryData, Splits
from lrkit.data.mnist1d import Mnist1d
from lrkit.data.mnist_idx_files import Idx
from lrkit.data.tensor_loader import TensorLoader
from lrkit.data.text import Text
from lrkit.data.torchvision_datasets import Torchvision

FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian: apt-get install dataset-fashion-mnist

Loader = TensorLoader[tuple[Tensor, Tensor]]
Data = TypeVar("Data", bound=InMemoryData)


def ready(data: Data) -> Data:
    data.setup()
    return data


def whole(loader: Loader) -> tuple[Tensor, Tensor]:
    xs, ys = zip(*loader, strict=True)
    return torch.cat(xs), torch.cat(ys)


class Given(InMemoryData):
    """Tensors as they are, to test the base class."""

    def __init__(self, x: Tensor, y: Tensor, batch_size: int = 4, **kwargs: Any) -> None:
        super().__init__(batch_size, **kwargs)
        self.pair, self.loads = (x, y), 0

    def load(self) -> Splits:
        self.loads += 1
        return Splits(self.pair, self.pair, self.pair)


# --- the base


def test_setup_loads_once_and_constructing_never() -> None:
    data = Given(torch.rand(10, 3), torch.arange(10) % 2)
    assert data.loads == 0
    for stage in ("fit", "fit", "test", None):
        data.setup(stage)
    assert data.loads == 1
    assert (data.inputs, data.outputs, data.loss, data.train_count) == (3, 2, "cross_entropy", 10)


def test_doubles_become_floats_and_bytes_become_floats_in_0_1() -> None:
    doubles = ready(Given(torch.rand(8, 3, dtype=torch.float64), torch.rand(8, 2, dtype=torch.float64)))
    x, y = next(iter(doubles.train_dataloader()))
    assert (x.dtype, y.dtype, doubles.loss, doubles.outputs) == (torch.float32, torch.float32, "mse", 2)
    pixels = torch.tensor([[0, 51, 255]], dtype=torch.uint8).repeat(8, 1)
    x, _ = next(iter(ready(Given(pixels, torch.arange(8))).train_dataloader()))
    assert x[0].tolist() == pytest.approx([0, 0.2, 1])


def test_the_seed_moves_the_order_and_nothing_else() -> None:
    first, other = (ready(Digits(32, seed=seed)) for seed in (0, 1))
    for loader in ("val_dataloader", "test_dataloader"):
        assert torch.equal(whole(getattr(first, loader)())[0], whole(getattr(other, loader)())[0])
    x, z = whole(first.train_dataloader())[0], whole(other.train_dataloader())[0]
    assert not torch.equal(x, z)
    assert torch.equal(torch.sort(x.sum(1)).values, torch.sort(z.sum(1)).values)


def test_each_rank_gets_its_share_from_the_trainer() -> None:
    data = ready(Digits(8))
    shares = []
    for rank in range(2):
        progress = SimpleNamespace(current=SimpleNamespace(processed=0))
        loops = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
        trainer: Any = SimpleNamespace(
            global_rank=rank, world_size=2, overfit_batches=0, fit_loop=loops, strategy=SimpleNamespace()
        )
        data.trainer = trainer
        assert len(data.train_dataloader()) == 75  # ceil(1197 / 2 / 8)
        shares.append(whole(data.test_dataloader())[0])
    data.trainer = None
    both = torch.stack(shares, dim=1).flatten(0, 1)
    assert torch.equal(both, whole(data.test_dataloader())[0])


def test_overfitting_a_few_batches_means_the_same_ones() -> None:
    data = ready(Digits(8))
    trainer: Any = SimpleNamespace(global_rank=0, world_size=1, overfit_batches=2, strategy=SimpleNamespace())
    data.trainer = trainer
    first, again = data.train_dataloader(), data.train_dataloader()
    again.set_epoch(1)
    assert torch.equal(next(iter(first))[0], next(iter(again))[0])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"batch_size": 0}, r"data\.batch_size must be a whole number >= 1. Received: 0"),
        ({"batch_size": True}, r"data\.batch_size must be a whole number >= 1. Received: True"),
        ({"batch_size": 8.0}, r"data\.batch_size must be a whole number >= 1. Received: 8\.0"),
        ({"seed": -1}, r"data\.seed must be a whole number >= 0. Received: -1"),
        ({"drop_last": 1}, r"data\.drop_last must be true or false. Received: 1"),
        ({"train_samples": 0}, r"data\.train_samples must be a whole number >= 1. Received: 0"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_read(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Digits(**{"batch_size": 8, **arguments})


@pytest.mark.parametrize(
    ("x", "y", "arguments", "sentence"),
    [
        (torch.rand(0, 3), torch.arange(0), {}, "data must have train samples"),
        (torch.rand(4, 3), torch.arange(3), {}, "as many targets as inputs: 4 inputs. Received: 3"),
        (torch.tensor([[1.0, float("nan")], [float("inf"), 2]]), torch.arange(2), {},
         "only finite numbers: 2 of 4 numbers in the train inputs are NaN or infinite"),
        (torch.rand(2, 2), torch.tensor([[1.0], [float("nan")]]), {}, "1 of 2 numbers in the train targets"),
        (torch.rand(4, 3), torch.arange(4), {"train_samples": 5},
         r"data\.train_samples must be null or 4, the number of training samples. Received: 5"),
        (torch.rand(4, 3), torch.arange(4), {"drop_last": True, "batch_size": 5},
         r"data\.drop_last must be false, or data\.batch_size \(5\) at most 4 samples"),
    ],
)  # fmt: skip
def test_unusable_data_is_refused_at_setup(x: Tensor, y: Tensor, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ready(Given(x, y, **arguments))


def test_asking_for_batches_too_early_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"Digits has not read its data: call setup\(\) first"):
        Digits(8).val_dataloader()


# --- digits


def test_digits() -> None:
    data = ready(Digits(32, train_samples=1197))
    assert (data.inputs, data.outputs, data.loss, data.train_count) == (64, 10, "cross_entropy", 1197)
    parts = [whole(loader) for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())]
    assert [len(x) for x, _ in parts] == [1197, 300, 300]
    x, y = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
    assert (x.min().item(), x.max().item()) == (0, 1)
    assert y.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as UCI counts them
    assert x.sum() * 16 == 561718  # the sum of scikit-learn's load_digits().data
    for _, labels in parts:
        assert labels.bincount(minlength=10).min() >= 0.07 * len(labels)  # shuffled, not sorted


# --- mnist1d


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lrkit"


def small_mnist1d(**changed: Any) -> Mnist1d:
    return Mnist1d(5, **{"train_samples": 21, "val_samples": 8, "test_samples": 6, **changed})


def test_mnist1d_is_made_once_and_disturbs_no_random_state(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mnist1d")
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    data = ready(small_mnist1d())
    assert (random.random(), np.random.rand()) == expected
    assert (data.inputs, data.outputs, data.train_count) == (40, 10, 21)
    assert [len(whole(each)[0]) for each in (data.val_dataloader(), data.test_dataloader())] == [8, 6]
    (file,) = cache.iterdir()  # nothing half-written is left

    def never(samples: int) -> None:
        raise AssertionError("made again")

    with monkeypatch.context() as patch:
        patch.setattr("lrkit.data.mnist1d._generate_signals", never)
        again = ready(small_mnist1d())
    assert torch.equal(whole(again.train_dataloader())[0], whole(data.train_dataloader())[0])
    file.write_bytes(file.read_bytes()[:200])  # a damaged file is made again
    assert torch.equal(whole(ready(small_mnist1d()).val_dataloader())[0], whole(data.val_dataloader())[0])
    ready(small_mnist1d(test_samples=16))
    assert len(list(cache.iterdir())) == 2  # another size is another file


def test_mnist1d_does_without_a_cache(cache: Path) -> None:
    pytest.importorskip("mnist1d")
    cache.parent.write_text("a file where the folder should be")
    assert ready(small_mnist1d()).train_count == 21


def test_mnist1d_says_what_to_install(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    with pytest.raises(ConfigError) as caught:
        ready(small_mnist1d())
    assert str(caught.value) == "data=mnist1d needs the package mnist1d: pip install 'lrkit[mnist1d]'."


def test_the_sizes_of_mnist1d_are_checked() -> None:
    assert (Mnist1d(100).train_samples, Mnist1d(100).sizes) == (4000, (4000, 2000, 10000))
    with pytest.raises(ConfigError, match=r"data\.test_samples must be a whole number"):
        Mnist1d(100, test_samples=0)


# --- text


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(chr(97 + i * i % 23) for i in range(3000)) + "\u00e9\u2603", encoding="utf-8")
    return path


def test_text_windows_follow_one_another(text: Path) -> None:
    data = ready(Text(4, path=str(text), context=5, train_samples=30, val_samples=10))
    assert (data.inputs, data.loss, data.train_count) == (5, "cross_entropy", 30)
    assert data.outputs == len(data.vocabulary) == len(set(text.read_text(encoding="utf-8")))
    written = text.read_text(encoding="utf-8")
    cut, middle = 3002 * 90 // 100, 3002 * 95 // 100
    parts = {"train": written[:cut], "val": written[cut:middle], "test": written[middle:]}
    for part, count in (("train", 30), ("val", 10), ("test", 10)):
        x, y = whole(getattr(data, f"{part}_dataloader")())
        assert x.shape == y.shape == (count, 5)
        assert torch.equal(x[:, 1:], y[:, :-1])
        for row, following in zip(x, y, strict=True):
            seen = "".join(data.vocabulary[i] for i in [*row, following[-1]])
            assert seen in parts[part]


def test_text_windows_are_drawn_anew_in_each_epoch_and_alike_for_a_seed(text: Path) -> None:
    arguments: dict[str, Any] = {"path": str(text), "context": 5, "train_samples": 30, "val_samples": 9}
    loaders = [ready(Text(4, seed=3, **arguments)).train_dataloader() for _ in range(2)]
    epochs = []
    for epoch in (0, 1):
        for loader in loaders:
            loader.set_epoch(epoch)
        first, again = (whole(loader)[0] for loader in loaders)
        assert torch.equal(first, again)
        epochs.append(first)
    assert not torch.equal(torch.unique(epochs[0], dim=0), torch.unique(epochs[1], dim=0))


def test_text_needs_no_file() -> None:
    data = ready(Text(64))
    assert (data.inputs, data.train_count, len(data.train_dataloader())) == (64, 6400, 100)
    assert data.vocabulary.isascii() and 90 <= data.outputs <= 128
    again = ready(Text(64))
    assert torch.equal(whole(data.val_dataloader())[1], whole(again.val_dataloader())[1])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"context": 200}, r"data\.path must have at least 4020 characters for data\.context=200. Received: 3002"),
        (
            {"train_samples": 9999},
            r"data\.train_samples must be at most 2696, the number of windows in .* Received: 9999",
        ),
        (
            {"val_samples": 9999},
            r"data\.val_samples must be at most 145, the number of windows in .* Received: 9999",
        ),
        ({"path": "nowhere.txt"}, r"data\.path must be a readable file: No such file or directory"),
        ({"path": 3}, r"data\.path must be a text file. Received: 3"),
        ({"context": 0}, r"data\.context must be a whole number"),
    ],
)
def test_a_text_that_is_too_short_says_so(text: Path, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ready(
            Text(
                **{
                    "batch_size": 4,
                    "path": str(text),
                    "context": 5,
                    "train_samples": 30,
                    "val_samples": 9,
                    **arguments,
                }
            )
        )


def test_a_text_is_in_utf8(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9" * 1000)
    with pytest.raises(ConfigError, match=r"data\.path must be a text file in UTF-8"):
        ready(Text(4, path=str(tmp_path / "latin.txt")))


# --- idx


def idx(array: np.ndarray[Any, Any]) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, *, zipped: bool = False, dot: str = "-", train: int = 12, test: int = 5) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in (("train", train), ("t10k", test)):
        images = np.arange(size * 12).reshape(size, 3, 4) % 256
        for file, array in (
            (f"{name}-images{dot}idx3", images),
            (f"{name}-labels{dot}idx1", np.arange(size) % 4),
        ):
            content = idx(array)
            path = folder / f"{file}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dot", ["-", "."])
def test_idx_files_go_by_all_their_names(tmp_path: Path, zipped: bool, dot: str) -> None:
    data = ready(Idx(4, path=str(write_idx(tmp_path, zipped=zipped, dot=dot)), val_samples=2))
    assert (data.inputs, data.outputs, data.train_count) == ((1, 3, 4), 4, 10)
    x, y = whole(data.test_dataloader())
    assert torch.equal(x.flatten(), torch.arange(60) / 255)
    assert y.tolist() == [0, 1, 2, 3, 0]


def test_idx_images_can_be_vectors_and_few(tmp_path: Path) -> None:
    path = str(write_idx(tmp_path))
    full = ready(Idx(4, path=path, val_samples=2))
    data = ready(Idx(4, path=path, val_samples=2, limit=3, flatten=True, train_samples=3))
    assert (data.inputs, data.train_count) == (12, 3)
    held = [whole(each.val_dataloader())[0].flatten(1) for each in (data, full)]
    assert torch.equal(*held)  # whatever the limit
    kept = {tuple(row.tolist()) for row in whole(data.train_dataloader())[0]}
    assert not kept & {tuple(row.tolist()) for row in held[0]}


def damage(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / file
        path.write_bytes(change(path.read_bytes()))

    return apply


@pytest.mark.parametrize(
    ("break_it", "arguments", "sentence"),
    [
        (lambda folder: (folder / "t10k-labels-idx1-ubyte").unlink(), {},
         r"data\.path must contain t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte\.gz"),
        (damage("train-images-idx3-ubyte", lambda b: b[:-1]), {},
         r"data\.path must have complete files: train-images-idx3-ubyte should have 160 bytes. Received: 159"),
        (damage("train-images-idx3-ubyte", lambda b: b + b"0"), {}, r"should have 160 bytes. Received: 161"),
        (damage("train-images-idx3-ubyte", lambda b: b[:7]), {}, r"data\.path must have IDX files of bytes"),
        (damage("train-labels-idx1-ubyte", lambda b: b"PK" + b[2:]), {}, "train-labels-idx1-ubyte is not"),
        (damage("train-labels-idx1-ubyte", lambda b: b""), {}, "train-labels-idx1-ubyte is not one"),
        (damage("t10k-images-idx3-ubyte", lambda b: gzip.compress(b)[:-9]), {},
         r"data\.path must have readable files: t10k-images-idx3-ubyte"),
        (damage("t10k-images-idx3-ubyte", lambda b: gzip.compress(b)[:12] + b"x" * 40), {}, "readable files"),
        (damage("t10k-labels-idx1-ubyte", lambda b: idx(np.zeros(4))), {},
         r"as many labels as images: t10k has 5 images. Received: 4"),
        (lambda folder: None, {"val_samples": 12},
         r"data\.val_samples must be below the number of samples, 12, so that"),
        (lambda folder: None, {"limit": 11}, r"data\.limit must be at most 10. Received: 11"),
        (lambda folder: None, {"path": "nowhere"}, r"data\.path must be an existing folder"),
        (lambda folder: None, {"path": None}, r"data\.path must be the folder with the IDX files"),
        (lambda folder: None, {"flatten": "yes"}, r"data\.flatten must be true or false"),
    ],
)  # fmt: skip
def test_damaged_idx_files_are_refused(
    tmp_path: Path, break_it: Callable[[Path], None], arguments: dict[str, Any], sentence: str
) -> None:
    break_it(write_idx(tmp_path))
    with pytest.raises(ConfigError, match=sentence):
        ready(Idx(**{"batch_size": 4, "path": str(tmp_path), "val_samples": 2, **arguments}))


@pytest.mark.skipif(not FASHION.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_idx_reads_fashion_mnist() -> None:
    data = ready(Idx(1000, path=str(FASHION), limit=5000))
    assert (data.inputs, data.outputs, data.train_count) == ((1, 28, 28), 10, 5000)
    x, y = whole(data.test_dataloader())
    assert y.bincount().tolist() == [1000] * 10
    assert x.mean().item() == pytest.approx(0.2868, abs=1e-4)


# --- arrays


def npz(folder: Path, **arrays: Any) -> str:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return str(path)


def csv(folder: Path, text: str) -> str:
    path = folder / "data.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_arrays_of_one_part_are_split(tmp_path: Path) -> None:
    x = np.arange(60, dtype=np.float64).reshape(20, 3)
    data = ready(Arrays(4, path=npz(tmp_path, x=x, y=np.arange(20) % 3 + 5), val_fraction=0.2))
    assert (data.inputs, data.outputs, data.loss, data.train_count) == (3, 3, "cross_entropy", 14)
    parts = [whole(each()) for each in (data.train_dataloader, data.val_dataloader, data.test_dataloader)]
    assert [len(part) for part, _ in parts] == [14, 4, 2]
    rows = torch.cat([part for part, _ in parts])
    assert rows[rows[:, 0].sort().indices].tolist() == x.tolist()
    for part, y in parts:
        assert ((part[:, 0] / 3) % 3).tolist() == y.tolist()  # classes 5, 6, 7 are 0, 1, 2


def test_arrays_keep_the_parts_that_they_have(tmp_path: Path) -> None:
    parts = {f"{axis}_{part}": np.full((n, 2) if axis == "x" else n, float(n))
             for part, n in (("train", 10), ("val", 3), ("test", 4)) for axis in "xy"}  # fmt: skip
    data = ready(Arrays(4, path=npz(tmp_path, **parts)))
    assert (data.loss, data.outputs, data.train_count) == ("mse", 1, 10)
    assert whole(data.val_dataloader())[1].tolist() == [[3.0]] * 3
    assert whole(data.test_dataloader())[1].tolist() == [[4.0]] * 4


def test_strings_are_classes_in_the_order_of_the_alphabet(tmp_path: Path) -> None:
    table = "a,kind,b\n" + "".join(f"{i},{'xyz'[i % 3]},{i * 2}\n" for i in range(12))
    data = ready(Arrays(20, path=csv(tmp_path, table), target="kind"))
    assert (data.inputs, data.outputs, data.loss, data.train_count) == (2, 3, "cross_entropy", 10)
    x, y = next(iter(data.train_dataloader()))
    assert (x[:, 0] % 3).tolist() == y.tolist()
    assert torch.equal(x[:, 1], 2 * x[:, 0])


@pytest.mark.parametrize("header", ["", "a,b\n", "\ufeffa,b\n"])
def test_a_line_of_names_is_recognised(tmp_path: Path, header: str) -> None:
    data = ready(Arrays(20, path=csv(tmp_path, header + "".join(f"{i},{i}.5\n" for i in range(10)))))
    x, y = next(iter(data.train_dataloader()))
    assert (data.train_count, data.loss) == (8, "mse")
    assert torch.equal(y, x + 0.5) and y.shape == (8, 1)


def test_strings_below_no_names_are_data(tmp_path: Path) -> None:
    assert ready(Arrays(20, path=csv(tmp_path, "1,x\n2,y\n" * 5))).train_count == 8


def test_standardising_uses_the_training_samples_and_survives_a_constant(tmp_path: Path) -> None:
    x = np.stack([np.arange(40.0) ** 2, np.full(40, 7.0)], axis=1)
    path = npz(tmp_path, x=x, y=np.arange(40) % 2)
    plain, scaled = ready(Arrays(64, path=path)), ready(Arrays(64, path=path, standardise=True))
    train = whole(scaled.train_dataloader())[0]
    assert train.mean(0).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert train.std(0, correction=0).tolist() == pytest.approx([1, 0], abs=1e-5)
    before, after = whole(plain.val_dataloader())[0], whole(scaled.val_dataloader())[0]
    raw = whole(plain.train_dataloader())[0]
    assert torch.allclose(after[:, 0], (before[:, 0] - raw[:, 0].mean()) / raw[:, 0].std(correction=0), atol=1e-5)


X, Y = np.ones((10, 2)), np.arange(10) % 2


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"a": X}, r"data\.path must have the arrays x_train and y_train. Received: \['a'\]"),
        ({"x": X}, r"data\.path must have the arrays x and y. Received: \['x'\]"),
        ({"x": X, "y": Y, "x_test": X}, r"must have the arrays x_test and y_test"),
        ({"x": X, "y": Y[:4]}, r"as many targets as inputs: train has 10 inputs. Received: 4"),
        ({"x": X, "y": Y, "x_test": X[:, :1], "y_test": Y}, r"samples of one shape in train and test"),
        ({"x": X, "y": Y * 0}, r"at least two classes as targets. Received: \[0\]"),
        ({"x": X, "y": np.ones((10, 2), int)}, r"floats, or one column of classes"),
        ({"x": X.astype(str), "y": Y}, r"must have numbers as inputs"),
        (
            {"x": X * np.nan, "y": Y},
            r"must have no missing value: sample 0 of x \(10 of 10 samples have one\); data\.missing=drop",
        ),
        ({"x": X, "y_test": Y, "x_test": X, "y": np.where(Y, np.nan, 1.0)}, r"sample 1 of y \(5 of 10"),
        ({"x": X, "y": np.where(Y, "nan", "b")}, r"sample 1 of y \(5 of 10 samples have one\)"),
        ({"x": X * 1e300, "y": Y}, r"only finite numbers"),
        ({"x": X, "y": np.array([None] * 10, dtype=object)}, r"must be an \.npz of plain arrays"),
        ({"x": X[:1], "y": np.ones(1)}, r"must be below the number of samples, 1, so that some are left to train on"),
    ],
)
def test_unusable_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ready(Arrays(4, path=npz(tmp_path, **arrays)))


@pytest.mark.parametrize(
    ("table", "target", "sentence"),
    [
        ("", None, r"at least two lines. Received: 0"),
        ("a,b\n1,2\n3\n", None, r"must have 2 columns in each line: line 3 has another number. Received: 1"),
        ("a,b\n1,2\n,4\n", None, r"must have no missing value: line 3, column a; .* Received: ''"),
        ("a,b\n1,2\n3,\n", None, r"must have no missing value: line 3, column b; .* Received: ''"),
        ("a,b\n1,2\nx,4\n", None, r"must have numbers as inputs: line 3, column a. Received: 'x'"),
        ("a,a\n1,2\n3,4\n", None, r"must not have two columns with the same name. Received: 'a'"),
        ("a,b\n1,2.5\n4,inf\n4,1.5\n4,1.5\n", None, r"only finite numbers: 1 of"),
        ("a,b\n1,2\n3,4\n", "c", r"data\.target must be a column of data\.path. Accepted: a, b. Received: 'c'"),
        ("price,size\n1,2\n3,4\n", "prize", r"data\.target must be a column of data\.path. Did you mean 'price'\?"),
        ("NA,1\n2,1\n", None, r"must have names or values in its first line, not both"),
        ("1\n2\n", None, r"a column of targets and at least one column of inputs"),
        (
            "a,b\n1,2.5\nnan,3.5\n4,1.5\n4,?\n",
            None,
            r"line 3, column a \(2 of 4 lines have one\); data\.missing=drop drops such lines,",
        ),
    ],
)
def test_unusable_tables_are_refused(tmp_path: Path, table: str, target: str | None, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ready(Arrays(1, path=csv(tmp_path, table), target=target))


#: Common texts for a missing value in tables.
NONE = ["", "NA", "N/A", "nan", "NaN", "null", "None", "?", "#N/A", "-", "<NA>"]


@pytest.mark.parametrize("word", [*NONE, "12x"])
def test_a_target_that_is_missing_is_no_class(word: str, tmp_path: Path) -> None:
    rows = [f"{i},{i / 3}" for i in range(60)]
    rows[7] = f"7,{word}"
    path = csv(tmp_path, "\n".join(["x,price", *rows]) + "\n")
    with pytest.raises(ConfigError, match="line 9, column price"):
        ready(Arrays(4, path=path))
    if word in NONE:
        data = ready(Arrays(64, path=path, missing="drop"))
        assert (data.loss, data.outputs, data.train_count) == ("mse", 1, 47)
        assert 7.0 not in whole(data.train_dataloader())[0]
        assert data.notes == (
            "targets: numbers of column price (mean squared error); with data.targets=classes they are classes",
            "samples dropped because of a missing value: 1 (data.missing=drop)",
        )


def test_a_missing_word_among_words_is_no_class_unless_it_is_said_to_be(tmp_path: Path) -> None:
    path = csv(tmp_path, "a,kind\n" + "".join(f"{i},{('dog', 'none', 'cat')[i % 3]}\n" for i in range(30)))
    with pytest.raises(ConfigError, match=r"line 3, column kind \(10 of 30 lines have one\).*Received: 'none'"):
        ready(Arrays(4, path=path))
    assert ready(Arrays(4, path=path, missing="drop")).outputs == 2
    assert ready(Arrays(4, path=path, missing="keep")).outputs == 3
    words = npz(tmp_path, x=np.ones((12, 2)), y=np.array(["a", "b", "nan"] * 4))
    assert [ready(Arrays(4, path=words, missing=how)).outputs for how in ("drop", "keep")] == [2, 3]


def test_nan_is_dropped_from_arrays_where_that_is_asked_for(tmp_path: Path) -> None:
    x, y = np.arange(40, dtype=float).reshape(20, 2), np.arange(20, dtype=float)
    x[3, 1], y[4], y[3] = np.nan, np.nan, np.nan
    path = npz(tmp_path, x=x, y=y)
    for missing in ("refuse", "keep"):
        with pytest.raises(ConfigError, match=r"sample 3 of x;"):
            ready(Arrays(4, path=path, missing=missing))
    data = ready(Arrays(64, path=path, missing="drop", val_fraction=0.1, test_fraction=0.1))
    left = torch.cat([whole(each())[1] for each in (data.train_dataloader, data.val_dataloader, data.test_dataloader)])
    assert sorted(left.flatten().tolist()) == [i for i in range(20) if i not in (3, 4)]


def test_classes_or_numbers_is_said_and_can_be_set(tmp_path: Path) -> None:
    table = csv(tmp_path, "a,size\n" + "".join(f"{i},{i % 4}\n" for i in range(40)))
    data = ready(Arrays(64, path=table))
    said = "targets: 4 classes of column size (cross entropy); with data.targets=numbers they are numbers"
    assert (data.loss, data.outputs, data.notes) == ("cross_entropy", 4, (said,))
    data = ready(Arrays(64, path=table, targets="numbers"))
    x, y = whole(data.train_dataloader())
    assert (data.loss, data.outputs) == ("mse", 1) and torch.equal(y, x % 4)
    arrays = npz(tmp_path, x=np.ones((12, 2)), y=np.arange(12) % 3 / 2)
    assert (ready(Arrays(4, path=arrays)).loss, ready(Arrays(4, path=arrays, targets="classes")).outputs) == ("mse", 3)
    arrays = npz(tmp_path, x=np.ones((12, 2)), y=np.arange(12) % 3)
    assert ready(Arrays(4, path=arrays, targets="numbers")).loss == "mse"


def test_each_spelling_is_a_class_only_where_that_is_said(tmp_path: Path) -> None:
    path = csv(tmp_path, "a,size\n" + "".join(f"{i},{(1, 2, 'L')[i % 3]}\n" for i in range(30)))
    with pytest.raises(ConfigError, match=r"line 4, column size differs; data\.targets=classes.*Received: 'L'"):
        ready(Arrays(4, path=path))
    with pytest.raises(ConfigError, match=r"only numbers or only names as targets: line 4.*differs\. Received"):
        ready(Arrays(4, path=path, targets="numbers"))
    assert ready(Arrays(4, path=path, targets="classes")).outputs == 3
    words = csv(tmp_path, "a,kind\n" + "".join(f"{i},{'xyz'[i % 3]}\n" for i in range(30)) + "31,7\n")
    with pytest.raises(ConfigError, match=r"line 32, column kind differs.*Received: '7'"):
        ready(Arrays(4, path=words))
    letters = npz(tmp_path, x=np.ones((12, 2)), y=np.array(["a", "b", "c"] * 4))
    with pytest.raises(ConfigError, match=r"data\.targets must be classes or auto: the targets are no numbers"):
        ready(Arrays(4, path=letters, targets="numbers"))


def test_a_first_line_of_names_is_known_above_a_line_that_misses_values(tmp_path: Path) -> None:
    path = csv(tmp_path, "a,b\nNA,NA\n" + "".join(f"{i},{i}.5\n" for i in range(10)))
    with pytest.raises(ConfigError, match=r"line 2, column a;"):
        ready(Arrays(4, path=path))
    assert ready(Arrays(20, path=path, missing="drop")).train_count == 8
    with pytest.raises(ConfigError, match=r"data\.missing must leave at least one line: all 2 lines"):
        ready(Arrays(4, path=csv(tmp_path, "1,?\n2,?\n"), missing="drop"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"targets": "class"}, r"data\.targets must be auto, classes or numbers. Received: 'class'"),
        ({"missing": "skip"}, r"data\.missing must be one of refuse, drop, keep. Received: 'skip'"),
        ({"path": None}, r"data\.path must be an \.npz or \.csv file. Received: None"),
        ({"path": "data.xlsx"}, r"data\.path must end in \.npz or \.csv"),
        ({"path": "nowhere.csv"}, r"data\.path must be a readable file"),
        ({"path": "nowhere.npz"}, r"data\.path must be a readable file"),
        ({"val_fraction": 0}, r"data\.val_fraction must be a number between 0 and 1"),
        (
            {"val_fraction": 0.5, "test_fraction": 0.5},
            r"data\.val_fraction must be below 1 - data\.test_fraction",
        ),
        ({"standardise": 1}, r"data\.standardise must be true or false"),
    ],
)
def test_bad_arguments_of_arrays_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ready(Arrays(**{"batch_size": 4, "path": "x.npz", **arguments}))


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04 torn", b"text"):
        (tmp_path / "data.npz").write_bytes(content)
        with pytest.raises(ConfigError, match=r"data\.path must be an \.npz of plain arrays"):
            ready(Arrays(4, path=str(tmp_path / "data.npz")))


# --- torchvision


def test_torchvision_by_name(torchvision: Any, tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw", train=20, test=6)
    data = ready(Torchvision(4, name="MNIST", root=str(tmp_path)))
    assert (data.inputs, data.outputs, data.loss, data.train_count) == ((1, 3, 4), 4, "cross_entropy", 18)
    x, y = whole(data.test_dataloader())
    assert torch.equal(x.flatten(), (torch.arange(72) % 256) / 255)
    assert y.tolist() == [0, 1, 2, 3, 0, 1]


def test_torchvision_arguments_that_are_handed_up(torchvision: Any, tmp_path: Path) -> None:
    raw = write_idx(tmp_path / "EMNIST" / "raw", train=20, test=6)
    for path in list(raw.iterdir()):
        path.rename(raw / f"emnist-digits-{path.name.replace('t10k', 'test')}")
    data = ready(Torchvision(4, name="EMNIST", root=str(tmp_path), options={"split": "digits"}))
    assert (data.train_count, len(whole(data.test_dataloader())[0])) == (18, 6)


def test_torchvision_without_a_test_part(torchvision: Any) -> None:
    options = {"size": 20, "image_size": [3, 4, 5], "num_classes": 2}
    data = ready(Torchvision(4, name="FakeData", options=options))
    assert (data.inputs, data.outputs, data.train_count) == ((3, 4, 5), 2, 16)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"name": "FashionMnist"},
            r"data\.name must be a class of torchvision\.datasets .* Did you mean 'FashionMNIST'\?",
        ),
        (
            {"name": "MNIST"},
            r"data\.root must be the folder with the files of MNIST; data\.download=true downloads them",
        ),
        ({"name": "MNIST", "options": {"bad": 1}}, r"data\.root must be the folder with the files of MNIST.*bad"),
    ],
)
def test_torchvision_says_what_is_missing(
    torchvision: Any, tmp_path: Path, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ready(Torchvision(4, root=str(tmp_path), **arguments))


# --- hugging face


def test_hugging_face_tables(datasets: Any, tmp_path: Path) -> None:
    columns = {"a": [float(i) for i in range(20)], "b": list(range(20)), "kind": ["n", "y"] * 10}
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "t.parquet")
    options = {"data_files": str(tmp_path / "t.parquet"), "cache_dir": str(tmp_path / "cache")}
    data = ready(HuggingFace(20, path="parquet", x=["a", "b"], y="kind", options=options))
    assert (data.inputs, data.outputs, data.loss, data.train_count) == (2, 2, "cross_entropy", 16)
    x, y = next(iter(data.train_dataloader()))
    assert torch.equal(x[:, 0], x[:, 1]) and (x[:, 0] % 2).tolist() == y.tolist()


def test_hugging_face_images_saved_to_disk(datasets: Any, tmp_path: Path) -> None:
    pixels = [np.full((4, 5, 3), i, dtype=np.uint8) for i in range(10)]
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["n", "y"])}
    table = datasets.Dataset.from_dict({"image": pixels, "label": [0, 1] * 5}, features=datasets.Features(kinds))
    datasets.DatasetDict({"train": table, "validation": table, "test": table}).save_to_disk(tmp_path / "saved")
    data = ready(HuggingFace(4, path=str(tmp_path / "saved")))
    assert (data.inputs, data.outputs, data.train_count) == ((3, 4, 5), 2, 10)
    assert torch.equal(whole(data.val_dataloader())[0][:, 0, 0, 0], torch.arange(10) / 255)


def test_hugging_face_says_what_is_missing(datasets: Any, tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a"], "label": [1.0]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ConfigError, match=r"data\.x must be a column. Accepted: label, text. Received: 'image'"):
        ready(HuggingFace(4, path=str(tmp_path / "saved")))
    with pytest.raises(ConfigError, match=r"data\.x must have numbers as inputs"):
        ready(HuggingFace(4, path=str(tmp_path / "saved"), x="text"))
    with pytest.raises(ConfigError, match=r"data\.path must be a dataset that can be loaded"):
        ready(HuggingFace(4, path=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("data", "package", "sentence"),
    [
        (lambda: Torchvision(4, name="MNIST"), "torchvision",
         "data=torchvision needs the package torchvision: pip install 'lrkit[vision]'."),
        (lambda: HuggingFace(4, path="mnist"), "datasets",
         "data=huggingface needs the package datasets: pip install 'lrkit[hf]'."),
    ],
)  # fmt: skip
def test_a_missing_package_says_what_to_install(
    data: Callable[[], InMemoryData], package: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError) as caught:
        ready(data())
    assert str(caught.value) == sentence


@pytest.mark.parametrize("make", [Torchvision, HuggingFace])
def test_a_name_is_needed(make: type[InMemoryData]) -> None:
    with pytest.raises(ConfigError, match=r"data\.(name must be a class|path must be a name)"):
        make(4)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (
            "plain_lightning.Points",
            "a Dataset: write a LightningDataModule whose train_dataloader(self) returns DataLoader(Points(...), batch",
        ),
        (
            "torch.utils.data.DataLoader",
            "a DataLoader: write a LightningDataModule whose train_dataloader(self) returns a DataLoader, ",
        ),
        (
            "pickled_content.given",
            "a function: write a LightningDataModule whose train_dataloader(self) returns a DataLoader, and val",
        ),
        (
            "pickled_content.Odd",
            "none: write a LightningDataModule whose train_dataloader(self) returns a DataLoader, and val_dataloader",
        ),
    ],
)
def test_what_is_no_data_module_is_told_how_to_become_one(named: str, said: str) -> None:
    trust = [named.partition(".")[0]]
    with pytest.raises(ConfigError) as raised:
        build({"_target_": named}, "data", trust)
    assert str(raised.value).startswith(
        f"data._target_ must be a subclass of LightningDataModule, and this is {said}"
    ) and str(raised.value).endswith(f"to your LightningModule, and set data=module. Received: {named!r}")

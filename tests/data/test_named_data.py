"""Data sets by name: only those that are known to execute no code; and no file of theirs is executed."""

from __future__ import annotations

import inspect
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from lrkit.base.errors import ConfigError
from lrkit.config import named_datasets
from lrkit.data.hugging_face import HuggingFace
from lrkit.data.torchvision_datasets import Torchvision


class Payload:
    """An object that executes code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", ["LSUN", "FGVCAircraft", "ImageNet", "Kinetics", "DatasetFolder", "wrap", "mnist"])
def test_another_class_is_refused_before_anything_is_imported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ConfigError) as caught:
        Torchvision(4, name=name)
    said = str(caught.value)
    assert said.startswith(
        "data.name must be a class of torchvision.datasets that is known to execute no code of its files."
    )
    assert "Accepted: CIFAR10, CIFAR100, EMNIST, EuroSAT, FER2013, FakeData, FashionMNIST, ImageFolder, " in said
    assert said.endswith(f"USPS. Received: '{name}'")


def test_an_untrusted_cifar_file_is_not_unpickled(torchvision: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    with pytest.raises(ConfigError, match=r"^data\.root must be the folder with the files of CIFAR10.*corrupted"):
        Torchvision(4, name="CIFAR10", root=str(tmp_path)).setup()
    assert not (tmp_path / "executed").exists()


def test_all_that_is_listed_is_there_and_yields_images(torchvision: Any) -> None:
    listed = {name: getattr(torchvision.datasets, name) for name in named_datasets.TORCHVISION}
    assert all(inspect.isclass(found) and "__getitem__" in dir(found) for found in listed.values())
    assert list(named_datasets.TORCHVISION) == sorted(named_datasets.TORCHVISION)


# --- Ghostscript ----------------------------------------------------------------------------------

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``gs`` that leaves a mark wherever it is called with a file."""
    mark, tool = tmp_path / "called", tmp_path / "bin" / "gs"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo 10 || touch {mark}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return mark


class Folder:
    """Read images as torchvision's ImageFolder does: each file by Pillow."""

    def __init__(self, root: Path) -> None:
        self.files = sorted(Path(root).rglob("*.png"))

    def __getitem__(self, i: int) -> tuple[Any, int]:
        with self.files[i].open("rb") as file:
            return Image.open(file).convert("RGB"), i % 2

    def __len__(self) -> int:
        return len(self.files)


def images(folder: Path) -> Path:
    folder.mkdir()
    for i in range(12):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(folder / f"{i:02}.png")
    return folder


def test_an_image_that_is_a_program_is_not_run(ghostscript: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = images(ghostscript.parent / "set")
    library = SimpleNamespace(datasets=SimpleNamespace(__all__=["ImageFolder"], ImageFolder=Folder))
    monkeypatch.setitem(sys.modules, "torchvision", library)
    Torchvision(4, name="ImageFolder", root=str(folder)).setup()
    (folder / "11.png").write_bytes(POSTSCRIPT)
    with pytest.raises(ConfigError, match=r"^data\.root must be a folder with readable images: .*Ghostscript"):
        Torchvision(4, name="ImageFolder", root=str(folder)).setup()
    assert not ghostscript.exists()
    with pytest.raises(OSError):  # the same without lrkit, to see that this test can tell
        Folder(folder)[11]
    assert ghostscript.exists()


# --- Hugging Face ---------------------------------------------------------------------------------


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """A package ``datasets`` of some release, with its readers; the paths that were loaded."""

    def put(version: str) -> list[str]:
        loaded: list[str] = []

        def load(path: str, **_: Any) -> Any:
            loaded.append(path)
            raise ValueError("nothing there")

        package = SimpleNamespace(__version__=version, load_dataset=load, load_from_disk=load)
        monkeypatch.setitem(sys.modules, "datasets", package)
        monkeypatch.setattr(named_datasets, "_is_own_reader", {"pandas", "sql", "csv", "spark"}.__contains__)
        return loaded

    return put


def test_readers_that_unpickle_are_refused(library: Callable[[str], list[str]]) -> None:
    loaded = library("4.0.0")
    for name in ("pandas", "sql", "spark"):
        with pytest.raises(ConfigError, match=rf"^data\.path must be a dataset, or a reader .* Received: '{name}'$"):
            HuggingFace(4, path=name).setup()
    assert loaded == []
    for name in ("csv", "mnist", "ylecun/mnist", "./pandas"):
        with pytest.raises(ConfigError, match="must be a dataset that can be loaded: nothing there"):
            HuggingFace(4, path=name).setup()
    assert loaded == ["csv", "mnist", "ylecun/mnist", "./pandas"]


def test_releases_that_execute_scripts_are_refused(library: Callable[[str], list[str]]) -> None:
    loaded = library("3.6.0")
    with pytest.raises(ConfigError, match=r"^data=huggingface needs datasets 4 or newer: older releases execute"):
        HuggingFace(4, path="squad").setup()
    assert loaded == []


def test_no_pickle_is_read_by_the_library_itself(datasets: Any, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    options = {"data_files": str(tmp_path / "x.pkl"), "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(ConfigError, match=r"^data\.path must be a dataset, or a reader"):
        HuggingFace(4, path="pandas", options=options).setup()
    assert not (tmp_path / "executed").exists()
    assert all(named_datasets._is_own_reader(name) for name in (*named_datasets.FORMATS, "pandas"))
    assert not named_datasets._is_own_reader("mnist")

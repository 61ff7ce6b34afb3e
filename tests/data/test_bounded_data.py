"""Data files must be regular files whose headers are true: no pipe, no archive that expands to terabytes."""

from __future__ import annotations

import gzip
import io
import os
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from short_runs import SHORT

from lrkit.base.available_memory import available_memory
from lrkit.base.errors import ConfigError
from lrkit.cli.main import main
from lrkit.data.arrays import Arrays
from lrkit.data.file_readers import read_cache, read_csv, read_npz, read_text
from lrkit.data.mnist_idx_files import Idx
from lrkit.data.tensor_conversion import images_and_labels
from lrkit.data.text import Text


def npz(file: Path, *, kind: int = zipfile.ZIP_STORED, shape: str | None = None, size: int = 10) -> None:
    """Arrays ``x`` and ``y``; the header of ``x`` may say another shape."""
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, array in (("x", np.zeros((size, 2))), ("y", np.arange(size) % 2)):
            made = io.BytesIO()
            np.save(made, array)
            held = made.getvalue()
            if shape is not None and name == "x":
                said = f"({size}, 2)"
                held = held.replace(said.encode() + b", }" + b" " * (len(shape) - len(said)), shape.encode() + b", }")
                assert shape.encode() in held
            archive.writestr(f"{name}.npy", held)


def test_arrays_that_are_there_are_read(tmp_path: Path) -> None:
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        npz(tmp_path / "a.npz", kind=kind)
        assert read_npz(tmp_path / "a.npz").parts["train"][0].shape == (10, 2)
    np.savez_compressed(tmp_path / "b.npz", x=np.array([["a", "b"]] * 4), y=np.zeros(4, dtype=[("a", "f4")])["a"])
    assert read_npz(tmp_path / "b.npz").parts["train"][0].tolist() == [["a", "b"]] * 4


@pytest.mark.parametrize("shape", ["(2000000000000, 2)", "( 9, 2)", "(11, 2)"])
def test_a_header_that_says_another_size_is_refused_before_it_is_believed(shape: str, tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", shape=shape)
    with pytest.raises(
        ConfigError, match=r"^data\.path must have complete arrays: x\.npy has \d+ bytes, its header says \d+"
    ):
        read_npz(tmp_path / "a.npz")
    assert read_cache(tmp_path / "a.npz") is None


def test_what_does_not_fit_into_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**26 < available_memory() < 2**50
    npz(tmp_path / "a.npz", kind=zipfile.ZIP_DEFLATED, size=10**6)
    assert (tmp_path / "a.npz").stat().st_size < 10**5
    (tmp_path / "a.csv").write_text("1,2\n" * 10)
    os.truncate(tmp_path / "a.csv", 2**42)
    monkeypatch.setattr("lrkit.base.available_memory.available_memory", lambda: 10**7)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match=r"data\.path must fit into memory: a\.npz needs 22\.89 MiB, and 9\.5"):
        read_npz(tmp_path / "a.npz")
    for read in (lambda: read_csv(tmp_path / "a.csv", None), lambda: read_text(tmp_path / "a.csv")):
        with pytest.raises(ConfigError, match=r"data\.path must fit into memory: a\.csv needs 4 TiB"):
            read()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5_000


def idx(file: Path, content: bytes) -> None:
    file.write_bytes(gzip.compress(content))


def test_what_is_gzipped_becomes_no_larger_than_it_says(tmp_path: Path) -> None:
    images, labels = tmp_path / "train-images-idx3-ubyte.gz", tmp_path / "train-labels-idx1-ubyte.gz"
    idx(labels, bytes([0, 0, 8, 1, 0, 0, 0, 2, 0, 1]))
    head = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in (2, 1, 1))
    idx(images, head + bytes(10**8))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        ConfigError, match=r"complete files: train-images-idx3-ubyte\.gz should have 18 bytes\. Received: 65554"
    ):
        Idx(2, path=str(tmp_path), val_samples=1).load()
    idx(images, head[:4] + b"\xff" * 12)
    with pytest.raises(ConfigError, match=r"must fit into memory: train-images-idx3-ubyte\.gz needs"):
        Idx(2, path=str(tmp_path), val_samples=1).load()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


def test_an_image_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image = pytest.importorskip("PIL.Image")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name, size in (("small", 10), ("large", 12), ("larger", 20)):
        Image.new("L", (size, size)).save(tmp_path / f"{name}.png")
    images, labels = images_and_labels([(Image.open(tmp_path / "small.png"), 3)] * 2, "data.root")
    assert images.shape == (2, 1, 10, 10) and labels.tolist() == [3, 3]
    for name in ("large", "larger"):
        opened = ((Image.open(tmp_path / file), 3) for file in ("small.png", f"{name}.png"))
        with pytest.raises(
            ConfigError, match=r"^data\.root must have images below Pillow's limit of pixels: Image size \(\d+ pixels"
        ):
            images_and_labels(opened, "data.root")


READERS: dict[str, Callable[[str], object]] = {
    "a.npz": lambda path: Arrays(2, path=path).load(),
    "a.csv": lambda path: Arrays(2, path=path).load(),
    "a.txt": lambda path: Text(2, path=path).load(),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "zero", "folder", "missing"])
def test_only_regular_files_are_read(name: str, kind: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "zero":
        file.symlink_to("/dev/zero")
    elif kind == "folder":
        file.mkdir()
    with pytest.raises(ConfigError, match=r"^data\.path must be .*"):
        READERS[name](str(file))


@pytest.mark.parametrize("path", ["resume.path=pipe", "resume.path=run", "data.path=pipe.csv", "--config-dir=configs"])
def test_a_command_does_not_wait_for_a_pipe(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    for name in ("pipe", "pipe.csv", "run/plan.json", "run/checkpoints/last.ckpt", "configs/experiment/mine.yaml"):
        os.mkfifo(tmp_path / name)
    words = {"data": ["data=arrays"], "--co": ["experiment=mine"]}.get(path[:4], [])
    assert main(["train", *SHORT, *words, path]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lrkit: ")

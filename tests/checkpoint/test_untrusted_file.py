"""A checkpoint needs no more memory than its file's size implies, or it is refused."""

from __future__ import annotations

import io
import os
import resource
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lrkit.base.zip_archives import list_members
from lrkit.checkpoint import untrusted_file
from lrkit.checkpoint.config_reader import read_config
from lrkit.checkpoint.durable_io import DurableIO, read_checkpoint
from lrkit.checkpoint.untrusted_file import UnsafeCheckpoint, find_damage, find_oversize, load_untrusted


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "a.ckpt"
    torch.save({"global_step": 7, "a": torch.zeros(1000), "b": torch.ones(3)}, place)
    return place


def remade(file: Path, kind: int, change: Callable[[str, bytes], bytes] = lambda name, held: held) -> None:
    with zipfile.ZipFile(file) as archive:
        parts = [(member.filename, archive.read(member)) for member in archive.infolist()]
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, held in parts:
            archive.writestr(name, change(name, held))


def compressed(file: Path) -> None:
    remade(file, zipfile.ZIP_DEFLATED)


def a_bomb(file: Path) -> None:
    remade(file, zipfile.ZIP_DEFLATED, lambda name, held: bytes(3 * 10**7) if name.endswith("data/0") else held)
    assert file.stat().st_size < 10**5


def twice(file: Path) -> None:
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a/data/0", b"x")


def entries(made: bytearray) -> list[int]:
    _, at = struct.unpack_from("<2L", made, len(made) - 10)
    found = []
    while made[at : at + 4] == b"PK\x01\x02":
        found.append(at)
        at += 46 + sum(struct.unpack_from("<3H", made, at + 28))
    return found


def laid_over(file: Path) -> None:
    """Two tensors of the same bytes: so a file of some megabytes has as many as it likes."""
    made = bytearray(file.read_bytes())
    one, other = (at for at in entries(made) if b"/data/" in made[at : at + 60])
    made[other + 16 : other + 28], made[other + 42 : other + 46] = made[one + 16 : one + 28], made[one + 42 : one + 46]
    file.write_bytes(made)


def longer(file: Path) -> None:
    """A member that says it goes beyond the file."""
    made = bytearray(file.read_bytes())
    last = entries(made)[-1]
    struct.pack_into("<2L", made, last + 20, 10**9, 10**9)
    file.write_bytes(made)


def encrypted(file: Path) -> None:
    made = bytearray(file.read_bytes())
    made[entries(made)[1] + 8] |= 1
    file.write_bytes(made)


def legacy(file: Path) -> None:
    torch.save({"a": torch.zeros(3)}, file, _use_new_zipfile_serialization=False)


def behind_something(file: Path) -> None:
    """``zipfile`` finds an archive at the end of anything; torch takes the file for one of its older formats."""
    file.write_bytes(b"\x80\x02" + file.read_bytes())


def a_long_pickle(file: Path) -> None:
    remade(file, zipfile.ZIP_STORED, lambda name, held: bytes(2 * 10**6) if name.endswith("data.pkl") else held)


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def without_end(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def a_terabyte(file: Path) -> None:
    os.truncate(file, 2**40)


WRONG: dict[Callable[[Path], None], str] = {
    compressed: "is compressed: ",
    a_bomb: "is compressed: ",
    twice: "two of its members have the same name",
    laid_over: "its members overlap",
    longer: "it is truncated",
    encrypted: "is encrypted",
    legacy: "it is truncated, or not a checkpoint",
    behind_something: "it is truncated, or not a checkpoint",
    a_long_pickle: "its data.pkl has 2000000 bytes",
    a_pipe: "it is not a regular file",
    without_end: "it is not a regular file",
    a_terabyte: "it is truncated, or not a checkpoint",
}


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change.__name__)
def test_what_is_not_as_torch_writes_it_is_not_read(
    change: Callable[[Path], None], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted_file, "PICKLE", 10**6)
    assert find_damage(file) == "" and read_checkpoint(file)[0]["global_step"] == 7
    change(file)
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert WRONG[change] in find_damage(file)
    assert read_checkpoint(file) == (None, find_damage(file))
    assert read_config(str(file)) is None
    with pytest.raises((UnsafeCheckpoint, OSError, zipfile.BadZipFile)):
        DurableIO(file).load_checkpoint(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 15_000  # KiB
    assert time.process_time() - begun < 5


def nested(levels: int) -> Any:
    node: Any = []
    for _ in range(levels):
        node = [node]
    return node


def shared(levels: int) -> Any:
    node: Any = [1]
    for _ in range(levels):
        node = [node, node]
    return node


def circle() -> Any:
    node: list[Any] = []
    node.append(node)
    return node


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ({"a": torch.zeros(1).expand(10**12)}, "its tensors expand to more than"),
        ({i: torch.zeros(1).expand(10**8) for i in range(9)}, "its tensors expand to more than"),
        ({"a": shared(60)}, "its containers expand to more than 10000000 values"),
        ({"a": nested(300)}, "it is nested deeper than 250"),
        ({"a": circle()}, "it has a container that contains itself"),
    ],
)
def test_what_stands_for_more_than_it_is(content: Any, wrong: str, tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    torch.save(content, file)
    assert file.stat().st_size < 50_000
    assert wrong in read_checkpoint(file)[1]
    with pytest.raises(UnsafeCheckpoint, match=r"^a\.ckpt: "):
        load_untrusted(file)


def test_what_is_honest_is_read(tmp_path: Path) -> None:
    weights = torch.rand(50, 3)
    content = {
        "tied": [weights, weights], "view": weights[:, 1], "expanded": torch.arange(9).expand(4, 9), "none": None,
        "sparse": torch.eye(3).to_sparse(), "empty": torch.zeros(0), "half": weights.bfloat16(), "deep": nested(100),
        "shared": shared(10), "many": [*range(10**5)],
    }  # fmt: skip
    file = tmp_path / "a.ckpt"
    torch.save(content, file)
    found, wrong = read_checkpoint(file)
    assert wrong == "" and torch.equal(found["tied"][0], weights) and found["shared"] == shared(10)
    assert found["tied"][0] is not None and find_oversize(content) == ""


def test_a_long_list_of_members_is_read_and_a_longer_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zipfile.ZIP_FILECOUNT_LIMIT", 10)  # so that this one ends as one of 65,536 members does
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for i in range(100):
            archive.writestr(f"a/data/{i}", b"x")
    assert b"PK\x06\x06" in made.getvalue() and len(list_members(made)) == 100
    monkeypatch.setattr("lrkit.base.zip_archives.MOST", 99)
    with pytest.raises(zipfile.BadZipFile, match="more than 99 members"):
        list_members(made)
    monkeypatch.setattr("lrkit.base.zip_archives._LARGEST_LIST", 1000)
    with pytest.raises(zipfile.BadZipFile, match="too long"):
        list_members(made)


def test_a_sparse_tensor_that_points_out_of_itself_is_refused(tmp_path: Path) -> None:
    """torch would read and write memory that is not the tensor's."""
    outside = torch.sparse_coo_tensor(torch.tensor([[10**9]]), torch.ones(1), (3,), check_invariants=False)
    file = tmp_path / "a.ckpt"
    torch.save({"weights": outside}, file)
    content, wrong = read_checkpoint(file)
    assert content is None and wrong.startswith("it cannot be read")

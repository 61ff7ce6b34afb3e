"""Damaged checkpoints: after any damage to the newest one, lrkit finds the one before it."""

from __future__ import annotations

import errno
import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from file_damages import DAMAGES, flip

from lrkit.base.errors import ConfigError, RunError
from lrkit.checkpoint import durable_io, saved_run
from lrkit.checkpoint.durable_io import DurableIO, find_damage, read_checkpoint
from lrkit.lightning.imports import PACKAGE, Trainer

AsyncCheckpointIO: Any = import_module(f"{PACKAGE}.plugins").AsyncCheckpointIO

CONTENT = {"global_step": 7, "weights": torch.arange(1000.0)}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_seen(name: str, tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    DurableIO(file).save_checkpoint(CONTENT, file)
    assert find_damage(file) == "" and torch.equal(read_checkpoint(file)[0]["weights"], CONTENT["weights"])
    DAMAGES[name](file)
    assert find_damage(file) and read_checkpoint(file) == (None, find_damage(file))


def test_every_flipped_bit_of_the_weights_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    DurableIO(file).save_checkpoint({"weights": torch.arange(64.0)}, file)
    data = file.read_bytes()
    begin = data.index(torch.arange(64.0).numpy().tobytes())
    for at in range(begin, begin + 256, 7):
        file.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
        assert "checksum" in find_damage(file)


def test_the_one_before_is_kept_and_a_damaged_one_does_not_take_its_place(tmp_path: Path) -> None:
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    io = DurableIO(last)
    for step in (1, 2, 3):
        io.save_checkpoint({"global_step": step}, last)
    assert [read_checkpoint(file)[0]["global_step"] for file in (last, previous)] == [3, 2]
    flip(last)
    other = DurableIO(last)  # a new process, which resumes from the good checkpoint
    other.load_checkpoint(previous)
    other.save_checkpoint({"global_step": 4}, last)
    assert [read_checkpoint(file)[0]["global_step"] for file in (last, previous)] == [4, 2]
    other.save_checkpoint({"global_step": 5}, last)
    assert [read_checkpoint(file)[0]["global_step"] for file in (last, previous)] == [5, 4]
    assert {file.name for file in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_without_hard_links_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr("os.link", refused)
    test_the_one_before_is_kept_and_a_damaged_one_does_not_take_its_place(tmp_path)


@pytest.mark.parametrize("call", ["os.fsync", "torch.save", "os.replace"])
def test_what_cannot_be_written_leaves_all_as_it_was(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = tmp_path / "last.ckpt"
    io = DurableIO(last)
    io.save_checkpoint({"global_step": 7}, last)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(call, full)
    with pytest.raises(RunError, match=r"last\.ckpt cannot be written \(No space left on device\); .* step 7$"):
        io.save_checkpoint({"global_step": 8}, last)
    monkeypatch.undo()
    assert read_checkpoint(last)[0]["global_step"] == 7 and not [*tmp_path.glob("*.new")]


def test_what_is_no_fault_of_the_disk_is_raised_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="local object"):
        DurableIO(tmp_path / "last.ckpt").save_checkpoint({"f": lambda: None}, tmp_path / "last.ckpt")
    assert not [*tmp_path.iterdir()]


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    file = tmp_path / "evil.ckpt"
    torch.save({"evil": Evil()}, file)
    assert read_checkpoint(file)[0] is None
    with pytest.raises(Exception, match="weights_only"):
        DurableIO(file).load_checkpoint(file, weights_only=False)
    assert not (tmp_path / "executed").exists()


def test_a_users_own_way_of_saving_wins(tmp_path: Path) -> None:
    theirs = AsyncCheckpointIO()
    trainer = Trainer(plugins=[theirs], logger=False, accelerator="cpu")
    durable_io.install_durable_io(trainer, tmp_path / "last.ckpt")
    assert trainer.strategy.checkpoint_io is theirs
    trainer = Trainer(logger=False, accelerator="cpu")
    durable_io.install_durable_io(trainer, tmp_path / "last.ckpt")
    assert isinstance(trainer.strategy.checkpoint_io, DurableIO)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lrkit.config.compose import compose
    from lrkit.training.run import run_training

    folder = tmp_path_factory.mktemp("whole")
    run_training(compose(words()), folder, quiet=True)
    (folder / "metrics.json").unlink()
    return folder


def words(*more: str) -> list[str]:
    return ["trainer.max_epochs=3", "trainer.limit_train_batches=4", "trainer.limit_val_batches=1", "logger=none",
            "model.hidden=[8]", *more]  # fmt: skip


@pytest.mark.parametrize("named", ["", "checkpoints/last.ckpt"])
@pytest.mark.parametrize("name", DAMAGES)
def test_the_one_before_is_taken(name: str, named: str, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    DAMAGES[name](folder / "checkpoints" / "last.ckpt")
    saved = saved_run.load_saved_run(str(folder / named))
    assert saved.path.name == "previous.ckpt" and saved.step == 8
    assert saved.skipped.startswith("last.ckpt: it is ") or "checksum" in saved.skipped
    assert saved.skipped.endswith("; resuming from previous.ckpt, step 8")


def test_it_is_told_and_the_run_is_the_same(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lrkit.config.compose import compose
    from lrkit.training.run import run_training

    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    flip(folder / "checkpoints" / "last.ckpt")
    (folder / "checkpoints" / ".best.ckpt.0123abcd.new").write_text("half of")
    run_training(compose(words(f"resume.path='{folder}'")), folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lrkit: damaged checkpoint skipped: last.ckpt: the checksum of ")
    (entry,) = json.loads((folder / "events.json").read_text())
    assert (entry["step"], entry["event"]) == (8, "checkpoint") and "last.ckpt" in entry["why"]
    before, after = (read_checkpoint(f / "checkpoints" / "last.ckpt")[0]["state_dict"] for f in (whole, folder))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not [*folder.rglob("*.new")]


def test_both_damaged_is_refused(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    flip(folder / "checkpoints" / "last.ckpt")
    (folder / "checkpoints" / "previous.ckpt").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be read .* \(last.*; previous\.ckpt: it is empty\)"):
        saved_run.load_saved_run(str(folder))


def test_of_another_checkpoint_none_takes_the_place(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    flip(folder / "checkpoints" / "best.ckpt")
    with pytest.raises(ConfigError, match=r"cannot be read as a checkpoint \(best\.ckpt: the checksum"):
        saved_run.load_saved_run(str(folder / "checkpoints" / "best.ckpt"))

"""lrkit never writes through a link in a folder of runs, and deletes only its own files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
from short_runs import SHORT

from lrkit.base.errors import ConfigError
from lrkit.base.symbolic_links import check_links, find_outside_links
from lrkit.checkpoint import durable_io
from lrkit.checkpoint.durable_io import DurableIO, FixedNameCheckpoint, read_checkpoint
from lrkit.cli.main import main


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A folder of the user's with a file in it, the target of links."""
    file = tmp_path / "home" / "precious"
    file.parent.mkdir()
    file.write_text("mine")
    return file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs, whose second epoch a resume repeats."""
    folder = tmp_path_factory.mktemp("whole")
    with chdir(folder):
        assert main(["train", *SHORT[1:], "trainer.max_epochs=2", "model.hidden=[2]", "hydra.run.dir=run"]) == 0
    (folder / "run/metrics.json").unlink()
    os.replace(folder / "run/checkpoints/previous.ckpt", folder / "run/checkpoints/last.ckpt")
    return folder / "run"


@pytest.mark.parametrize("name", ["last.ckpt", "previous.ckpt", "last.ckpt.new", "previous.ckpt.new"])
def test_a_checkpoint_takes_the_place_of_a_link(name: str, precious: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / name).symlink_to(precious)
    io = DurableIO(folder / "last.ckpt")
    for step in (1, 2):
        io.save_checkpoint({"global_step": step}, folder / "last.ckpt")
    assert precious.read_text() == "mine"
    assert [read_checkpoint(folder / each)[0]["global_step"] for each in ("last.ckpt", "previous.ckpt")] == [2, 1]
    assert (folder / name).is_symlink() == name.endswith(".new")  # no file of lrkit has this name
    assert {each.name for each in folder.iterdir()} == {"last.ckpt", "previous.ckpt", name}


def test_only_what_lrkit_left_half_written_is_removed(precious: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    kept = ["notes.new", "last.ckpt.new", ".a.ckpt.0123abc.new", ".a.txt.0123abcd.new", "last.ckpt"]
    for name in [*kept, ".last.ckpt.0123abcd.new", ".best.ckpt.ffffffff.new"]:
        (folder / name).write_text("x")
    (folder / ".best.ckpt.00000000.new").symlink_to(precious)
    (folder / ".best.ckpt.00000001.new").mkdir()
    durable_io.remove_leftovers(folder)
    there = {*kept, ".best.ckpt.00000000.new", ".best.ckpt.00000001.new"}
    assert {each.name for each in folder.iterdir()} == there and precious.read_text() == "mine"


def test_a_folder_that_is_a_link_out_of_the_run_is_refused(
    whole: Path, precious: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.move(run / "checkpoints", precious.parent / "theirs")
    (run / "checkpoints").symlink_to(precious.parent / "theirs")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with chdir(tmp_path):
        assert main(["train", f"resume.path={run}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lrkit: resume.path must not contain a link to a target outside")
    assert f"{run}/checkpoints leads to {precious.parent}/theirs; " in line
    run_itself = before.pop(run)  # the lock file changed its time
    assert {path: path.stat().st_mtime_ns for path in before} == before and run_itself


@pytest.mark.parametrize("name", ["hparams.yaml", "find", "job.log", ".hydra/config.yaml", "metrics.csv"])
@pytest.mark.parametrize("there", [True, False])
def test_so_is_a_file_that_others_would_write_through(name: str, there: bool, precious: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    (tmp_path / "run" / name).symlink_to(precious if there else precious.with_name("nothing"))
    with pytest.raises(ConfigError, match=rf"hydra\.run\.dir must not contain a link .*{name} leads to .*home"):
        check_links(tmp_path / "run", "hydra.run.dir")
    with chdir(tmp_path):
        assert main(["train", "hydra.run.dir=run"]) == 2
    assert [*precious.parent.iterdir()] == [precious]


def test_so_is_a_pipe_for_which_a_logger_would_wait(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    for name in ("plan.json", "checkpoints/best.ckpt"):  # lrkit replaces these
        (tmp_path / "run" / name).unlink()
        os.mkfifo(tmp_path / "run" / name)
    check_links(tmp_path / "run", "resume.path")
    os.mkfifo(tmp_path / "run" / "hparams.yaml")
    with pytest.raises(
        ConfigError, match=r"resume\.path must contain only files and folders, and .*/hparams\.yaml is nei"
    ):
        check_links(tmp_path / "run", "resume.path")


def test_the_folder_of_a_job_that_is_a_link_is_refused(
    precious: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "0_seed=1").symlink_to(precious.parent)
    with chdir(tmp_path):
        assert main(["train", "-m", "seed=1,2", "hydra.sweep.dir=sweep"]) == 2
    assert "hydra.sweep.dir must not contain a link" in capsys.readouterr().err
    assert [*precious.parent.iterdir()] == [precious]


def test_links_that_stay_inside_and_folders_of_the_users_that_are_links_are_let_be(whole: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    shutil.copytree(whole, scratch / "run")
    (scratch / "run" / "newest").symlink_to("checkpoints")
    (scratch / "run" / "itself").symlink_to("itself")
    (tmp_path / "outputs").symlink_to(scratch)
    (tmp_path / "mine").symlink_to(scratch / "run")
    assert not [*find_outside_links(tmp_path / "mine")]
    with chdir(tmp_path):
        assert main(["train", "resume.path=mine"]) == 0  # the run's folder is a link
        assert main(["train", *SHORT, "model.hidden=[2]"]) == 0  # so is the folder of all results
    assert read_checkpoint(scratch / "run" / "checkpoints" / "last.ckpt")[0]["global_step"] == 12
    assert len([*(scratch / "runs").iterdir()]) == 1


@pytest.mark.parametrize(
    "path",
    [
        lambda home: str(home),
        lambda home: f"{home.parent}/run/checkpoints/../../home/precious",
        lambda home: "memory://a",
    ],
)
def test_what_a_checkpoint_names_as_its_forerunner_is_not_removed(
    path: Callable[[Path], str], precious: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    kept: Any = FixedNameCheckpoint(dirpath=folder, filename="best", monitor="val/loss", enable_version_counter=False)
    named, score = path(precious.parent), torch.tensor(1.0)
    kept.load_state_dict({
        "dirpath": str(folder), "best_model_path": named, "kth_best_model_path": named, "last_model_path": named,
        "best_k_models": {named: score}, "best_model_score": score, "kth_value": score,
    })  # fmt: skip
    own = str(folder / "best.ckpt")
    assert (kept.best_model_path, kept.kth_best_model_path, kept.last_model_path) == (own, own, "")
    assert kept.best_k_models == {own: score}
    DurableIO(folder / "last.ckpt").remove_checkpoint(precious.parent)
    assert precious.read_text() == "mine"

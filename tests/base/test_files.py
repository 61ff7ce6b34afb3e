"""Atomic files: a result is written completely or not at all, and never through a link."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from lrkit.base.errors import RunError
from lrkit.base.files import open_to_append, read_json, write_figure, write_file, write_json
from lrkit.cli.main import main

LRKIT = Path(__file__).parents[2] / "lrkit"


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file of the user's, the target of a link in a folder of results."""
    file = tmp_path / "precious"
    file.write_text("mine")
    return file


@pytest.mark.parametrize(
    "write",
    [
        lambda file: write_file(file, "new"),
        lambda file: write_json(file, {"a": 1}),
        lambda file: write_figure(file, Figure(figsize=(1, 1))),
    ],
)
def test_a_link_is_replaced_and_what_it_leads_to_is_left(
    write: Callable[[Path], None], precious: Path, tmp_path: Path
) -> None:
    file = tmp_path / "results" / "a.png"
    file.parent.mkdir()
    file.symlink_to(precious)
    write(file)
    assert precious.read_text() == "mine"
    assert file.is_file() and not file.is_symlink()
    assert [each.name for each in file.parent.iterdir()] == ["a.png"]


def test_a_file_is_not_appended_to_through_a_link(precious: Path, tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    log.symlink_to(precious)
    with pytest.raises(RunError, match=r"job\.log cannot be written \("):
        open_to_append(log)
    log.unlink()
    for word in ("one\n", "two\n"):
        with open_to_append(log) as stream:
            stream.write(word)
    assert (log.read_text(), precious.read_text()) == ("one\ntwo\n", "mine")


def test_what_cannot_be_written_is_told_and_what_was_there_stays(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    write_json(file, {"a": 1})
    file.with_name("folder").mkdir()
    with pytest.raises(RunError, match=r"folder cannot be written \(Is a directory\)"):
        write_file(tmp_path / "folder", "text")
    assert read_json(file) == {"a": 1}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", "metrics.json"]


def test_permissions_are_those_that_the_user_gives_to_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["results.csv", "results.md", "compare.html", "compare.png"])
def test_compare_writes_through_no_link(name: str, precious: Path, tmp_path: Path, train: Callable[..., Any]) -> None:
    run = train("logger=tensorboard", "trainer.limit_train_batches=2")
    (run.folder / name).symlink_to(precious)
    assert main(["compare", str(run.folder), f"out={run.folder}"]) == 0
    assert precious.read_text() == "mine"
    assert not (run.folder / name).is_symlink()


#: Where something is opened for writing that is no result: the null device, the cache, a file for one's own processes.
ELSEWHERE = {
    "base/files.py": {"open", "fdopen"},
    "base/process_pool.py": {"write_bytes"},
    "data/file_readers.py": {"NamedTemporaryFile"},
    "base/run_lock.py": {"open"},
    "checkpoint/durable_io.py": {"fdopen"},
    "base/standard_streams.py": {"open", "fdopen"},
}


def writes(name: str) -> set[str]:
    """Return the calls in a module of lrkit that open a file for writing."""
    found = set()
    for node in ast.walk(ast.parse((LRKIT / name).read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        said = [arg.value for arg in [*node.args, *(k.value for k in node.keywords)] if isinstance(arg, ast.Constant)]
        mode = next((word for word in said if isinstance(word, str) and word and set(word) <= set("rwaxbt+")), "r")
        flags = " ".join(ast.unparse(arg) for arg in node.args)
        opened = called in ("open", "fdopen") and (set(mode) & set("wax+") or "O_WRONLY" in flags or "O_RDWR" in flags)
        if opened or called in ("write_text", "write_bytes", "savefig", "NamedTemporaryFile", "mkstemp", "touch"):
            found.add(called)
    return found - {"savefig"} if name == "base/files.py" else found


@pytest.mark.parametrize("name", sorted(str(path.relative_to(LRKIT)) for path in LRKIT.rglob("*.py")))
def test_no_other_file_opens_a_result_for_writing(name: str) -> None:
    assert writes(name) <= ELSEWHERE.get(name, set())

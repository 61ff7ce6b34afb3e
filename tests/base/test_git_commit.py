"""The git commit of a folder, where there is one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lrkit.base import git_commit
from lrkit.base.git_commit import read_commit

NAMED = ["-c", "user.name=a", "-c", "user.email=a@b"]


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *NAMED, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    assert read_commit(tmp_path) is None  # no repository
    git(tmp_path, "init", "-q", "-b", "work")
    assert read_commit(tmp_path) is None  # no commit
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "untracked").write_text("1")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert read_commit(tmp_path / "below") == {"commit": commit, "branch": "work", "dirty": False}
    (tmp_path / "code.py").write_text("2")
    assert read_commit(tmp_path) == {"commit": commit, "branch": "work", "dirty": True}


@pytest.mark.parametrize("script", [None, "exec sleep 60", "exit 128", "echo '# branch.oid'; exit 0"])
def test_without_an_answer_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None) -> None:
    if script is not None:
        (tmp_path / "git").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if script else str(tmp_path))
    monkeypatch.setattr(git_commit, "_SECONDS", 0.3)
    assert read_commit(tmp_path) is None


def test_no_program_of_the_repository_is_started(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    (tmp_path / "hook").write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\n")
    (tmp_path / "hook").chmod(0o755)
    git(tmp_path, "config", "core.fsmonitor", str(tmp_path / "hook"))
    assert read_commit(tmp_path) is not None
    assert not (tmp_path / "executed").exists()

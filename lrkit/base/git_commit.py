"""The git commit of a folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["read_commit"]

_SECONDS = 3.0  #: for each command of git: a run must not wait for a slow file system


def read_commit(folder: Path) -> dict[str, Any] | None:
    """Return the commit that is checked out around a folder, and whether tracked files differ from it.

    Returns:
        ``commit``, and ``dirty``: None if git did not answer in time. None if there is no commit, or no git.
    """
    commit = _ask_git(folder, "rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    changed = _ask_git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changed is None else changed != ""}


def _ask_git(folder: Path, *words: str) -> str | None:
    """Return the answer of a git command that writes nothing and runs no program of the repository's settings."""
    command = ["git", "-c", "core.fsmonitor=false", *words]
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **quiet}, capture_output=True, timeout=_SECONDS,
            stdin=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()

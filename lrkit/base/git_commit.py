"""The git commit of a folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["read_commit"]

_SECONDS = 3.0  #: that git may take: a run must not wait for a slow file system
#: Asks for the commit and the changed files; writes nothing, and starts no program that the repository's settings name.
_COMMAND = (
    "git", "--no-optional-locks", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch",
    "--untracked-files=no",
)  # fmt: skip


def read_commit(folder: Path) -> dict[str, Any] | None:
    """Return the commit that is checked out around a folder, and whether tracked files differ from it.

    Returns:
        ``commit``, ``branch`` and ``dirty``; None if there is no commit or no git, or if git does not answer in time.
    """
    try:
        done = subprocess.run(
            _COMMAND, cwd=folder, env={**os.environ, "LC_ALL": "C"}, capture_output=True, timeout=_SECONDS,
            stdin=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.decode(errors="replace").splitlines()
    pairs = [line.removeprefix("# branch.").partition(" ") for line in lines if line.startswith("# branch.")]
    head = {name: value for name, _, value in pairs}
    commit = head.get("oid", "")
    if not commit.isalnum():  # "(initial)": a repository without a commit
        return None
    return {"commit": commit, "branch": head.get("head"), "dirty": any(not line.startswith("#") for line in lines)}

"""Paths of the repository, and an environment for processes that import lrkit and these helpers."""

from __future__ import annotations

import os
from pathlib import Path

HELPERS = Path(__file__).parent
TESTS = HELPERS.parent
ROOT = TESTS.parent
CONF = ROOT / "conf"


def python_path(*first: Path | str) -> str:
    """A PYTHONPATH with ``first``, these helpers, and the repository."""
    return os.pathsep.join(map(str, (*first, HELPERS, ROOT)))


def environment(*first: Path | str, **more: str) -> dict[str, str]:
    """The environment of a process on one thread that finds ``first``, these helpers and lrkit."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path(*first), **more}

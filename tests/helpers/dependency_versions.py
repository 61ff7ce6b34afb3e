"""Constraints for pip: the oldest versions that pyproject.toml accepts, or none for the newest.

    python tests/helpers/dependency_versions.py oldest > oldest.txt
    pip install -c oldest.txt '.[dev]'

`make versions` runs the tests on both. ``torch==2.13.0`` after the first word sets the version of one package.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

__all__ = ["constraints"]

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
#: The extras with packages that the quick suite imports; the tools of the tests are the newest in any case.
EXTRAS = ("optim", "plot", "mnist1d", "dev")
TOOLS = (
    "build",
    "hypothesis",
    "lrkit",
    "mypy",
    "pyte",
    "pytest",
    "pytorch-ignite",
    "ruff",
    "setuptools",
    "transformers",
)


def constraints(which: str, chosen: Sequence[str] = ()) -> list[str]:
    """Return the lines of a constraints file.

    >>> [line for line in constraints("oldest") if line.startswith("torch")]
    ['torch==2.8']
    >>> constraints("newest", ["torch==2.13.0"])
    ['torch==2.13.0']
    """
    project = tomllib.loads(PROJECT.read_text())["project"]
    names = [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]
    found = [re.match(r"([\w-]+)>=([\w.]+)", name) for name in names if not name.startswith(TOOLS)]
    versions = {match[1]: match[2] for match in found if match} if which == "oldest" else {}
    versions |= dict(each.split("==") for each in chosen)
    return [f"{name}=={version}" for name, version in versions.items()]


if __name__ == "__main__":
    print("\n".join(constraints(sys.argv[1], sys.argv[2:])))

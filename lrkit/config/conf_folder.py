"""The folder of the options that lrkit ships."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CONF_DIR", "SHARED"]

_HERE = Path(__file__).resolve().parents[1]
SHARED = "_shared"  #: the folder of the files that the options of a group include by their defaults lists
CONF_DIR = next(d for d in (_HERE / "conf", _HERE.parent / "conf") if d.is_dir())

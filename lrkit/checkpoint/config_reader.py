"""The config that a checkpoint carries in its plan; read without Lightning, for it is asked before that is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrkit.base.files import parse_json
from lrkit.checkpoint.untrusted_file import load

__all__ = ["read_config"]


def read_config(path: str) -> dict[str, Any] | None:
    """The config of the run that wrote the checkpoint ``path``; None where none can be read. Nothing is executed."""
    try:
        content = load(Path(path), mmap=True)
        config = parse_json(content["lrkit"]["plan"])["config"]
    except Exception:  # from a damaged file; the reason is reported when the run is resumed
        return None
    return config if isinstance(config, dict) else None

"""Reads the config in a checkpoint's plan, without Lightning: lrkit reads it before it chooses Lightning's package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrkit.base.files import parse_json
from lrkit.checkpoint.untrusted_file import load_untrusted

__all__ = ["read_config"]


def read_config(path: str) -> dict[str, Any] | None:
    """Return the config of the run that wrote the checkpoint ``path``; None if it cannot be read. Executes no code."""
    try:
        content = load_untrusted(Path(path), mmap=True)
        config = parse_json(content["lrkit"]["plan"])["config"]
    except Exception:  # the file is damaged; the resume reports the reason
        return None
    return config if isinstance(config, dict) else None

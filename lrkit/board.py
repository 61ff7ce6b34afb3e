"""TensorBoard on what runs have logged, with the arguments that long and resumed runs need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lrkit.errors import ConfigError, did_you_mean

__all__ = ["command", "start"]


def command(argv: Sequence[str]) -> list[str]:
    """TensorBoard's command line for ``PATH [port=6006]``: for this machine alone, all files of a resumed run read.

    Raises:
        ConfigError: a path without event files, or a port that is none.
    """
    paths = [word for word in argv if not word.startswith("port=")]
    ports = [word.partition("=")[2] for word in argv if word.startswith("port=")]
    if len(paths) != 1:
        raise ConfigError("lrkit board", "needs one folder: lrkit board outputs", " ".join(argv))
    path, port = Path(paths[0]), (ports or ["6006"])[-1]
    key, equals, _ = paths[0].partition("=")
    if equals and key.isidentifier() and not path.exists():
        raise ConfigError(key, f"is not a key. {did_you_mean(key, ['port'])}")
    if not path.is_dir():
        raise ConfigError(str(path), "must be a folder that exists")
    if not port.isdigit() or not 0 <= int(port) < 2**16:
        raise ConfigError("port", "must be a whole number in [0, 65535]; 0 takes one that is free", port)
    if next(path.rglob("*tfevents*"), None) is None:
        raise ConfigError(str(path), "has no event files in it, at no depth")
    # Without reload_multifile, what a resumed run writes into a second file is not seen until a restart.
    options = ["--logdir", str(path), "--host", "127.0.0.1", "--port", port, "--reload_multifile", "true"]
    return [sys.executable, "-m", "tensorboard.main", *options]


def start(argv: Sequence[str]) -> int:
    """Start TensorBoard, and wait until it ends."""
    return subprocess.call(command(argv))

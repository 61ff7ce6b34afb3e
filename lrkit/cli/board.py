"""``lrkit board``: TensorBoard on a folder of runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lrkit.base.errors import ConfigError, did_you_mean

__all__ = ["run_board", "tensorboard_command"]


def run_board(argv: Sequence[str]) -> int:
    """Start TensorBoard, wait until it ends, and return its exit code."""
    return subprocess.call(tensorboard_command(argv))


def tensorboard_command(argv: Sequence[str]) -> list[str]:
    """Return TensorBoard's command line for ``PATH [port=6006]``, reachable only from this machine.

    Raises:
        ConfigError: a path without event files, or an invalid port.
    """
    for word in argv:
        if word.partition("=")[0] in ("--port", "-p"):
            raise ConfigError("port", "must be written without dashes: port=6006", word)
        if word.startswith(("-", "host=")):  # TensorBoard shows all logs to each client of its port
            raise ConfigError(word.partition("=")[0], "is refused: lrkit board serves only this machine")
    paths = [word for word in argv if not word.startswith("port=")]
    ports = [word.partition("=")[2] for word in argv if word.startswith("port=")]
    if len(paths) != 1:
        raise ConfigError("lrkit board", "needs one folder: lrkit board outputs", " ".join(argv))
    path, port = Path(paths[0]), (ports or ["6006"])[-1]
    key, equals, _ = paths[0].partition("=")
    if equals and key.isidentifier() and not os.path.exists(path):
        raise ConfigError(key, f"is not a key. {did_you_mean(key, ['port'])}")
    if not os.path.isdir(path):  # also for an invalid path: too long, or with a null character
        raise ConfigError(str(path), "must be an existing folder")
    if not port.isdigit() or not 0 <= int(port) < 2**16:
        raise ConfigError("port", "must be a whole number in [0, 65535]; 0 takes a free port", port)
    if next(path.rglob("*tfevents*"), None) is None:
        raise ConfigError(str(path), "contains no TensorBoard event files (searched recursively)")
    # Without reload_multifile, TensorBoard does not read the second file of a resumed run until a restart.
    options = ["--logdir", str(path), "--host", "127.0.0.1", "--port", port, "--reload_multifile", "true"]
    # -P: else a file of the current folder, such as numpy.py, would be imported in place of the library.
    return [sys.executable, "-P", "-m", "tensorboard.main", *options]

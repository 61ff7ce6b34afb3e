"""Runs command lines one after another in a separate process, so that slow imports happen once."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from locations import python_path

SCRIPT = """
import contextlib, io, sys, torch
from lrkit.cli.main import main
torch.set_num_threads(1)
for line in sys.stdin.read().splitlines():
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(line.split())
    print(code, repr(said.getvalue()), flush=True)
"""


def commands(folder: Path, *lines: str, **environment: str) -> list[tuple[int, str]]:
    """Return exit code and output of ``lrkit`` for each line, whose words are separated by spaces."""
    paths = os.pathsep.join((python_path(), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT], input="\n".join(lines), cwd=folder, text=True, timeout=300,
        capture_output=True, env={**os.environ, "PYTHONPATH": paths, **environment},
    )  # fmt: skip
    answers = [line.partition(" ") for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert done.returncode == 0 and len(answers) == len(lines), done.stderr[-2000:]
    return [(int(code), ast.literal_eval(said)) for code, _, said in answers]

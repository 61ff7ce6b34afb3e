"""The tutorials are true: each block is run as a reader would run it, and prints what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documented_commands import Command, File, check_overrides, is_shown_output, read_blocks

TUTORIALS = sorted((Path(__file__).parents[1] / "docs" / "tutorials").glob("*.md"))


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_each_command_is_accepted(page: Path) -> None:
    """The quick half: what a tutorial types is composed and checked, and nothing is trained."""
    commands = [step.line for step in read_blocks(page.read_text()) if isinstance(step, Command)]
    accepted = [
        line
        for line in commands
        if line.startswith(("lrkit show", "lrkit train")) and not re.search(r"\|\|| -m ", line)
    ]

    for line in accepted:
        check_overrides(line)


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_it_prints_what_is_shown(page: Path, tmp_path: Path) -> None:
    """In an empty folder, with the installed command. What `lrkit show` prints must be exact."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    here = {**os.environ, "PATH": path, "COLUMNS": "120", "PYTHONWARNINGS": "ignore"}
    for step in read_blocks(page.read_text()):
        if isinstance(step, File):
            (tmp_path / step.name).write_text(step.text)
            continue
        argv = ["bash", "-c", step.line] if isinstance(step, Command) else [sys.executable, "-c", step.text]
        done = subprocess.run(
            argv, cwd=tmp_path, env=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
        )
        assert done.returncode == 0, f"{argv[-1]}\n{done.stdout}"
        if isinstance(step, Command):
            received = done.stdout.rstrip("\n").split("\n") if done.stdout.strip() else []
            exact = step.line.startswith("lrkit show")
            shown = "\n".join(step.output)
            assert is_shown_output(step.output, received, exact=exact), (
                f"$ {step.line}\n{done.stdout}\n\nshown:\n{shown}"
            )

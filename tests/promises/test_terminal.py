"""Every command in a pseudo-terminal of three widths: no line is longer than the width, none is broken inside a word.

``pyte`` is the terminal: it draws what the command writes, cursor movements and all. Where a line is too long, a
terminal breaks it in its last column; ``Watched`` keeps such lines.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from typing import Any

import pytest
from locations import python_path

from lrkit.cli.commands import COMMANDS

pyte = pytest.importorskip("pyte", reason="needs lrkit[dev]")

SCRIPT = """
import shlex, sys, torch, warnings
warnings.simplefilter("ignore")
from lrkit.cli.main import main
torch.set_num_threads(1)
for line in sys.argv[1:]:
    print("=" * 12, flush=True)
    main(shlex.split(line))
"""
TRACKS = "optimizers={generator: {every: 5}, discriminator: {optimizer: {lr: 1e-4}}}"
RULE = "param_groups.rules=[{name: head, pattern: '^head', lr_scale: 10, schedule: {name: linear, end: 0.1}}]"
SHORT = "trainer.limit_train_batches=5 logger=none"
LINES: tuple[str, ...] = (
    f'show schedule=step warmup=linear param_groups=layerwise "{RULE}" horizon.stop_after=40% guard=reduce',
    f"show data.train_samples=640 data.batch_size=64 optimizer=adam '{TRACKS}'",
    "show -m schedule=cosine,linear horizon.steps=100",
    f"train +experiment=demo horizon.stop_after=12 trainer.max_epochs=40 {SHORT} hydra.run.dir=run",
    "train schedule=cosin optimizer.lr=-1",
    "train optimizer.momentun=0.9",
    f"train -m schedule=cosine,linear optimizer.lr=0.01,0.1 trainer.max_epochs=30 {SHORT} hydra.sweep.dir=sweep",
    "compare sweep",
    "compare nothing",
    f"find find.steps=20 find.repeats=1 trainer.max_epochs=2 {SHORT}",
    "--help",
    "help schedule.one_cycle",
    *(f"{command} --help" for command in ("show", "train", "find", "compare", "board")),
)
#: Commands that came later run by their names alone; the output of `completion` is for a shell.
LINES += tuple(command for command in COMMANDS if not any(command in line.split()[:1] for line in LINES))
LINES = tuple(line for line in LINES if line != "completion")
#: Words that only a terminal shows, in a progress bar or a live table.
LIVE = {"epoch", "steps", "steps/s", "left", "validating", "best", "after", "step", "job", "running", "state", "starts",
        "time", "val/loss", "s", "a"}  # fmt: skip


class Watched(pyte.HistoryScreen):  # type: ignore[misc, name-defined]
    """A screen that keeps the lines that it had to break."""

    def __init__(self, columns: int) -> None:
        super().__init__(columns, 60, history=5000, ratio=0.5)
        self.broken: list[str] = []

    def draw(self, data: str) -> None:
        for character in data:
            if self.cursor.x == self.columns:
                self.broken.append(self.display[self.cursor.y] + character)
            super().draw(character)

    def shown(self) -> list[str]:
        """The lines that went off the screen at its top, and those on it."""
        above = ["".join(row[x].data for x in range(self.columns)) for row in self.history.top]
        return [line.rstrip() for line in [*above, *self.display]]


def run_on_terminal(folder: Path, columns: int) -> Iterator[Watched]:
    """Run all commands in a terminal; yields its screen after each piece of output."""
    near, far = os.openpty()
    ioctl(near, TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
    screen = Watched(columns)
    stream = pyte.ByteStream(screen)
    environment = {**os.environ, "PYTHONPATH": python_path(), "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-c", SCRIPT, *LINES]
    with subprocess.Popen(command, cwd=folder, stdin=far, stdout=far, stderr=far, env=environment) as process:
        os.close(far)
        while True:
            try:
                data = os.read(near, 65536)
            except OSError:  # the last process has closed the terminal
                break
            stream.feed(data)
            yield screen
        os.close(near)
    assert process.returncode == 0


def words_of(lines: list[str]) -> set[str]:
    """Words without digits, which differ between runs, and without the signs of a bar or a sketch."""
    return {word for line in lines for word in line.split() if not re.search(r"[\d▁-█┊━╌\\]", word)}


def test_a_broken_line_is_seen() -> None:
    screen = Watched(20)
    pyte.Stream(screen).feed("\x1b[1m" + "x" * 20 + "\x1b[0m\r\nshort\r\n")
    assert screen.broken == [] and screen.shown()[:2] == ["x" * 20, "short"]
    pyte.Stream(screen).feed("y" * 21)
    assert screen.broken == ["y" * 21]


@pytest.fixture(scope="module")
def in_a_pipe(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The words that the same commands print in a pipe, where no line is broken."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *LINES], cwd=tmp_path_factory.mktemp("pipe"), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONPATH": python_path(), "COLUMNS": "40"},
        timeout=900,
    )  # fmt: skip
    assert done.returncode == 0 and "\x1b" not in done.stdout, done.stdout
    return words_of(done.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 120, 200])
def test_no_line_is_broken_inside_a_word(columns: int, in_a_pipe: set[str], tmp_path: Path) -> None:
    words: set[str] = set()
    seen: list[str] = []
    screen: Any = None
    for screen in run_on_terminal(tmp_path, columns):
        words |= words_of(screen.display)  # also of what a bar or a table showed for a moment
        seen.append("\n".join(screen.display))
    assert screen is not None and screen.broken == []
    final = screen.shown()
    assert final.count("=" * 12) == len(LINES)
    assert words_of(final) - in_a_pipe - LIVE == set()
    history = "\n".join(seen)
    assert "steps/s" in history and "best val/loss" in history  # the bar of a run
    assert re.search(r"^job +running +state", history, re.MULTILINE)  # the table of a sweep
    assert not any(line.startswith(("epoch 1/40 ╌", "job  running")) for line in final)  # both are gone at the end
    for widest in (line for line in final if "┊" in line):
        assert len(widest) <= columns

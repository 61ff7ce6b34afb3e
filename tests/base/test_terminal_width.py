"""Lines and tables in the width of a terminal: broken between words only, never longer than the width."""

from __future__ import annotations

import io
import os
import pty
import re
import shlex
import struct
from collections.abc import Iterator
from fcntl import ioctl
from itertools import pairwise
from termios import TIOCSWINSZ
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrkit.base.terminal_width import find_width, measure_text, print_line, wrap_command, wrap_text
from lrkit.base.text_table import format_table

WORDS = st.text("ab-=/,.学", min_size=1, max_size=14)
LINES = st.tuples(st.sampled_from(["", "  ", "      "]), st.lists(WORDS, min_size=1, max_size=30)).map(
    lambda line: line[0] + " ".join(line[1])
)
CELLS = LINES.map(str.strip)


@given(LINES, st.integers(20, 100), st.integers(0, 6))
def test_a_line_breaks_between_words(line: str, width: int, indent: int) -> None:
    wrapped = wrap_text(line, width, indent).split("\n")
    assert " ".join(wrapped).split() == line.split()
    own = len(line) - len(line.lstrip(" "))
    for number, each in enumerate(wrapped):
        assert len(each) - len(each.lstrip(" ")) == own + (indent if number else 0)
        assert measure_text(each) <= width or len(each.split()) == 1
    for each, further in pairwise(wrapped):  # no line breaks too early
        assert measure_text(f"{each} {further.split()[0]}") > width


@given(st.lists(st.tuples(WORDS, CELLS, WORDS, CELLS), max_size=5), st.integers(20, 100))
def test_a_table_keeps_its_words(rows: list[tuple[str, ...]], width: int) -> None:
    names = ["#", "shape of it", "steps", "group"]
    text = format_table(names, rows, width, {"group"})
    said = sorted(re.split(r"\s+", text.strip()))
    wanted = sorted(word for cells in [names, *rows] for cell in cells for word in cell.split())
    parts = text.count("\n\n") + 1
    for word in wanted:
        said.remove(word)
    assert len(said) == (parts - 1) * (1 + len(rows))  # each further part repeats the first column
    least = [max(measure_text(w) for cells in [names, *rows] for w in cells[i].split()) for i in range(4)]
    if all(least[0] + 2 + size <= width for size in least[1:]):
        assert all(measure_text(line) <= width for line in text.splitlines())


@given(st.lists(st.text("ab =',{}:", min_size=1, max_size=12), min_size=1, max_size=12), st.integers(40, 100))
def test_a_broken_command_means_the_same(words: list[str], width: int) -> None:
    command = " ".join(map(shlex.quote, words))
    wrapped = wrap_command(command, width)
    assert shlex.split(wrapped.replace("\\\n", "")) == words
    assert all(len(line) <= width for line in wrapped.splitlines())


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """The two ends of a pseudo-terminal."""
    near, far = pty.openpty()
    with os.fdopen(far, "w") as stream:
        yield near, stream
    os.close(near)


@pytest.mark.parametrize(("columns", "width"), [(120, 120), (0, 80), (5, 20)])
def test_a_terminal_has_its_width(
    terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch, columns: int, width: int
) -> None:
    near, stream = terminal
    monkeypatch.delenv("COLUMNS", raising=False)
    ioctl(near, TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    assert find_width(stream) == width
    monkeypatch.setenv("COLUMNS", "90")
    assert find_width(stream) == 90


def test_a_pipe_has_no_width_and_no_colour(terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    said, pipe = "note: " + "word " * 20 + "end", io.StringIO()
    assert find_width(pipe) is None
    print_line(said, pipe, style="yellow")
    assert pipe.getvalue() == said + "\n"
    near, stream = terminal
    print_line(said, stream, style="yellow")
    shown = os.read(near, 4000).decode()
    assert "\x1b[33m" in shown and re.sub(r"\x1b\[\d*m", "", shown).split() == said.split()

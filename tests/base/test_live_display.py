"""Lines that are drawn anew in place, on a terminal in pure Python."""

from __future__ import annotations

import io
import os

import pytest

from lrkit.base.live_display import LiveDisplay, write_above_display

pyte = pytest.importorskip("pyte")


class Terminal(io.StringIO):
    """Standard output and standard error of one terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        screen = pyte.Screen(40, 12)
        screen.set_mode(pyte.modes.LNM)
        pyte.Stream(screen).feed(self.getvalue())
        return [line.rstrip() for line in screen.display if line.strip()]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_message_of_a_signal_handler_takes_the_place_of_the_lines(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr(os, "write", lambda _, text: terminal.write(text.decode()))
    for name, value in (("TERM", "xterm"), ("COLUMNS", "40"), ("LINES", "12")):
        monkeypatch.setenv(name, value)
    shown = ["0"]
    display = LiveDisplay(lambda width, _: "\n".join([f"{shown[-1]} " + "-" * (width - 2)] * count))
    print("before")
    display.start()
    for number in ("1", "2"):
        shown.append(number)
        display.refresh()
    assert terminal.lines == ["before", *["2 " + "-" * 36] * count]
    terminal.write("^C")
    write_above_display(b"message")
    assert terminal.lines == ["before", "message"]
    shown.append("3")
    display.refresh()
    assert terminal.lines == ["before", "message", *["3 " + "-" * 36] * count]
    display.stop()
    print("after")
    assert terminal.lines == ["before", "message", "after"]

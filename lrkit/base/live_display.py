"""Lines at the bottom of a terminal, which are drawn anew in place: the progress of a run, the jobs of a sweep."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

__all__ = ["LiveDisplay", "write_above_display"]

_ERASE, _UP_AND_ERASE = b"\r\x1b[2K", b"\x1b[1A\x1b[2K"
_shown: LiveDisplay | None = None


class LiveDisplay:
    """Lines at the bottom of standard output, erased at the end. Without a terminal nothing is shown.

    Args:
        render: returns the lines for a width and a height of the terminal.
        per_second: how often they are drawn anew; None: by ``refresh`` only.
    """

    def __init__(self, render: Callable[[int, int], str], per_second: float | None = None) -> None:
        self.render, self.per_second = render, per_second
        self.live: Live | None = None
        self.lines = 0  # of the last drawing

    @property
    def is_shown(self) -> bool:
        return self.live is not None

    def start(self) -> None:
        global _shown
        from rich.console import Console
        from rich.live import Live

        console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        if self.live is not None or not console.is_terminal or console.is_dumb_terminal:
            return
        self.live = Live(
            console=console,
            get_renderable=lambda: self._draw(console),
            auto_refresh=self.per_second is not None,
            refresh_per_second=self.per_second or 1,
            transient=True,
        )
        _shown = self
        self.live.start()

    def refresh(self) -> None:
        if self.live is not None:
            self.live.refresh()

    def stop(self) -> None:
        global _shown
        if self.live is not None:
            self.live.stop()
            self.live = _shown = None

    def _draw(self, console: Console) -> Text:
        from rich.text import Text

        width, height = console.size
        text = self.render(width - 2, height)  # 2: at Ctrl-C the terminal itself writes ^C after the last line
        self.lines = text.count("\n") + 1
        return Text(text, no_wrap=True, overflow="ignore")


def write_above_display(line: bytes) -> None:
    """Write a line to standard error in place of the display, which is drawn anew below it.

    For signal handlers: one may be called during a print, which cannot be entered twice.
    """
    if _shown is not None and _shown.lines:
        # The next drawing erases the lines of the last one, upwards from the cursor.
        above, below = _ERASE + _UP_AND_ERASE * (_shown.lines - 1), b"\n" * (_shown.lines - 1)
    else:  # a display of Lightning's may be there
        above, below = b"\n", b"\n\n" if sys.stdout.isatty() else b""
    os.write(2, above + line + b"\n" + below)

"""The lines at the end of a run: the table of its metrics, what its callbacks measured, and where its files are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lrkit.base.files import shorten_path
from lrkit.base.terminal_width import find_width, print_line
from lrkit.base.text_table import format_table
from lrkit.runs.diagnosis import Finding

__all__ = ["print_closing"]

_SAID = 2  # findings that are printed


def print_closing(
    folder: Path,
    final: Mapping[str, float],
    best: Mapping[str, float],
    seconds: float,
    ended: str = "",
    tensorboard: bool = True,
    findings: Sequence[Finding] = (),
    said: Sequence[str] = (),
) -> None:
    """Print the end of the run, the two gravest findings, and the paths of its files.

    ``said``: lines of callbacks with measurements.
    """
    rows = [[name, *(f"{m[name]:.4g}" if name in m else "" for m in (best, final))] for name in sorted({*final, *best})]
    print_line()
    print_line(format_table(["metric", "best", "final"], rows, find_width(), {"metric"}))
    for line in said:
        print_line(line)
    for finding in findings[:_SAID]:
        print_line(f"diagnosis: {finding}", style="yellow")
    print_line(f"\n{ended + '; ' if ended else ''}{seconds:.1f} s; everything is in {shorten_path(folder)}")
    if tensorboard:
        print_line(f"curves: tensorboard --logdir {shorten_path(folder)}")

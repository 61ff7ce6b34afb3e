"""What the pictures have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from matplotlib.figure import Figure

from lrkit.comparison.colours import COLOURS
from lrkit.comparison.figures import style_axes

__all__ = ["COLOURS", "frame", "logarithmic"]


def frame(*panels: tuple[str, str], width: float = 0.0, height: float = 3.4) -> tuple[Figure, list[Any]]:
    """A figure of one row, and its axes; each panel is a title and what lies along the bottom."""
    figure = Figure(figsize=(width or 4.6 * len(panels) + 0.6, height), dpi=110, layout="constrained")
    axes = list(figure.subplots(1, len(panels), squeeze=False)[0])
    for ax, (title, below) in zip(axes, panels, strict=True):
        style_axes(ax, title, below)
    return figure, axes


def logarithmic(ax: Any, values: Iterable[float]) -> None:
    """What lies along the bottom, by its logarithm, with a tick at each value that was tried, in plain numbers."""
    ticks = sorted(values)
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
    ax.minorticks_off()

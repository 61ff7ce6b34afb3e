"""The common style of the figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from matplotlib.figure import Figure

from lrkit.base.figure_style import COLOURS, style_axes

__all__ = ["COLOURS", "frame", "logarithmic"]


def frame(*panels: tuple[str, str], width: float = 0.0, height: float = 3.4) -> tuple[Figure, list[Any]]:
    """Return a figure with one row of axes; a panel is a title and a label of the x axis."""
    figure = Figure(figsize=(width or 4.6 * len(panels) + 0.6, height), dpi=110, layout="constrained")
    axes = list(figure.subplots(1, len(panels), squeeze=False)[0])
    for ax, (title, below) in zip(axes, panels, strict=True):
        style_axes(ax, title, below)
    return figure, axes


def logarithmic(ax: Any, values: Iterable[float]) -> None:
    """Make the x axis logarithmic, with a tick in plain numbers at each tried value."""
    ticks = sorted(values)
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
    ax.minorticks_off()

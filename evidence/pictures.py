"""What the pictures have in common."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from lrkit.colours import COLOURS
from lrkit.figures import dress

__all__ = ["COLOURS", "frame"]


def frame(*panels: tuple[str, str], width: float = 0.0, height: float = 3.4) -> tuple[Figure, list[Any]]:
    """A figure of one row, and its axes; each panel is a title and what lies along the bottom."""
    figure = Figure(figsize=(width or 4.6 * len(panels) + 0.6, height), dpi=110, layout="constrained")
    axes = list(figure.subplots(1, len(panels), squeeze=False)[0])
    for ax, (title, below) in zip(axes, panels, strict=True):
        dress(ax, title, below)
    return figure, axes

"""The style of all figures: eight colours, a marker for each, and the axes.

The colours stay apart for readers with a colour vision deficiency, on white and on black: any two of them have a
colour difference of at least 11 (CIEDE2000), neighbours of at least 20, under simulated protanopia, deuteranopia and
tritanopia (Machado, Oliveira and Fernandes 2009, "A Physiologically-based Model for Simulation of Color Vision
Deficiency"). Each colour has its own marker, so a grey print can be read, too.
"""

from __future__ import annotations

import textwrap
from typing import Any, NamedTuple

__all__ = ["BAND", "COLOURS", "GREY", "LABEL", "LINE_STYLES", "OTHER", "TITLE", "LineStyle", "style_axes", "wrap_text"]

GREY = "#9498a0"
#: The colour of a title, and of labels and ticks.
TITLE, LABEL = "#222", "#555"
#: The opacity of the area between the lowest and the highest value.
BAND = 0.15


class LineStyle(NamedTuple):
    """The colour and the marker of a line.

    Args:
        light, dark: the colour on a white and on a dark background.
        marker: the name of the marker in matplotlib.
        path: the marker as an SVG path around the origin, about 2 wide.
    """

    light: str
    dark: str
    marker: str
    path: str

    def line(self, place: int = 0, every: float = 0.17) -> dict[str, Any]:
        """Return the arguments of matplotlib's ``plot`` for a line with markers.

        Args:
            place: shifts the markers along the line, so that those of several lines do not meet.
            every: the distance of the markers, as a share of the diagonal of the axes.
        """
        marked = {"marker": self.marker, "ms": 5, "mew": 0, "markevery": (0.03 + every / 8 * (place % 8), every)}
        return {"color": self.light, "lw": 1.6} | (marked if self.marker else {})


LINE_STYLES = (
    LineStyle("#1551fa", "#627cfa", "o", "M-1,0a1,1 0 1,0 2,0a1,1 0 1,0 -2,0z"),
    LineStyle("#e7a11f", "#fad94c", "s", "M-.9,-.9h1.8v1.8h-1.8z"),
    LineStyle("#c40a52", "#d84b6b", "^", "M0,-1.1L1.1,.9H-1.1z"),
    LineStyle("#56bf94", "#0efad5", "D", "M0,-1.25L1.25,0L0,1.25L-1.25,0z"),
    LineStyle("#83508d", "#8e6a9a", "v", "M0,1.1L1.1,-.9H-1.1z"),
    LineStyle("#f46966", "#fa9a8c", "P", "M-.4,-1.1h.8v.7h.7v.8h-.7v.7h-.8v-.7h-.7v-.8h.7z"),
    LineStyle("#068dc7", "#47b7f0", "X", "M-1,-.5l.5-.5l.5.5l.5-.5l.5.5l-.5.5l.5.5l-.5.5l-.5-.5l-.5.5l-.5-.5l.5-.5z"),
    LineStyle("#957e05", "#ad9724", ">", "M1.1,0L-.9,1.1V-1.1z"),
)  # fmt: skip
#: The style of lines that have no colour of their own.
OTHER = LineStyle(GREY, GREY, "", "")
COLOURS = tuple(style.light for style in LINE_STYLES)


def style_axes(ax: Any, title: str, x_label: str, y_label: str = "", width: int = 0) -> None:
    """Give matplotlib's axes the style of all figures: a title, labels, and a light grid."""
    ax.set_title(wrap_text(title, width), loc="left", fontsize=10, fontweight="bold", color=TITLE)
    ax.set_xlabel(wrap_text(x_label), fontsize=9, color=LABEL)
    ax.set_ylabel(wrap_text(y_label), fontsize=9, color=LABEL)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#999")
    ax.tick_params(labelsize=8, colors=LABEL)
    ax.grid(axis="y", color="#e8e8e8", lw=0.6)
    ax.set_axisbelow(True)


def wrap_text(text: str, width: int = 0) -> str:
    r"""Return a name as text for matplotlib, which would read ``$`` as a formula and leave out ``_name`` in a legend.

    Args:
        width: the longest line, in characters; 0 for one line.

    >>> wrap_text("$x"), wrap_text("_x"), wrap_text("linear lr=0.1", 8)
    ('\\$x', ' _x', 'linear\nlr=0.1')
    """
    lines = [line for part in text.splitlines() for line in (textwrap.wrap(part, width) if width else [part])]
    return (" " if text.startswith("_") else "") + "\n".join(lines).replace("$", r"\$")

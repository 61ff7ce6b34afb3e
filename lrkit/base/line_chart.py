"""A line chart, as SVG for a notebook, or as a matplotlib figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from lrkit.base.errors import ConfigError
from lrkit.base.figure_style import LINE_STYLES, style_axes, wrap_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LineChart"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _EDGE, _KEY = 480, 200, 64, 34, 10, 16
_MARKERS = 6  #: of a line


@dataclass(frozen=True)
class LineChart:
    """A chart of several lines.

    Args:
        title: text above the chart, of one or several lines.
        x_label, y_label: labels of the axes.
        lines: name -> x values and y values. Points with a value that is not finite are left out.
        logarithmic: whether the x axis is logarithmic.

    >>> chart = LineChart("a < b", "step", "rate", {"a": ([0, 1], [0.0, 1.0])})
    >>> "a &lt; b" in chart.html(), chart.html().count("<polyline")
    (True, 1)
    """

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    logarithmic: bool = False

    def html(self) -> str:
        """Return the title and the chart as HTML with an SVG image. Text is escaped."""
        head = f'<pre style="margin:0">{escape(self.title)}</pre>'
        return f'<div class="lrkit">{head}{self._render_svg() if any(self._finite_points().values()) else ""}</div>'

    def draw(self, ax: Axes | None = None) -> Axes:
        """Draw the chart with matplotlib, and return its axes.

        Args:
            ax: axes to draw into; None creates a new figure.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        try:
            from matplotlib import pyplot
        except ImportError:
            raise ConfigError("plot", "needs the package matplotlib: pip install 'lrkit[plot]'") from None
        if ax is None:
            ax = pyplot.figure(figsize=(6.4, 3.6), layout="constrained").subplots()
        for i, (name, points) in enumerate(self._finite_points().items()):
            style = LINE_STYLES[i % len(LINE_STYLES)].line(i, every=0.2)
            ax.plot([x for x, _ in points], [y for _, y in points], label=wrap_text(name), **style)
        if self.logarithmic:
            ax.set_xscale("log")
        style_axes(ax, self.title.partition("\n")[0], self.x_label, self.y_label, width=70)
        if len(self.lines) > 1:
            ax.legend(frameon=False, fontsize=8)
        return ax

    def _finite_points(self) -> dict[str, list[tuple[float, float]]]:
        return {
            name: [(x, y) for x, y in zip(xs, ys, strict=False) if math.isfinite(x) and math.isfinite(y)]
            for name, (xs, ys) in self.lines.items()
        }

    def _render_svg(self) -> str:
        lines = self._finite_points()
        xs = [x for points in lines.values() for x, _ in points]
        ys = [y for points in lines.values() for _, y in points]
        scale: Any = math.log10 if self.logarithmic else float
        left, right, low, high = scale(min(xs)), scale(max(xs)), min([0.0, *ys]), max(ys)
        width, height = _WIDTH - _LEFT - _EDGE, _HEIGHT - _BOTTOM - _EDGE

        def place(x: float, y: float) -> str:
            across = (scale(x) - left) / (right - left or 1.0)
            up = (y - low) / (high - low or 1.0)
            return f"{_LEFT + width * across:.1f},{_EDGE + height * (1.0 - up):.1f}"

        bottom, keys = _HEIGHT - _BOTTOM, len(lines) if len(lines) > 1 else 0
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT + _KEY * keys}" font-size="11"'
            f' font-family="sans-serif" fill="currentColor" role="img"><title>{escape(self.title)}</title>',
            f'<path d="M{_LEFT} {_EDGE}V{bottom}H{_WIDTH - _EDGE}" fill="none" stroke="currentColor"/>',
            _render_text(_LEFT - 5, _EDGE + 9, "end", f"{high:.4g}"),
            _render_text(_LEFT - 5, bottom, "end", f"{low:.4g}"),
            _render_text(_LEFT, bottom + 14, "start", f"{min(xs):.4g}"),
            _render_text(_WIDTH - _EDGE, bottom + 14, "end", f"{max(xs):.4g}"),
            _render_text(_LEFT + width // 2, bottom + 28, "middle", f"{self.y_label} over {self.x_label}"),
        ]
        for i, (name, points) in enumerate(lines.items()):
            style = LINE_STYLES[i % len(LINE_STYLES)]
            path = " ".join(place(x, y) for x, y in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{style.light}" stroke-width="1.5"/>')
            apart = max(1, len(points) // _MARKERS)
            marked = [place(x, y) for x, y in points[(2 * i + 1) * apart // 16 :: apart]] if keys else []
            if keys:
                y = _HEIGHT + _KEY * i + _KEY // 2
                parts.append(f'<path d="M{_LEFT} {y}h24" stroke="{style.light}" stroke-width="1.5"/>')
                parts.append(_render_text(_LEFT + 32, y + 4, "start", name))
                marked.append(f"{_LEFT + 12},{y}")
            shape = f'd="{style.path}" fill="{style.light}"'
            parts += [f'<path transform="translate({at}) scale(3.5)" {shape}/>' for at in marked]
        return "".join([*parts, "</svg>"])


def _render_text(x: int, y: int, anchor: str, text: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'

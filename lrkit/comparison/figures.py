"""Figures of a comparison, drawn by matplotlib: ``compare.png``, and ``sensitivity.png`` if the rate was swept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.files import write_figure
from lrkit.comparison.colours import GREY, family_colours, setting_colours
from lrkit.comparison.plot_data import RATE_TITLE, Panel, rate_sensitivity, sensitivity_range, vertical_range
from lrkit.comparison.ranking import Comparison
from lrkit.comparison.run_groups import Setting

__all__ = ["draw_figures", "style_axes"]

_DASHES = (0, (4, 1.5))
_DOTS: dict[str, Any] = {"lw": 1.6, "marker": "o", "ms": 4.5, "capsize": 3, "elinewidth": 1}
_CROSS: dict[str, Any] = {"ls": "", "marker": "x", "ms": 7, "mew": 1.6}
_RING: dict[str, Any] = {"ls": "", "marker": "o", "ms": 11, "mew": 1.6, "mfc": "none"}


def draw_figures(comparison: Comparison, frames: Sequence[Panel], folder: Path) -> list[Path]:
    """Draw the figures of a comparison into ``folder``, and return their paths.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ConfigError("compare.png", "needs the package matplotlib: pip install 'lrkit[plot]'") from None
    drawn = []
    if frames:
        drawn.append(_draw_curves(comparison, frames, folder / "compare.png"))
    if any(rate_sensitivity(comparison).values()):
        drawn.append(_draw_sensitivity(comparison, folder / "sensitivity.png"))
    return drawn


def _draw_curves(comparison: Comparison, frames: Sequence[Panel], path: Path) -> Path:
    """Draw the learning rates in the upper row and the losses in the lower one; the legend follows the ranking."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    top = [panel.title for panel in frames if panel.title == RATE_TITLE]
    below = [panel.title for panel in frames if panel.title != RATE_TITLE]
    mosaic: list[Any] = [titles for titles in (top * max(1, len(below)), below) if titles]
    size = (max(9.0, 3.6 * len(below) + 2.4), 6.2 if len(mosaic) == 2 else 3.8)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    shades = setting_colours(comparison)
    axes: dict[str, Any] = figure.subplot_mosaic(mosaic, sharex=True, height_ratios=[1, 1.5][-len(mosaic) :])
    for panel in frames:
        ax = axes[panel.title]
        style_axes(ax, panel.title, "step")
        for rank, band in sorted(panel.bands.items(), reverse=True):  # the best last, so that it lies on top
            line = _style_line(shades[rank], comparison.settings[rank])
            ax.plot(band.steps, band.mean, **line, marker="o" if len(band.steps) < 4 else None, ms=3)
            if shades[rank] != GREY and band.low != band.high:
                ax.fill_between(band.steps, band.low, band.high, color=shades[rank], alpha=0.15, lw=0, zorder=1)
        _scale_vertical_axis(ax, *vertical_range(panel), panel.log)
        ax.margins(x=0.01)
        ax.tick_params(labelbottom=True)
    ranks = sorted({rank for panel in frames for rank in panel.bands})
    handles: list[Any] = []
    labels: list[str] = []
    for rank in [rank for rank in ranks if shades[rank] != GREY]:
        handles.append(Line2D([], [], **_style_line(shades[rank], comparison.settings[rank])))
        labels.append(_escape_formula(f"{rank + 1}  {comparison.settings[rank].name}"))
    if many := sum(shades[rank] == GREY for rank in ranks):
        handles.append(Line2D([], [], color=GREY, lw=0.8))
        labels.append(f"{many} further settings")
    if any(len(setting.runs) > 1 for setting in comparison.settings):
        handles.append(Patch(color="#888", alpha=0.25, lw=0))
        labels.append("bands: lowest to\nhighest seed")
    if any(comparison.settings[rank].broken for rank in ranks):
        handles.append(Line2D([], [], color="#888", ls=_DASHES, lw=1.2))
        labels.append("a run did not finish")
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8.5, alignment="left",
                  title=_escape_formula(f"by {comparison.by} {comparison.metric}"), title_fontsize=8.5)  # fmt: skip
    write_figure(path, figure)
    return path


def _draw_sensitivity(comparison: Comparison, path: Path) -> Path:
    """Draw the metric over the learning rate, one line for each family, with bars for the 95 % intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.8, 4.0), dpi=150, layout="constrained")
    ax = figure.subplots()
    style_axes(ax, f"{comparison.by} {comparison.metric} over {comparison.rate}", comparison.rate or "")
    families, shades, chosen = rate_sensitivity(comparison), family_colours(comparison), comparison.chosen()
    handles: list[Any] = []
    for name, points in families.items():
        ended = [(rate, mean) for rate, mean, setting in points if not setting.broken]
        lost = [(rate, mean.mean) for rate, mean, setting in points if setting.broken]
        best = [(rate, mean.mean) for rate, mean, setting in points if setting is chosen.get(name)]
        rates, means = [rate for rate, _ in ended], [mean.mean for _, mean in ended]
        bars = [mean.half or 0.0 for _, mean in ended]
        handles.append(
            ax.errorbar(rates, means, bars, color=shades[name], label=_escape_formula(name or "all"), **_DOTS)
        )
        for marked, by in ((lost, _CROSS), (best, _RING)):
            ax.plot([rate for rate, _ in marked], [mean for _, mean in marked], color=shades[name], **by)
    if chosen:
        handles += ax.plot([], [], color="#888", label="the best rate", **_RING)
    if any(setting.broken for points in families.values() for _, _, setting in points):
        handles += ax.plot([], [], color="#888", label="a run did not finish", **_CROSS)
    ax.set_xscale("log")
    _scale_vertical_axis(ax, *sensitivity_range(comparison))
    rates = sorted({rate for points in families.values() for rate, _, _ in points})
    if len(rates) <= 9:
        ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
        ax.minorticks_off()
    ax.legend(handles=handles, frameon=False, fontsize=8.5)
    write_figure(path, figure)
    return path


def _style_line(colour: str, setting: Setting) -> dict[str, Any]:
    style: dict[str, Any] = {"color": colour, "lw": 1.6, "zorder": 3}
    if colour == GREY:
        style |= {"lw": 0.8, "alpha": 0.5, "zorder": 2}
    return style | ({"ls": _DASHES} if setting.broken else {})


def _scale_vertical_axis(ax: Any, low: float, high: float, log: bool) -> None:
    """Set the range of the vertical axis; the labels of a logarithmic axis are plain numbers."""
    if log:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(low, high)


def _escape_formula(text: str) -> str:
    """Escape ``$``, so that matplotlib does not read a name as a formula."""
    return text.replace("$", r"\$")


def style_axes(ax: Any, title: str, x_label: str) -> None:
    """Give axes the style of all figures: a title, a label for the x axis, and a light grid."""
    ax.set_title(_escape_formula(title), loc="left", fontsize=10, fontweight="bold", color="#222")
    ax.set_xlabel(_escape_formula(x_label), fontsize=9, color="#555")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#999")
    ax.tick_params(labelsize=8, colors="#555")
    ax.grid(axis="y", color="#e8e8e8", lw=0.6)
    ax.set_axisbelow(True)

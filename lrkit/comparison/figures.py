"""Figures of a comparison, drawn by matplotlib: ``compare.png``, and ``sensitivity.png`` if the rate was swept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.figure_style import BAND, GREY, OTHER, TITLE, LineStyle, style_axes, wrap_text
from lrkit.base.files import write_figure
from lrkit.base.plural import plural
from lrkit.comparison.line_styles import family_styles, setting_styles
from lrkit.comparison.plot_data import RATE_TITLE, Panel, rate_sensitivity, sensitivity_range, vertical_range
from lrkit.comparison.ranking import Comparison
from lrkit.comparison.run_groups import PREDICTED, Setting
from lrkit.comparison.tables import describe_answer, describe_comparison

__all__ = ["draw_curves", "draw_figures"]

_DASHES = (0, (4, 1.5))
_CROSS: dict[str, Any] = {"ls": "", "marker": "x", "ms": 7, "mew": 1.6}
_RING: dict[str, Any] = {"ls": "", "marker": "o", "ms": 12, "mew": 1.6, "mfc": "none"}
#: The longest line of a title, and of a name in a legend, in characters.
_TITLE_WIDTH, _NAME_WIDTH = 92, 34


def draw_figures(comparison: Comparison, frames: Sequence[Panel], folder: Path) -> list[Path]:
    """Draw the figures of a comparison into ``folder``, and return their paths.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    _check_matplotlib("compare.png")
    drawn = []
    if frames:
        drawn.append(draw_curves(comparison, frames, folder / "compare.png"))
    if any(rate_sensitivity(comparison).values()):
        drawn.append(_draw_sensitivity(comparison, folder / "sensitivity.png"))
    return drawn


def _check_matplotlib(name: str) -> None:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ConfigError(name, "needs the package matplotlib: pip install 'lrkit[plot]'") from None


def draw_curves(comparison: Comparison, frames: Sequence[Panel], path: Path) -> Path:
    """Draw the learning rates in the upper row and the losses in the lower one; the legend follows the ranking.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    _check_matplotlib(path.name)
    from matplotlib.figure import Figure

    top = [panel.title for panel in frames if panel.title == RATE_TITLE]
    below = [panel.title for panel in frames if panel.title != RATE_TITLE]
    mosaic: list[Any] = [titles for titles in (top * max(1, len(below)), below) if titles]
    size = (max(9.0, 3.6 * len(below) + 2.4), 6.6 if len(mosaic) == 2 else 4.2)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    styles = setting_styles(comparison)
    axes: dict[str, Any] = figure.subplot_mosaic(mosaic, sharex=True, height_ratios=[1, 1.5][-len(mosaic) :])
    for panel in frames:
        ax = axes[panel.title]
        style_axes(ax, f"{panel.title} (log scale)" if panel.log else panel.title, "optimizer step")
        for rank, band in sorted(panel.bands.items(), reverse=True):  # the best last, so that it lies on top
            line = _style_line(styles[rank], comparison.settings[rank], rank)
            if len(band.steps) < 4:
                line |= {"marker": line.get("marker", "o"), "markevery": None, "ms": 5}
            ax.plot(band.steps, band.mean, **line)
            if styles[rank] != OTHER and band.low != band.high:
                ax.fill_between(band.steps, band.low, band.high, color=styles[rank].light, alpha=BAND, lw=0, zorder=1)
        _scale_vertical_axis(ax, *vertical_range(panel), panel.log)
        ax.margins(x=0.01)
        ax.tick_params(labelbottom=True)
    handles, labels = _list_legend(comparison, sorted({rank for panel in frames for rank in panel.bands}))
    _draw_legend(figure, handles, labels, f"ranked by the\n{comparison.by} {comparison.metric}")
    _write_title(figure, comparison)
    write_figure(path, figure)
    return path


def _list_legend(comparison: Comparison, ranks: Sequence[int]) -> tuple[list[Any], list[str]]:
    """Return the lines and the names of the legend: the settings with a colour, and the meaning of grey and dashes."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    styles, handles, labels = setting_styles(comparison), list[Any](), list[str]()
    for rank in [rank for rank in ranks if styles[rank] != OTHER]:
        line = _style_line(styles[rank], comparison.settings[rank], rank)
        handles.append(Line2D([], [], **line | {"markevery": None}))
        setting = comparison.settings[rank]
        number = "" if setting.status == PREDICTED else f"{rank + 1}  "  # a prediction has a ranking of its own
        labels.append(wrap_text(f"{number}{setting.name}", _NAME_WIDTH))
    if many := sum(styles[rank] == OTHER for rank in ranks):
        handles.append(Line2D([], [], color=GREY, lw=0.8))
        labels.append(plural(many, "further setting"))
    if any(len(setting.runs) > 1 for setting in comparison.settings):
        handles.append(Patch(color="#888", alpha=0.25, lw=0))
        labels.append("lowest to highest seed")
    broken = [comparison.settings[rank].status == PREDICTED for rank in ranks if comparison.settings[rank].broken]
    if broken:
        handles.append(Line2D([], [], color="#888", ls=_DASHES, lw=1.2))
        told = "predicted, not trained", "a run did not finish"
        labels.append(told[0] if all(broken) else told[1] if not any(broken) else "predicted, or did not finish")
    return handles, labels


def _draw_sensitivity(comparison: Comparison, path: Path) -> Path:
    """Draw the metric over the learning rate, one line for each family, with bars for the 95 % intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.4), dpi=150, layout="constrained")
    ax = figure.subplots()
    families, styles, chosen = rate_sensitivity(comparison), family_styles(comparison), comparison.chosen()
    rates = sorted({rate for points in families.values() for rate, _, _ in points})
    low, high, log = sensitivity_range(comparison)
    metric = f"{comparison.by} {comparison.metric}"
    title = f"{metric} over {comparison.rate}"
    style_axes(ax, title, f"{comparison.rate} (log scale)", f"{metric} (log scale)" if log else metric)
    handles: list[Any] = []
    for number, (name, points) in enumerate(families.items()):
        share = number / max(1, len(families) - 1) - 0.5  # bars lie beside each other
        apart = (rates[-1] / rates[0]) ** (share * min(0.02, 0.006 * (len(families) - 1)))
        ended = [(rate * apart, mean) for rate, mean, setting in points if not setting.broken]
        lost = [(rate * apart, mean.mean) for rate, mean, setting in points if setting.broken]
        best = [(rate * apart, mean.mean) for rate, mean, setting in points if setting is chosen.get(name)]
        at, means = [rate for rate, _ in ended], [mean.mean for _, mean in ended]
        bars, colour = [mean.half or 0.0 for _, mean in ended], styles[name].light
        marker = styles[name].marker or "."
        dots: dict[str, Any] = {"lw": 1.6, "marker": marker, "ms": 5.5, "capsize": 3, "elinewidth": 1}
        label = wrap_text(name or "all", _NAME_WIDTH)
        handles.append(ax.errorbar(at, means, bars, color=colour, label=label, **dots))
        for marked, by in ((lost, _CROSS), (best, _RING)):
            ax.plot([rate for rate, _ in marked], [mean for _, mean in marked], color=colour, **by)
    if chosen:
        handles += ax.plot([], [], color="#888", label="the best rate", **_RING)
    if any(setting.broken for points in families.values() for _, _, setting in points):
        handles += ax.plot([], [], color="#888", label="a run did not finish", **_CROSS)
    ax.set_xscale("log")
    _scale_vertical_axis(ax, low, high, log)
    if len(rates) <= 9:
        ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
        ax.minorticks_off()
    labels = [handle.get_label() for handle in handles]
    has_bars = any(mean.half for points in families.values() for _, mean, _ in points)
    _draw_legend(figure, handles, labels, "bars: 95 % interval" if has_bars else "")
    write_figure(path, figure)
    return path


def _draw_legend(figure: Any, handles: Sequence[Any], labels: Sequence[str], title: str) -> None:
    """Draw the legend beside the axes, where it covers no line."""
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8.5, alignment="left",
                  title=wrap_text(title, _NAME_WIDTH) or None, title_fontsize=8.5)  # fmt: skip


def _write_title(figure: Any, comparison: Comparison) -> None:
    """Write the answer and what was compared above a figure."""
    lines = [describe_answer(comparison), describe_comparison(comparison).partition(";")[0]]
    figure.suptitle(wrap_text("\n".join(lines), _TITLE_WIDTH), x=0.01, ha="left", fontsize=9.5, color=TITLE)


def _style_line(style: LineStyle, setting: Setting, rank: int) -> dict[str, Any]:
    line = style.line(rank) | {"zorder": 3}
    if style == OTHER:
        line |= {"lw": 0.8, "alpha": 0.5, "zorder": 2}
    return line | ({"ls": _DASHES} if setting.broken else {})


def _scale_vertical_axis(ax: Any, low: float, high: float, log: bool) -> None:
    """Set the range of the vertical axis; the labels of a logarithmic axis are plain numbers."""
    if log:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(low, high)

"""The curves that figures draw: for each setting the mean over its seeds, and a band from the lowest to the highest."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from lrkit.base.figure_style import OTHER
from lrkit.base.metric_names import validation_loss_name
from lrkit.comparison.line_styles import setting_styles
from lrkit.comparison.ranking import Comparison
from lrkit.comparison.run_groups import Setting
from lrkit.comparison.statistics import Interval
from lrkit.runs.event_reader import Series
from lrkit.runs.run_reader import Run

__all__ = [
    "RATE_TITLE",
    "Band",
    "Panel",
    "build_band",
    "build_panels",
    "rate_sensitivity",
    "sensitivity_range",
    "vertical_range",
]

RATE_TITLE = "learning rate"
_FEW = 40  # settings whose curves are drawn in full detail
_RATE = re.compile(r"(^|[/_-])(lr|learning_rate)([/_-]|$)", re.IGNORECASE)


@dataclass
class Band:
    """Mean, lowest and highest value over seeds, at each of ``steps``."""

    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass
class Panel:
    """One panel of a figure: rank of a setting, from 0 -> its band, for the settings with such a curve.

    ``low`` and ``high`` are the range to show: the range of the settings whose runs all finished.
    """

    title: str
    bands: dict[int, Band]
    low: float
    high: float
    log: bool


def build_panels(comparison: Comparison) -> list[Panel]:
    """Return the panels with curves: learning rate, training loss, validation loss, and the metric if it is another."""
    points = 300 if len(comparison.settings) <= _FEW else 150
    frames: list[tuple[str, Callable[[Run], str | None]]] = [
        (RATE_TITLE, _find_rate_tag),
        ("training loss", _find_training_loss_tag),
        ("validation loss", lambda run: validation_loss_name(sorted(run.series))),
    ]
    metric = comparison.metric
    if not any(tag(run) == metric for _, tag in frames for setting in comparison.settings for run in setting.runs):
        frames.append((metric, lambda run: metric if metric in run.series else None))
    shown = {rank for rank, style in enumerate(setting_styles(comparison)) if style != OTHER}
    made = [_build_panel(title, tag, comparison.settings, points, shown) for title, tag in frames]
    return [panel for panel in made if panel.bands]


def _build_panel(
    title: str, tag: Callable[[Run], str | None], settings: Sequence[Setting], points: int, shown: set[int]
) -> Panel:
    bands: dict[int, Band] = {}
    for rank, setting in enumerate(settings):
        curves = [run.series[name] for run in setting.runs if (name := tag(run))]
        made = build_band(curves, points, exact=title == RATE_TITLE)
        if made.steps:
            bands[rank] = made
    sound = {rank: made for rank, made in bands.items() if settings[rank].broken == 0} or bands
    means = [value for made in sound.values() for value in made.mean]
    low, high = min(means, default=0.0), max(means, default=1.0)
    log = title != RATE_TITLE and _uses_log_axis(low, high)
    lowest = min((value for rank, made in sound.items() if rank in shown for value in made.low), default=low)
    highest = max((value for rank, made in sound.items() if rank in shown for value in made.high), default=high)
    if title == RATE_TITLE:  # the styled lines take half of the panel at least; higher grey ones leave it at its top
        styled = max((value for rank, made in sound.items() if rank in shown for value in made.mean), default=high)
        high = min(high, 2 * styled)
    elif log:  # show the whole band, unless a single seed would take most of the panel
        low, high = min(low, max(lowest, low / 2)), max(high, min(highest, high * 2))
    else:
        beyond = 0.15 * (high - low)
        low, high = min(low, max(lowest, low - beyond)), max(high, min(highest, high + beyond))
    return Panel(title, bands, low, high, log)


def vertical_range(panel: Panel) -> tuple[float, float]:
    """Return the range of the vertical axis, with a margin; curves of diverged runs leave the panel at its top."""
    if panel.title == RATE_TITLE:
        return 0.0, panel.high * 1.06 or 1.0
    return _add_margin(panel.low, panel.high, panel.log)


def rate_sensitivity(comparison: Comparison) -> dict[str, list[tuple[float, Interval, Setting]]]:
    """Return family -> (rate, mean of the metric, setting), for the settings with a value of the metric."""
    return {
        family: [(rate, mean, setting) for rate, setting in at if (mean := getattr(setting, comparison.by)) is not None]
        for family, at in comparison.rates().items()
    }


def sensitivity_range(comparison: Comparison) -> tuple[float, float, bool]:
    """Return low, high and whether the axis is logarithmic, for the vertical axis of ``rate_sensitivity``."""
    means = [mean for points in rate_sensitivity(comparison).values() for _, mean, _ in points]
    low, high = min(mean.mean for mean in means), max(mean.mean for mean in means)
    if _uses_log_axis(low, high):
        return *_add_margin(low, high, True), True
    low, high = min(m.mean - (m.half or 0.0) for m in means), max(m.mean + (m.half or 0.0) for m in means)
    return *_add_margin(low, high, False), False


def _uses_log_axis(low: float, high: float) -> bool:
    return low > 0 and high / low > 10


def _add_margin(low: float, high: float, log: bool) -> tuple[float, float]:
    if log:
        margin = (high / low) ** 0.05
        return low / margin, high * margin
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return low - margin, high + margin


def build_band(curves: Iterable[Series], points: int = 300, *, exact: bool = False) -> Band:
    """Return mean, lowest and highest value of several curves, at common steps.

    If the curves have more than ``points`` steps, the range of steps is divided into ``points`` segments of equal
    length, and a curve becomes its means over the segments; with ``exact``, its first value in each segment and its
    last value. Between its steps a curve is interpolated linearly; before its first and after its last step it does
    not count. Values that are not finite are left out.
    """
    finite: list[list[tuple[float, float]]] = [
        [(s, v) for s, v in zip(c.steps, c.values, strict=True) if math.isfinite(v)] for c in curves
    ]
    finite = [curve for curve in finite if curve]
    steps = sorted({step for curve in finite for step, _ in curve})
    if len(steps) > points:
        width = (steps[-1] - steps[0]) / points
        finite = [_thin_curve(curve, steps[0], width, points, exact) for curve in finite]
    at: list[float] = sorted({step for curve in finite for step, _ in curve})
    columns = [list(zip(*curve, strict=True)) for curve in finite]
    result = Band([], [], [], [])
    for step in at:
        values = [value for xs, ys in columns if (value := _interpolate(xs, ys, step)) is not None]
        for part, value in zip((result.steps, result.mean, result.low, result.high),
                               (step, fmean(values), min(values), max(values)), strict=True):  # fmt: skip
            part.append(value)
    return result


def _thin_curve(
    curve: Sequence[tuple[float, float]], first: float, width: float, points: int, exact: bool
) -> list[tuple[float, float]]:
    gathered: dict[int, list[tuple[float, float]]] = {}
    for step, value in curve:
        gathered.setdefault(min(int((step - first) / width), points - 1), []).append((step, value))
    if exact:
        return [*(inside[0] for inside in gathered.values()), curve[-1]]
    return [(first + (i + 0.5) * width, fmean(value for _, value in inside)) for i, inside in gathered.items()]


def _interpolate(xs: Sequence[float], ys: Sequence[float], x: float) -> float | None:
    if not xs[0] <= x <= xs[-1]:
        return None
    i = bisect_right(xs, x) - 1
    if xs[i] == x:
        return ys[i]
    return ys[i] + (ys[i + 1] - ys[i]) * (x - xs[i]) / (xs[i + 1] - xs[i])


def _find_rate_tag(run: Run) -> str | None:
    if "lr/default" in run.series:
        return "lr/default"
    return next((name for name in sorted(run.series) if _RATE.search(name) and not name.startswith("result/")), None)


def _find_training_loss_tag(run: Run) -> str | None:
    if "train/loss" in run.series:
        return "train/loss"
    names = [name for name in sorted(run.series) if "loss" in name.lower() and not name.startswith("result/")]
    return next((name for name in names if name.startswith("train")), "loss" if "loss" in names else None)

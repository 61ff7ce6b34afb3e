"""A comparison as one page to look into: ``compare.html``, which needs no network and no other file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lrkit.bands import RATE_TITLE, Band, Panel, colour_of, plain, sensitivity, sensitivity_range, shown_range
from lrkit.compare import Comparison
from lrkit.monitors import higher_is_better
from lrkit.tables import about, answer, header, left_aligned, row

__all__ = ["html"]

_TEMPLATE = Path(__file__).with_name("page.html")


def html(comparison: Comparison, frames: Sequence[Panel]) -> str:
    """The page as text. What came from a folder is text in it, and never markup or script."""
    parts = {
        "title": escape(f"Comparison by {comparison.by} {comparison.metric}"),
        "answer": escape(answer(comparison)),
        "about": escape(about(comparison)),
        "table": _table(comparison),
        "notes": f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in comparison.notes)}</ul>",
        "data": json.dumps(_data(comparison, frames), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    before, *pieces = _TEMPLATE.read_text(encoding="utf-8").split("{{")
    filled = [before]
    for piece in pieces:  # one pass: what is filled in is not looked through for further places
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def _table(comparison: Comparison) -> str:
    left = left_aligned(comparison)
    classes = ["" if name in left else ' class="right"' for name in header(comparison)]
    head = "".join(f"<th{c}>{escape(name)}</th>" for c, name in zip(classes, header(comparison), strict=True))
    lines = []
    for rank, setting in enumerate(comparison.settings):
        cells = [escape(cell) for cell in row(comparison, rank)]
        swatch = f'<i style="--colour:{colour_of(rank)}"></i> '
        marked = [
            swatch + cells[0],
            *cells[1:-1],
            f'<span class="bad">{cells[-1]}</span>' if setting.broken else cells[-1],
        ]
        lines.append("".join(f"<td{c}>{cell}</td>" for c, cell in zip(classes, marked, strict=True)))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _data(comparison: Comparison, frames: Sequence[Panel]) -> dict[str, Any]:
    """What the script draws: frames with their curves, and the legend."""
    settings = comparison.settings
    ranks = sorted({rank for panel in frames for rank in panel.bands})
    legend: list[dict[str, Any]] = [
        {"name": settings[rank].name, "colour": colour_of(rank), "ranks": [rank]} for rank in ranks if not plain(rank)
    ]
    if others := [rank for rank in ranks if plain(rank)]:
        legend.append({"name": f"{len(others)} further settings", "colour": colour_of(others[0]), "ranks": others})
    ends = [step for panel in frames for band in panel.bands.values() for step in (band.steps[0], band.steps[-1])]
    drawn = [_frame(panel, comparison, (min(ends), max(ends))) for panel in frames]
    if any(sensitivity(comparison).values()):
        drawn.append(_sensitivity(comparison))
    return {"legend": legend, "panels": drawn}


def _frame(panel: Panel, comparison: Comparison, steps: tuple[float, float]) -> dict[str, Any]:
    low, high = shown_range(panel)
    return {
        "title": panel.title,
        "wide": panel.title == RATE_TITLE,
        "order": 1 if panel.title != comparison.metric or not higher_is_better(panel.title) else -1,
        "x": {"title": "step", "low": steps[0], "high": steps[1], "log": False},
        "y": {"low": low, "high": high, "log": panel.log},
        "curves": [_curve(rank, band, comparison) for rank, band in panel.bands.items()],
    }


def _curve(rank: int, band: Band, comparison: Comparison) -> dict[str, Any]:
    setting = comparison.settings[rank]
    curve = {"rank": rank, "name": setting.name, "colour": colour_of(rank), "plain": plain(rank),
             "broken": setting.broken > 0, "steps": _short(band.steps), "mean": _short(band.mean)}  # fmt: skip
    if band.low != band.high and not plain(rank):
        curve |= {"low": _short(band.low), "high": _short(band.high)}
    return curve


def _sensitivity(comparison: Comparison) -> dict[str, Any]:
    """The metric over the rate; a curve for each of what settings are beside their rate."""
    curves = []
    for i, (name, points) in enumerate(sensitivity(comparison).items()):
        low = [mean.mean - (mean.half or 0.0) for _, mean, _ in points]
        high = [mean.mean + (mean.half or 0.0) for _, mean, _ in points]
        curves.append({
            "name": name, "colour": colour_of(i), "steps": [rate for rate, _, _ in points],
            "mean": _short(mean.mean for _, mean, _ in points), "low": _short(low), "high": _short(high),
            "lost": [setting.broken > 0 for _, _, setting in points],
        })  # fmt: skip
    rates = sorted({rate for at in comparison.rates().values() for rate, _ in at})
    low_end, high_end, log = sensitivity_range(comparison)
    widen = (rates[-1] / rates[0]) ** 0.04
    return {
        "title": f"{comparison.by} {comparison.metric} over {comparison.rate}", "bars": True, "wide": False,
        "order": -1 if higher_is_better(comparison.metric) else 1,
        "x": {"title": comparison.rate, "low": rates[0] / widen, "high": rates[-1] * widen, "log": True,
              "at": rates if len(rates) <= 9 else None},
        "y": {"low": low_end, "high": high_end, "log": log},
        "curves": curves,
    }  # fmt: skip


def _short(values: Iterable[float]) -> list[float]:
    """Five digits are more than a screen shows."""
    return [float(f"{value:.5g}") for value in values]

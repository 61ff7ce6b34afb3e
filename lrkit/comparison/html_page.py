"""The HTML page of a comparison: ``compare.html``, which needs no network and no other file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lrkit.base.figure_style import LINE_STYLES, OTHER, LineStyle
from lrkit.base.metric_names import higher_is_better
from lrkit.base.plural import plural
from lrkit.comparison.environments import list_differences
from lrkit.comparison.line_styles import family_styles, setting_styles
from lrkit.comparison.plot_data import RATE_TITLE, Band, Panel, rate_sensitivity, sensitivity_range, vertical_range
from lrkit.comparison.ranking import Comparison
from lrkit.comparison.run_groups import PREDICTED, Setting
from lrkit.comparison.tables import (
    Sheet,
    describe_answer,
    describe_comparison,
    describe_families,
    families_sheet,
    list_notes,
    settings_sheet,
)

__all__ = ["render_page"]

_TEMPLATE = Path(__file__).with_name("page.html")


def render_page(comparison: Comparison, frames: Sequence[Panel]) -> str:
    """Return the page as HTML. Text from a folder of runs is escaped: it is never markup or script."""
    parts = {
        "light": _render_palette([style.light for style in LINE_STYLES]),
        "dark": _render_palette([style.dark for style in LINE_STYLES]),
        "title": escape(f"Comparison by {comparison.by} {comparison.metric}"),
        "answer": escape(describe_answer(comparison)),
        "about": escape(describe_comparison(comparison)),
        "tuned": _render_families(comparison),
        "settings": _render_settings(comparison),
        "notes": f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in list_notes(comparison))}</ul>",
        "data": json.dumps(_build_data(comparison, frames), allow_nan=False, separators=(",", ":")).replace(
            "<", "\\u003c"
        ),
    }
    before, *pieces = _TEMPLATE.read_text(encoding="utf-8").split("{{")
    filled = [before]
    for piece in pieces:  # one pass: the inserted text is not searched for further placeholders
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def _render_palette(colours: Sequence[str]) -> str:
    """Return the colours of the lines as CSS variables: the page has a light and a dark mode."""
    return " ".join(f"--line{i}: {colour};" for i, colour in enumerate(colours))


def _number_style(style: LineStyle) -> int:
    """Return the number of a line style in the page; -1 for a grey line."""
    return -1 if style == OTHER else LINE_STYLES.index(style)


def _render_key(style: LineStyle) -> str:
    """Return a short piece of a line, with its marker."""
    number = _number_style(style)
    colour = "grey" if number < 0 else f"line{number}"
    return (
        f'<svg class="sample" style="--colour:var(--{colour})" viewBox="-11 -6 22 12"><path d="M-11,0H11"/>'
        f'<path transform="scale(4)" d="{style.path}"/></svg>'
    )


def _render_settings(comparison: Comparison) -> str:
    """Return a table with a row for each setting, with the colour and the marker of its curves."""
    broken = [setting.broken > 0 and setting.status != PREDICTED for setting in comparison.settings]
    heading = "<h2>All settings</h2>" if comparison.best_rates else ""
    return heading + _render_table("settings", settings_sheet(comparison), setting_styles(comparison), broken)


def _render_families(comparison: Comparison) -> str:
    """Return a table with a row for each family at its own best rate, with the colour and the marker of the family."""
    tuned = comparison.best_rates
    if tuned is None:
        return ""
    styles, ranks = family_styles(comparison), {id(setting): i for i, setting in enumerate(comparison.settings)}
    chosen = [(choice.name, choice.setting) for choice in tuned.choices]
    about = [f' data-rank="{ranks[id(setting)]}" data-family="{escape(name)}"' for name, setting in chosen]
    broken = [setting.broken > 0 for _, setting in chosen]
    table = _render_table("tuned", families_sheet(tuned), [styles[name] for name, _ in chosen], broken, about)
    return f"<h2>{escape(describe_families(tuned))}</h2>{table}"


def _render_table(
    name: str,
    shown: Sheet,
    styles: Sequence[LineStyle],
    broken: Sequence[bool],
    attributes: Sequence[str] | None = None,
) -> str:
    """Return a table as HTML; the last column is the status of the runs, red if one did not finish."""
    classes = ["" if column in shown.left else ' class="right"' for column in shown.names]
    head = "".join(f"<th{c}>{escape(column)}</th>" for c, column in zip(classes, shown.names, strict=True))
    body = ""
    for row, style, bad, more in zip(shown.rows, styles, broken, attributes or [""] * len(broken), strict=True):
        first, *inner, last = map(escape, row)
        ends = f'<span class="bad">{last}</span>' if bad else last
        cells = [f"{_render_key(style)} {first}", *inner, ends]
        body += f"<tr{more}>{''.join(f'<td{c}>{cell}</td>' for c, cell in zip(classes, cells, strict=True))}</tr>"
    return f'<div class="scroll" id="{name}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _build_data(comparison: Comparison, frames: Sequence[Panel]) -> dict[str, Any]:
    """Return the data for the page's script: the panels with their curves, and the legend."""
    settings, styles = comparison.settings, setting_styles(comparison)
    ranks = sorted({rank for panel in frames for rank in panel.bands})
    legend: list[dict[str, Any]] = [
        {"name": settings[rank].name, "style": _number_style(styles[rank]), "ranks": [rank]}
        for rank in ranks
        if styles[rank] != OTHER
    ]
    if others := [rank for rank in ranks if styles[rank] == OTHER]:
        legend.append({"name": plural(len(others), "further setting"), "style": -1, "ranks": others})
    ends = [step for panel in frames for band in panel.bands.values() for step in (band.steps[0], band.steps[-1])]
    drawn = [_build_panel(panel, comparison, (min(ends), max(ends))) for panel in frames]
    if any(rate_sensitivity(comparison).values()):
        drawn.append(_build_sensitivity(comparison))
    runs = [run for setting in settings for run in setting.runs]
    marks = [style.path for style in LINE_STYLES]
    return {"legend": legend, "panels": drawn, "marks": marks, "environments": list_differences(runs)}


def _build_panel(panel: Panel, comparison: Comparison, steps: tuple[float, float]) -> dict[str, Any]:
    (low, high), styles = vertical_range(panel), setting_styles(comparison)
    return {
        "title": f"{panel.title} (log scale)" if panel.log else panel.title,
        "wide": panel.title == RATE_TITLE,
        "order": 1 if panel.title != comparison.metric or not higher_is_better(panel.title) else -1,
        "x": {"title": "optimizer step", "low": steps[0], "high": steps[1], "log": False},
        "y": {"low": low, "high": high, "log": panel.log},
        "curves": [
            _build_curve(rank, band, styles[rank], comparison.settings[rank]) for rank, band in panel.bands.items()
        ],
    }


def _build_curve(rank: int, band: Band, style: LineStyle, setting: Setting) -> dict[str, Any]:
    curve = {"rank": rank, "name": setting.name, "style": _number_style(style), "broken": setting.broken > 0,
             "steps": _round_values(band.steps), "mean": _round_values(band.mean)}  # fmt: skip
    if band.low != band.high and style != OTHER:
        curve |= {"low": _round_values(band.low), "high": _round_values(band.high)}
    return curve


def _build_sensitivity(comparison: Comparison) -> dict[str, Any]:
    """Return the panel of the metric over the learning rate, with one curve for each family."""
    curves = []
    chosen, styles = comparison.chosen(), family_styles(comparison)
    for name, points in rate_sensitivity(comparison).items():
        low = [mean.mean - (mean.half or 0.0) for _, mean, _ in points]
        high = [mean.mean + (mean.half or 0.0) for _, mean, _ in points]
        curves.append({
            "name": name, "style": _number_style(styles[name]), "steps": [rate for rate, _, _ in points],
            "mean": _round_values(mean.mean for _, mean, _ in points),
            "low": _round_values(low), "high": _round_values(high),
            "lost": [setting.broken > 0 for _, _, setting in points],
            "chosen": [setting is chosen.get(name) for _, _, setting in points],
        })  # fmt: skip
    rates = sorted({rate for at in comparison.rates().values() for rate, _ in at})
    low_end, high_end, log = sensitivity_range(comparison)
    widen = (rates[-1] / rates[0]) ** 0.04
    return {
        "title": f"{comparison.by} {comparison.metric} over {comparison.rate}", "bars": True, "wide": False,
        "order": -1 if higher_is_better(comparison.metric) else 1,
        "x": {"title": f"{comparison.rate} (log scale)", "low": rates[0] / widen, "high": rates[-1] * widen,
              "log": True, "at": rates if len(rates) <= 9 else None},
        "y": {"low": low_end, "high": high_end, "log": log},
        "curves": curves,
    }  # fmt: skip


def _round_values(values: Iterable[float]) -> list[float]:
    """Round to five digits, which are more than a screen shows, to keep the file small."""
    return [float(f"{value:.5g}") for value in values]

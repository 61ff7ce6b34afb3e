"""Tables of a comparison: a row for each setting on the terminal and in Markdown, a row for each run in CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace

from lrkit.base import escaping
from lrkit.base.duration_text import format_duration
from lrkit.base.errors import name_some
from lrkit.base.metric_names import higher_is_better
from lrkit.base.plural import plural
from lrkit.base.run_files import CHECKPOINTS
from lrkit.base.terminal_width import wrap_text
from lrkit.base.text_table import format_table
from lrkit.comparison.best_lr import RankedFamilies
from lrkit.comparison.metric_values import best_value, final_value
from lrkit.comparison.ranking import Comparison
from lrkit.comparison.run_groups import PREDICTED, Setting
from lrkit.comparison.statistics import Interval

__all__ = [
    "Sheet",
    "describe_answer",
    "describe_comparison",
    "describe_families",
    "families_as_csv",
    "families_sheet",
    "list_notes",
    "settings_as_csv",
    "settings_sheet",
    "tables_as_markdown",
    "tables_as_text",
]  # fmt: skip


_NAMED, _NOTES = 5, 12  # most settings named in the answer, most notes below a table
_MANY, _BEST = 15, 12  # with more settings than _MANY, the terminal shows the _BEST first ones


@dataclass(frozen=True)
class Sheet:
    """A table as text.

    Attributes:
        names: names of the columns.
        left: names of the columns of words, which are aligned left; the others are numbers.
        rows: cells, the best row first.
        keys: number of the first columns, which name a row.
    """

    names: list[str]
    left: set[str]
    rows: list[list[str]]
    keys: int = 1


def settings_sheet(comparison: Comparison) -> Sheet:
    """Return a table with a row for each setting; the metric that ranks comes first."""
    first = ("best", "final") if comparison.by == "best" else ("final", "best")
    names = ["#", "", *comparison.columns, *(f"{name} {comparison.metric}" for name in first)]
    rows = []
    for rank, setting in enumerate(comparison.settings, 1):
        values = [_format_interval(getattr(setting, name)) for name in first]
        rows.append([str(rank), setting.mark, *setting.label.values(), *values, *_format_outcome(setting)])
    return Sheet([*names, "runs", "steps", "time", "status"], {"", "status", *comparison.columns}, rows, 2)


def families_sheet(tuned: RankedFamilies) -> Sheet:
    """Return a table with a row for each family; first the metric that ranks, last the metric that chose the rate."""
    columns = list(tuned.choices[0].label)
    shown = {tuned.judged_by: "judged", tuned.beside: "beside", tuned.chosen_by: "chosen"}
    values = {name: part for name, part in shown.items() if name is not None}
    rows = []
    for rank, choice in enumerate(tuned.choices, 1):
        cells = [str(rank), choice.mark, *choice.label.values(), choice.marked_rate]
        rows.append(
            [
                *cells,
                *(_format_interval(getattr(choice, part)) for part in values.values()),
                _format_outcome(choice.setting)[0],
            ]
        )
    return Sheet(["#", "", *columns, "rate", *values, "runs"], {"", *columns, "rate"}, rows, 2)


def tables_as_text(comparison: Comparison, width: int | None = None) -> str:
    """Return the text for a terminal: families at their best rates if there are any, settings, answer and notes.

    ``width`` is the number of columns of the terminal; None: no limit.
    """
    settings, tuned = settings_sheet(comparison), comparison.best_rates
    lines = []
    if tuned is not None:
        families = _render_text(families_sheet(tuned), width)
        lines += [f"{describe_families(tuned)}:", families, ""]
        lines.append(f"All settings, by the {comparison.by} {comparison.metric}:")
    rows = len(settings.rows) if len(settings.rows) <= _MANY else _BEST
    lines.append(_render_text(replace(settings, rows=settings.rows[:rows]), width))
    if (more := len(settings.rows) - rows) > 0:
        lines.append(f"{more} more in results.md")
    lines += ["", describe_answer(comparison)]
    said = list_notes(comparison)
    lines += [f"note: {note}" for note in said[:_NOTES]]
    if (more := len(said) - _NOTES) > 0:
        lines.append(f"note: {more} more in results.md")
    return wrap_text("\n".join(lines), width) + "\n"


def _render_text(shown: Sheet, width: int | None) -> str:
    return format_table(shown.names, shown.rows, width, shown.left, keys=shown.keys)


def tables_as_markdown(comparison: Comparison) -> str:
    """Return the same tables in GitHub's Markdown."""
    tuned = comparison.best_rates
    parts = [escaping.escape_markdown(describe_answer(comparison))]
    if tuned is not None:
        parts += [
            escaping.escape_markdown(f"{describe_families(tuned)}:"),
            _render_markdown(families_sheet(tuned)),
            "All settings:",
        ]
    said = (describe_comparison(comparison), *list_notes(comparison))
    parts += [
        _render_markdown(settings_sheet(comparison)),
        "\n".join(f"- {escaping.escape_markdown(line)}" for line in said),
    ]
    return "\n\n".join(parts) + "\n"


def _render_markdown(shown: Sheet) -> str:
    rows = [[escaping.escape_markdown(cell) for cell in row] for row in (shown.names, *shown.rows)]
    rows.insert(1, [":--" if name in shown.left else "--:" for name in shown.names])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def settings_as_csv(comparison: Comparison) -> str:
    """Return CSV with a row for each run, failed runs included, in the order of the ranking.

    Means and intervals are over seeds. A number read back has the same bits; an empty cell is a missing value.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    values = ["best", "final", "best_mean", "best_interval", "final_mean", "final_interval"]
    tests = sorted({name for setting in comparison.settings for run in setting.runs for name in run.test})
    facts = list(dict.fromkeys(fact for setting in comparison.settings for run in setting.runs
                               for fact in run.environment))  # fmt: skip
    ends = ["steps", "seconds", "status", "checkpoint", *facts, "run"]
    names = ["rank", "mark", *comparison.columns, "seed", "metric", *values, *tests, *ends]
    writer.writerow([escaping.escape_csv(name) for name in names])
    for rank, setting in enumerate(comparison.settings, 1):
        means = [*_split_interval(setting.best), *_split_interval(setting.final)]
        for run in setting.runs:
            own = [best_value(run, comparison.metric), final_value(run, comparison.metric)]
            kept = [path for path in (run.folder / CHECKPOINTS / f"{name}.ckpt" for name in ("best", "last"))
                    if path.is_file()]  # fmt: skip
            own += [*means, *(run.test.get(name) for name in tests)]
            cells = [rank, setting.mark, *setting.label.values(), run.seed, comparison.metric, *own]
            cells += [run.steps, run.seconds, run.status, str(kept[0]) if kept else None]
            cells += [*(run.environment.get(fact) for fact in facts), run.name]
            writer.writerow([escaping.escape_csv(cell) for cell in cells])
    return file.getvalue()


def families_as_csv(tuned: RankedFamilies) -> str:
    """Return CSV with a row for each family at its own best rate; numbers and empty cells as in ``settings_as_csv``."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns = list(tuned.choices[0].label)
    values = ["judged_by", "mean", "interval", "chosen_by", "chosen_mean", "chosen_interval", "runs", "ended"]
    names = ["rank", "mark", *columns, tuned.rate, "edge", *values]
    writer.writerow([escaping.escape_csv(name) for name in names])
    for rank, choice in enumerate(tuned.choices, 1):
        cells = [rank, choice.mark, *choice.label.values(), choice.rate, choice.edge]
        means = [tuned.judged_by, *_split_interval(choice.judged), tuned.chosen_by, *_split_interval(choice.chosen)]
        cells += [*means, len(choice.setting.runs), choice.setting.ended]
        writer.writerow([escaping.escape_csv(cell) for cell in cells])
    return file.getvalue()


def describe_comparison(comparison: Comparison) -> str:
    """Return one line with the numbers of runs and settings, and the metric that ranks."""
    trained = [setting for setting in comparison.settings if setting.status != PREDICTED]
    settings, runs = len(trained), sum(len(setting.runs) for setting in trained)
    predicted = f" and {len(comparison.settings) - settings} predicted" * (len(comparison.settings) > settings)
    seeds = "; ± is the 95 % interval of the mean over seeds" if runs > settings else ""
    return (
        f"{plural(runs, 'run')}, {plural(settings, 'setting')}{predicted}, "
        f"ranked by the {comparison.by} {comparison.metric} ({_say_direction(comparison.metric)}){seeds}"
    )


def describe_families(tuned: RankedFamilies) -> str:
    """Return one line with the metrics that choose the rates and rank the families."""
    judged = f", judged by {tuned.judged_by}" if tuned.tested else ""
    direction = _say_direction(tuned.judged_by)
    return f"Each at its own best {tuned.rate}, chosen by the {tuned.chosen_by}{judged} ({direction})"


def describe_answer(comparison: Comparison) -> str:
    """Return the answer: the best setting and those not separable from it; families, if the rate was swept."""
    if (tuned := comparison.best_rates) is not None:
        first, metric = tuned.choices[0], tuned.judged_by
        at = f" at {tuned.rate}={first.rate}" if first.rate else ""
        name, value, mark = first.name + at, first.judged, first.mark
        alike = [choice.name for choice in tuned.choices if choice.mark == "="]
    else:
        best, metric = comparison.settings[0], f"{comparison.by} {comparison.metric}"
        name, value, mark = best.name, getattr(best, comparison.by), best.mark
        alike = [setting.name for setting in comparison.settings if setting.mark == "="]
    if not mark:
        return "No run finished, so no setting is best."
    inseparable = f" Not separable from it: {name_some(alike, _NAMED)}." if alike else ""
    if comparison.answer_predicted:  # the ranking of the trained ones is not the ranking of the prediction
        return f"{comparison.answer_predicted} Best trained: {name} ({metric} {value}).{inseparable}"
    return f"Best: {name} ({metric} {value}).{inseparable}"


def list_notes(comparison: Comparison) -> list[str]:
    """Return the notes for the reader of the tables, without repetition."""
    tuned = comparison.best_rates
    return list(dict.fromkeys([*(tuned.notes if tuned else ()), *comparison.notes]))


def _format_outcome(setting: Setting) -> list[str]:
    count = str(setting.ended) if not setting.broken else f"{setting.ended} of {len(setting.runs)}"
    return [
        count,
        "" if setting.steps is None else str(setting.steps),
        format_duration(setting.seconds),
        setting.status,
    ]


def _say_direction(metric: str) -> str:
    return "higher is better" if higher_is_better(metric) else "lower is better"


def _format_interval(value: Interval | None) -> str:
    return "" if value is None else str(value)


def _split_interval(value: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if value is None else (value.mean, value.half)

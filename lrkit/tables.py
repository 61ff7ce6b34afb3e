"""A comparison as tables: a row for each setting on the terminal and in Markdown, a row for each run as CSV."""

from __future__ import annotations

import csv
import io

from lrkit.compare import Comparison, best_of, final_of
from lrkit.monitors import higher_is_better
from lrkit.settings import Setting

__all__ = ["about", "answer", "as_csv", "duration", "header", "left_aligned", "markdown", "row", "text"]


_NAMED, _NOTES = 5, 12  # settings that fit into a sentence, and sentences that fit below a table


def text(comparison: Comparison) -> str:
    """The table for a terminal, the answer, and remarks."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=io.StringIO(), soft_wrap=True, width=200, highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    names = header(comparison)
    for name in names:
        table.add_column(Text(name), justify="left" if name in left_aligned(comparison) else "right", no_wrap=True)
    for i in range(len(comparison.settings)):
        table.add_row(*(Text(cell) for cell in row(comparison, i)))
    console.print(table)
    console.print()
    console.print(Text(answer(comparison)))
    for note in comparison.notes[:_NOTES]:
        console.print(Text(f"note: {note}"))
    if (more := len(comparison.notes) - _NOTES) > 0:
        console.print(Text(f"note: {more} more in results.md"))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def markdown(comparison: Comparison) -> str:
    """The same table for a README or an issue, as GitHub's Markdown."""
    settings, names = comparison.settings, header(comparison)
    left = left_aligned(comparison)
    rows = [names, [":--" if name in left else "--:" for name in names]]
    rows += [[cell.replace("|", "\\|") for cell in row(comparison, i)] for i in range(len(settings))]
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    notes = [f"- {note}" for note in (about(comparison), *comparison.notes)]
    return "\n".join([answer(comparison), "", *lines, "", *notes]) + "\n"


def as_csv(comparison: Comparison) -> str:
    """A row for each run, also of those that failed, in the order of the ranking; means and intervals are over seeds.

    Numbers are written so that reading them gives the same bits; an empty cell is a value that there is not.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    values = ["best", "final", "best_mean", "best_interval", "final_mean", "final_interval"]
    ends = ["steps", "seconds", "status", "checkpoint", "run"]
    writer.writerow(["rank", "mark", *comparison.columns, "seed", "metric", *values, *ends])
    for rank, setting in enumerate(comparison.settings, 1):
        means = [number for mean in (setting.best, setting.final)
                 for number in ((None, None) if mean is None else (mean.mean, mean.half))]  # fmt: skip
        for run in setting.runs:
            own = [best_of(run, comparison.metric), final_of(run, comparison.metric)]
            kept = [path for path in (run.folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
                    if path.is_file()]  # fmt: skip
            cells = [rank, setting.mark, *setting.label.values(), run.seed, comparison.metric, *own, *means]
            writer.writerow([*cells, run.steps, run.seconds, run.status, kept[0] if kept else None, run.name])
    return file.getvalue()


def about(comparison: Comparison) -> str:
    """One line: what is compared, over how much."""
    settings, runs = len(comparison.settings), sum(len(setting.runs) for setting in comparison.settings)
    better = "higher" if higher_is_better(comparison.metric) else "lower"
    seeds = "; ± is the 95 % interval of the mean over seeds" if runs > settings else ""
    return (
        f"{runs} {_plural('run', runs)}, {settings} {_plural('setting', settings)}, ranked by the {comparison.by} "
        f"{comparison.metric} ({better} is better){seeds}"
    )


def answer(comparison: Comparison) -> str:
    """One sentence: which setting is best, and which cannot be told apart from it."""
    best = comparison.settings[0]
    if not best.mark:
        return "No run came to its end, so nothing is best."
    said = f"Best: {best.name} ({comparison.by} {comparison.metric} {getattr(best, comparison.by)})."
    alike = [setting.name for setting in comparison.settings if setting.mark == "="]
    more = f" and {len(alike) - _NAMED} more" if len(alike) > _NAMED else ""
    return said + (f" Not separable from it: {', '.join(alike[:_NAMED])}{more}." if alike else "")


def header(comparison: Comparison) -> list[str]:
    """The names of the columns; what is ranked by comes first."""
    values = [f"{name} {comparison.metric}" for name in _by_first(comparison)]
    return ["#", "", *comparison.columns, *values, "runs", "steps", "time", "status"]


def left_aligned(comparison: Comparison) -> tuple[str, ...]:
    return ("", "status", *comparison.columns)


def row(comparison: Comparison, i: int) -> list[str]:
    """The cells of the setting that is ranked at ``i``, from 0."""
    setting = comparison.settings[i]
    values = ["" if (value := getattr(setting, name)) is None else str(value) for name in _by_first(comparison)]
    return [str(i + 1), setting.mark, *setting.label.values(), *values, *_ends(setting)]


def duration(seconds: float | None) -> str:
    """A time as a person says it.

    >>> duration(5.94), duration(75), duration(7384), duration(None)
    ('5.9 s', '1 min 15 s', '2 h 03 min', '')
    """
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _by_first(comparison: Comparison) -> tuple[str, str]:
    return ("best", "final") if comparison.by == "best" else ("final", "best")


def _ends(setting: Setting) -> list[str]:
    ended = len(setting.runs) - setting.broken
    count = str(ended) if not setting.broken else f"{ended} of {len(setting.runs)}"
    return [count, "" if setting.steps is None else str(setting.steps), duration(setting.seconds), setting.status]


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"

"""The lines at the end of a run: the table of its metrics, what its callbacks measured, and where its files are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lrkit.base.files import shorten_path
from lrkit.base.metric_names import higher_is_better
from lrkit.base.terminal_width import find_width, print_line, wrap_text
from lrkit.base.text_table import format_table
from lrkit.callbacks.results_writer import ResultsWriter

__all__ = ["metric_table", "print_closing"]

_SAID = 2  # findings that are printed


def print_closing(
    folder: Path,
    results: ResultsWriter,
    ended: str = "",
    tensorboard: bool = True,
    said: Sequence[str] = (),
) -> None:
    """Print the end of the run, the two gravest findings, and the paths of its files.

    Args:
        folder: the run's folder.
        results: its metrics, its duration and its diagnosis, the gravest finding first.
        ended: why it ended before its last step; empty if it did not.
        tensorboard: whether there are curves for TensorBoard.
        said: lines of callbacks with measurements.
    """
    print_line()
    print_line(metric_table(results, find_width()))
    for line in said:
        print_line(line)
    for finding in results.findings[:_SAID]:
        print_line(f"diagnosis: {finding}", style="yellow")
    if ended:
        print_line(f"\n{ended}")
    print_line(f"{'' if ended else chr(10)}{results.seconds:.1f} s; everything is in {shorten_path(folder)}")
    if tensorboard:
        print_line(f"curves: tensorboard --logdir {shorten_path(folder)}")


def metric_table(results: ResultsWriter, width: int | None = None) -> str:
    """Return a row for each metric: its last value, its value at the best one of the monitored metric, its own best.

    Args:
        results: the metrics of a run.
        width: columns of the terminal; None: no limit.
    """
    names = ["metric", "final", *([f"at best {results.monitor}"] if results.at_best else [])]
    names += ["own best", "which"] if results.own_best else []
    rows = [[*_format_row(name, results)] for name in sorted({*results.final, *results.at_best})]
    table = format_table(names, rows, width, {"metric", "which"})
    if not results.at_best or results.best_step is None:
        return table
    return f"{table}\n{wrap_text(f'best {results.monitor}: after step {results.best_step}', width)}"


def _format_row(name: str, results: ResultsWriter) -> Iterator[str]:
    yield name
    for values in (results.final, results.at_best):
        if values or values is results.final:
            yield f"{values[name]:.4g}" if name in values else ""
    if results.own_best:
        value, step = results.own_best.get(name, (None, None))
        yield "" if value is None else f"{value:.4g}"
        yield "" if value is None else f"{'max' if higher_is_better(name) else 'min'}, step {step}"

"""The files of a comparison: tables, figures and an HTML page."""

from __future__ import annotations

from pathlib import Path

from lrkit.base.errors import ConfigError
from lrkit.base.files import write_file
from lrkit.comparison import figures, html_page, tables
from lrkit.comparison.plot_data import build_panels
from lrkit.comparison.ranking import Comparison

__all__ = ["write_report"]


def write_report(comparison: Comparison, folder: Path) -> tuple[list[Path], list[str]]:
    """Write the tables, the page ``compare.html`` and the figures into ``folder``.

    Returns:
        The paths of the files, and an error message if the figures could not be drawn.
    """
    frames = build_panels(comparison)
    texts = {
        "results.csv": tables.settings_as_csv(comparison),
        "results.md": tables.tables_as_markdown(comparison),
        "compare.html": html_page.render_page(comparison, frames),
    }
    if (tuned := comparison.best_rates) is not None:
        texts["tuned.csv"] = tables.families_as_csv(tuned)
    for name, content in texts.items():
        write_file(folder / name, content)
    files, notes = [folder / name for name in texts], []
    try:
        files += figures.draw_figures(comparison, frames, folder)
    except ConfigError as error:  # all other files are written
        notes.append(str(error))
    return files, notes

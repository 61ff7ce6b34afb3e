"""Everything that a comparison leaves in a folder: tables, pictures, and a page to look into."""

from __future__ import annotations

from pathlib import Path

from lrkit import figures, page, tables
from lrkit.bands import panels
from lrkit.compare import Comparison
from lrkit.errors import ConfigError
from lrkit.files import write_file
from lrkit.tuned import tune

__all__ = ["write"]


def write(comparison: Comparison, folder: Path) -> tuple[list[Path], list[str]]:
    """Write the tables, the page ``compare.html`` and the pictures.

    Returns:
        The files, and a sentence about each thing that could not be drawn.
    """
    frames = panels(comparison)
    texts = {
        "results.csv": tables.as_csv(comparison),
        "results.md": tables.markdown(comparison),
        "compare.html": page.html(comparison, frames),
    }
    if (tuned := tune(comparison)) is not None:
        texts["tuned.csv"] = tables.tuned_as_csv(tuned)
    for name, content in texts.items():
        write_file(folder / name, content)
    files, notes = [folder / name for name in texts], []
    try:
        files += figures.draw(comparison, frames, folder)
    except ConfigError as error:  # there is everything but the pictures
        notes.append(str(error))
    return files, notes

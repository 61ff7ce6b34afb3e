"""`lrkit compare`: the runs of sweeps, ranked and drawn."""

from __future__ import annotations

import os
from pathlib import Path

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.exit_codes import OK
from lrkit.base.terminal_width import find_width, print_line
from lrkit.cli.output_folders import create_folder, make_writable

__all__ = ["run_compare"]


def run_compare(argv: list[str]) -> int:
    """Rank the runs in the folders, print the table, and write tables and pictures to ``out``."""
    from lrkit.comparison import report, tables
    from lrkit.comparison.ranking import compare

    keys = ("metric", "by", "out")
    given: dict[str, str] = {}
    paths: list[Path] = []
    for word in argv:
        key, equals, value = word.partition("=")
        if equals and key in keys:
            if not value or key in given:
                raise ConfigError(key, f"has no value: write {key}=..." if not value else "is given twice", word)
            given[key] = value
        elif word.startswith("-"):
            raise ConfigError(word, f"is not a flag of lrkit compare: it takes folders, and {'=, '.join(keys)}=")
        elif equals and not os.path.exists(word) and key.isidentifier():
            raise ConfigError(key, f"is not a key. {did_you_mean(key, keys)}")
        else:
            paths.append(Path(word))
    if not paths:
        raise ConfigError("lrkit compare", "needs a folder of runs: lrkit compare outputs/sweeps/...")
    comparison = compare(paths, given.get("metric"), given.get("by", "best"))
    if "out" in given or len(paths) == 1:
        out = Path(given["out"]) if "out" in given else paths[0]
        make_writable(out, "out")
    else:
        out = Path(create_folder(Path("outputs") / "compare"))
    files, notes = report.write_report(comparison, out)
    print_line(tables.tables_as_text(comparison, find_width()).rstrip("\n"))
    for note in notes:
        print_line(f"note: {note}")
    print_line(f"{', '.join(file.name for file in files)} are in {out}")
    return OK

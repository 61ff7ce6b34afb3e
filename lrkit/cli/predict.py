"""`lrkit predict`: schedules that were not trained, ranked by the curves of finished runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from lrkit.base.errors import ConfigError
from lrkit.base.exit_codes import OK
from lrkit.base.terminal_width import find_width, print_line
from lrkit.cli.arguments import check_format, refuse_flags, split_arguments
from lrkit.cli.output_folders import create_folder, make_writable

__all__ = ["run_predict"]


def run_predict(argv: list[str]) -> int:
    """Print the ranking; ``format=text`` also writes it, and the curves, to ``out``."""
    from lrkit.prediction import tables
    from lrkit.prediction.candidates import list_candidates
    from lrkit.prediction.prediction import predict_losses
    from lrkit.prediction.recorded_runs import load_recorded_runs
    from lrkit.prediction.run_check import check_runs

    flags, words, config_dir = split_arguments(argv)
    refuse_flags("predict", flags)
    folders, overrides, keys = _split_words(words)
    form = check_format("predict", keys.get("format", "text"))
    if not folders:
        raise ConfigError("lrkit predict", "needs the folders of finished runs: lrkit predict outputs/runs/... ...")
    runs = load_recorded_runs(folders)
    check_runs(runs)
    prediction = predict_losses(runs, list_candidates(runs[0].folder, overrides, config_dir))
    if form == "json":
        print(json.dumps(prediction.to_json(), indent=2))
    elif form == "csv":
        print(tables.render_csv(prediction), end="")
    else:
        from lrkit.comparison.predicted_runs import write_prediction

        if "out" in keys:
            make_writable(Path(keys["out"]), "out")
        out = Path(keys["out"]) if "out" in keys else Path(create_folder(Path("outputs") / "predict"))
        if form == "text":
            print_line(tables.render_text(prediction, find_width()))
        files, notes = write_prediction(
            prediction, folders, out, config=runs[0].plan.config, only_picture=form == "png"
        )
        for note in notes:
            print_line(f"note: {note}")
        print_line(str(files[0]) if form == "png" else f"{', '.join(file.name for file in files)} are in {out}")
    return OK


def _split_words(words: Sequence[str]) -> tuple[list[Path], list[str], dict[str, str]]:
    """Return the folders, the overrides, and the values of the keys of the command."""
    folders, overrides, keys = list[Path](), list[str](), dict[str, str]()
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in ("format", "out"):
            if not value or key in keys:
                raise ConfigError(key, f"has no value: write {key}=..." if not value else "is given twice", word)
            keys[key] = value
        elif equals and not os.path.exists(word):
            overrides.append(word)
        else:
            folders.append(Path(word))
    return folders, overrides, keys

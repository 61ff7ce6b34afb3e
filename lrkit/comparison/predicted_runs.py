"""The files of a prediction: its JSON, and the comparison of the finished runs with the predicted ones, dashed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.files import write_file, write_json
from lrkit.comparison import figures, html_page
from lrkit.comparison.plot_data import build_panels
from lrkit.comparison.ranking import compare
from lrkit.comparison.run_groups import PREDICTED
from lrkit.prediction.prediction import PredictedRun, Prediction
from lrkit.prediction.tables import describe_first
from lrkit.runs.event_reader import Series
from lrkit.runs.run_reader import Run, run_of_config

__all__ = ["write_prediction"]

_RATES = 400  # points of a curve of learning rates


def write_prediction(
    prediction: Prediction,
    folders: Sequence[Path],
    out: Path,
    *,
    config: Mapping[str, Any],
    only_picture: bool = False,
) -> tuple[list[Path], list[str]]:
    """Write ``predict.json``, ``compare.html`` and ``predict.png`` into ``out``.

    Args:
        prediction: of runs at or below ``folders``.
        folders: as they were given to the prediction.
        out: an existing folder.
        config: of a finished run: keys that only a newer lrkit has are no difference to it.
        only_picture: write only ``predict.png``.

    Returns:
        The paths of the files, and an error message if the picture could not be drawn.

    Raises:
        ConfigError: matplotlib is not installed, and only the picture is asked for.
    """
    known = {"schedule", "warmup", "cooldown", "plateau", "horizon", *run_of_config("", config).facts}
    runs = [_make_run(prediction, run, known) for run in prediction.predicted if run.measured is None]
    comparison = compare(folders, prediction.metric, "final", runs)
    comparison.answer_predicted = describe_first(prediction)
    frames = build_panels(comparison)
    files, notes = list[Path](), list[str]()
    if not only_picture:
        write_json(out / "predict.json", prediction.to_json())
        write_file(out / "compare.html", html_page.render_page(comparison, frames))
        files += [out / "predict.json", out / "compare.html"]
    try:
        files.append(figures.draw_curves(comparison, frames, out / "predict.png"))
    except ConfigError as error:
        if only_picture:
            raise
        notes.append(str(error))
    return files, notes


def _make_run(prediction: Prediction, predicted: PredictedRun, known: set[str]) -> Run:
    """Return a predicted run in the form of a finished one; its loss curve only if losses are shown."""
    plan = predicted.plan
    run = run_of_config(f"predicted {predicted.label}", plan.config)
    run.facts = {key: fact for key, fact in run.facts.items() if {key, key.partition(".")[0]} & known}
    run.status, run.steps = PREDICTED, predicted.steps[-1]
    at = sorted({predicted.steps[-1] * i // _RATES for i in range(_RATES)})
    run.series["lr/default"] = Series(at, [plan.lr(plan.main_group, step) for step in at])
    if prediction.has_numbers:
        run.series[prediction.metric] = Series([*predicted.steps], [*predicted.losses])
        run.final[prediction.metric] = predicted.loss
    return run

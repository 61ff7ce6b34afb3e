"""A prediction as text, CSV and JSON; losses only where the law fits well enough for them."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from typing import TYPE_CHECKING, Any

from lrkit.base.errors import name_some
from lrkit.base.text_table import format_table

if TYPE_CHECKING:
    from lrkit.prediction.prediction import PredictedRun, Prediction

__all__ = ["describe_first", "prediction_to_json", "render_csv", "render_text"]

_NAMED = 3  # schedules that a note names


def render_text(prediction: Prediction, width: int | None = None) -> str:
    """Return the table and its notes."""
    names, rows = _list_columns(prediction)
    table = format_table(names, rows, width, {"", "schedule"}, 3)
    return "\n".join([describe_fit(prediction), table, *(f"note: {note}" for note in list_notes(prediction))])


def render_csv(prediction: Prediction) -> str:
    """Return a line for each predicted run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = ["loss", "low", "high"] if prediction.has_numbers else []
    writer.writerow(["rank", "mark", "schedule", "lr", "steps", *numbers, "notes"])
    for rank, run in enumerate(prediction.predicted, 1):
        losses = [f"{getattr(run, name):.6g}" for name in numbers]
        cells = [rank, run.mark, run.label, f"{run.plan.base():g}", _count_steps(run), *losses, "; ".join(run.notes)]
        writer.writerow(cells)
    return text.getvalue()


def prediction_to_json(prediction: Prediction) -> dict[str, Any]:
    """Return the prediction as plain containers."""
    told = ("loss", "low", "high", "steps", "losses") if prediction.has_numbers else ()
    return {
        "metric": prediction.metric,
        "law": dataclasses.asdict(prediction.law),
        "misfit": prediction.misfit,
        "left_out": prediction.left_out,
        "has_numbers": prediction.has_numbers,
        "runs": prediction.runs,
        "predicted": [
            {
                "rank": rank,
                "mark": run.mark,
                "schedule": run.label,
                "lr": run.plan.base(),
                "length": _count_steps(run),
                **{name: getattr(run, name) for name in told},
                "notes": list(run.notes),
            }
            for rank, run in enumerate(prediction.predicted, 1)
        ],
        "notes": list_notes(prediction),
    }


def describe_fit(prediction: Prediction) -> str:
    """Return what was fitted, and how well, in a line."""
    left = "" if prediction.left_out is None else f", {100 * prediction.left_out:.2g} % for a schedule left out"
    law = f"{prediction.metric} by an annealing law of {prediction.runs} runs"
    return f"{law}: it is off by {100 * prediction.misfit:.2g} %{left}"


def describe_first(prediction: Prediction) -> str:
    """Return a sentence with the schedule that ranks first, and how many are not separable from it."""
    first, *others = prediction.predicted
    names, (row, *_) = _list_columns(prediction)
    told = f" ({names[-2]} {row[-2]}, {names[-1]} {row[-1]})" if prediction.has_numbers else ""
    alike = [run.label for run in others if run.mark == "="]
    inseparable = f" Not separable from it: {name_some(alike, _NAMED)}." if alike else ""
    return f"Predicted best: {first.label}{told}.{inseparable}"


def list_notes(prediction: Prediction) -> list[str]:
    """Return what the reader of the table must know."""
    from lrkit.prediction.prediction import GATE

    notes = list(prediction.notes)
    if not prediction.has_numbers:
        why = f"the law is off by {100 * prediction.error:.2g} %, and losses are shown up to {100 * GATE:.0f} %"
        notes.insert(0, f"a ranking without losses: {why}")
    if any(run.mark == "=" for run in prediction.predicted):
        notes.append("= not separable from the best at 90 %")
    labels: dict[str, list[str]] = {}
    for run in prediction.predicted:
        for note in run.notes:
            labels.setdefault(note, []).append(run.label)
    return notes + [f"{name_some(some, _NAMED)}: {note}" for note, some in labels.items()]


def _list_columns(prediction: Prediction) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns, and the rows."""
    names = ["#", "", "schedule", "lr", "steps"]
    rows = [
        [str(rank), run.mark, run.label, f"{run.plan.base():g}", str(_count_steps(run))]
        for rank, run in enumerate(prediction.predicted, 1)
    ]
    if prediction.has_numbers:
        names += [f"final {prediction.metric}", "90 % interval"]
        for row, run in zip(rows, prediction.predicted, strict=True):
            places = min(6, max(0, 1 - math.floor(math.log10(max(run.high - run.low, 1e-12)))))
            row += [f"{run.loss:.{places}f}", f"{run.low:.{places}f} to {run.high:.{places}f}"]
    return names, rows


def _count_steps(run: PredictedRun) -> int:
    return run.plan.horizon.end or run.plan.horizon.require("steps", "horizon.steps")

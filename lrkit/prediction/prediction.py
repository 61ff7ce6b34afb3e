"""Ranks schedules that were not trained, by the annealing law that fits the loss curves of finished runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lrkit.base.errors import ConfigError
from lrkit.planning.plan import Plan
from lrkit.prediction.annealing_law import AnnealingLaw, Numbers, final_losses
from lrkit.prediction.law_fit import LossCurve, fit_law, measure_residuals
from lrkit.prediction.recorded_runs import RecordedRun, sample_rates
from lrkit.prediction.run_check import check_runs, number_groups, separates_effects
from lrkit.prediction.task_check import refuse_different_task, refuse_unpredictable
from lrkit.prediction.uncertainty import SPREAD, draw_laws

__all__ = ["GATE", "PredictedRun", "Prediction", "predict_losses"]

#: The largest misfit, as a share of the loss, at which predicted losses are shown; above it only the ranking is.
GATE = 0.02
#: The largest misfit at which schedules are ranked at all.
_WORST = 0.3
_FAR_LENGTH, _FAR_RATE = 3.0, 2.0  # ratios to the fitted runs beyond which a prediction is an extrapolation
_LEAST_LOSS = 1e-12
_DRAWN = 200  # points of a predicted curve


@dataclass(frozen=True)
class PredictedRun:
    """A run that was not trained.

    Args:
        label: what distinguishes it, such as ``cosine``.
        plan: its plan.
        loss: predicted final loss.
        low, high: its 90 % interval.
        mark: ``best``; ``=`` if not separable from the best.
        notes: why the prediction is less certain, such as a length far from the fitted ones.
        steps, losses: predicted curve.
        bootstrap: standard deviation of the loss over the bootstrap, as a share of it.
        log_length, log_rate: logarithms of the ratios of length and peak rate to those of the nearest finished runs.
        measured: mean final loss of the finished runs with these rates; None if there is none.
    """

    label: str
    plan: Plan
    loss: float
    low: float
    high: float
    mark: str
    notes: tuple[str, ...]
    steps: Sequence[int]
    losses: Sequence[float]
    bootstrap: float
    log_length: float
    log_rate: float
    measured: float | None = None


@dataclass(frozen=True)
class Prediction:
    """Predicted runs, best first. ``str(prediction)`` is a table.

    Attributes:
        metric: the loss that is predicted: ``val/loss``, or ``train/loss``.
        law: the fitted law.
        misfit: root mean square of the residuals, as a share of the loss.
        left_out: root mean square error of the final loss of each schedule by a law of the others; None with fewer
            than three schedules.
        runs: number of fitted runs.
        predicted: the schedules, the lowest loss first.
        notes: sentences for the reader of the table.
    """

    metric: str
    law: AnnealingLaw
    misfit: float
    left_out: float | None
    runs: int
    predicted: tuple[PredictedRun, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def error(self) -> float:
        """The error that decides what is shown: ``left_out`` where it is known, else ``misfit``."""
        return self.misfit if self.left_out is None else max(self.misfit, self.left_out)

    @property
    def has_numbers(self) -> bool:
        """Whether the law fits well enough for losses; else only the ranking counts."""
        return self.error <= GATE

    def __str__(self) -> str:
        from lrkit.prediction.tables import render_text

        return render_text(self)

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as plain containers; without losses if the law fits too badly for them."""
        from lrkit.prediction.tables import prediction_to_json

        return prediction_to_json(self)


def predict_losses(runs: Sequence[RecordedRun], candidates: Mapping[str, Plan]) -> Prediction:
    """Return the candidates, ranked by their predicted final loss.

    Args:
        runs: finished runs of one task, in any order: one at least that holds its rate for half of its steps, as
            ``constant`` and ``wsd`` do, and one of another schedule that decays.
        candidates: label -> plan.

    Raises:
        ConfigError: the runs are of different tasks, too few, or do not follow the law; or a candidate is of another
            task.
    """
    runs = sorted(runs, key=lambda run: (run.plan.base_lr, len(run.curve.rates), run.name, str(run.seed)))
    check_runs(runs)
    for label, plan in candidates.items():
        refuse_unpredictable(plan, label)
        refuse_different_task(runs[0].plan, plan, label)
        plan.horizon.require("steps", "horizon.steps")
    curves = [run.curve for run in runs]
    groups = number_groups(curves)
    law = fit_law(curves)
    misfit = _root_mean_square(np.concatenate([measure_residuals(law, curve) for curve in curves]))
    if misfit > _WORST:
        off = f"their losses are off it by {100 * misfit:.0f} %, and up to {100 * _WORST:.0f} % they can rank schedules"
        raise ConfigError("the runs", f"must follow the annealing law: {off}")
    samples = draw_laws(curves, groups, law)
    found = [_predict_run(label, plan, runs, law, samples, misfit) for label, plan in candidates.items()]
    found.sort(key=lambda run: run.loss)
    left_out = _measure_left_out(curves, groups)
    return Prediction(runs[0].metric, law, misfit, left_out, len(runs), _mark_runs(found), _note_fit(runs, groups, law))


def _predict_run(
    label: str,
    plan: Plan,
    runs: Sequence[RecordedRun],
    law: AnnealingLaw,
    samples: Sequence[AnnealingLaw],
    misfit: float,
) -> PredictedRun:
    """Return a predicted run, not yet marked."""
    length = plan.horizon.end or plan.horizon.require("steps", "horizon.steps")
    rates, width = sample_rates(plan, length)
    loss, *drawn = np.maximum(final_losses([law, *samples], rates, width, length), _LEAST_LOSS).tolist()
    log_length = min((math.log(length / run.curve.length) for run in runs), key=abs)
    peak = float(rates.max())
    log_rate = min((math.log(peak / float(run.curve.rates.max())) for run in runs), key=abs)
    bootstrap = float(np.std(drawn)) / loss
    half = SPREAD.half_width(misfit, bootstrap, log_length, log_rate) * loss
    notes = []
    if abs(log_length) > math.log(_FAR_LENGTH):
        notes.append(f"extrapolates: {math.exp(log_length):.3g} x the length of the nearest run")
    if abs(log_rate) > math.log(_FAR_RATE):
        notes.append(f"extrapolates: {math.exp(log_rate):.3g} x the peak rate of the nearest run")
    if plan.momentum is not None:
        notes.append("moves momentum, which the law does not know")
    if plan.plateau is not None:
        notes.append("without what plateau would lower")
    trained = [run.final_loss for run in runs if np.array_equal(run.curve.rates, rates)]
    measured = float(np.mean(trained)) if trained else None
    if measured is not None:
        notes.append(f"was trained: its {runs[0].metric} is {measured:.4g}")
    first = max(1, plan.warmup_steps, length // 20)
    steps = sorted({first + (length - first) * i // _DRAWN for i in range(_DRAWN + 1)})
    losses = [float(value) for value in law.losses(rates, width, np.array(steps))]
    return PredictedRun(
        label, plan, loss, max(0.0, loss - half), loss + half, "", tuple(notes), steps, losses,
        bootstrap, log_length, log_rate, measured,
    )  # fmt: skip


def _mark_runs(found: Sequence[PredictedRun]) -> tuple[PredictedRun, ...]:
    """Return the runs with marks: two are separable if they differ by more than the wider half of their intervals."""
    best = found[0]
    marks = ["best"]
    for run in found[1:]:
        marks.append("" if run.loss - best.loss > max(run.high - run.loss, best.high - best.loss) else "=")
    return tuple(dataclasses.replace(run, mark=mark) for run, mark in zip(found, marks, strict=True))


def _measure_left_out(curves: Sequence[LossCurve], groups: Sequence[int]) -> float | None:
    """Return the error of the final loss of each schedule by a law of the others, as a share of the loss."""
    if len(set(groups)) < 3:
        return None
    errors = []
    for out in sorted(set(groups)):
        kept = [curve for curve, group in zip(curves, groups, strict=True) if group != out]
        if not separates_effects(kept):
            continue
        law = fit_law(kept)
        errors += [
            float(measure_residuals(law, curve)[-1])
            for curve, group in zip(curves, groups, strict=True)
            if group == out
        ]
    return _root_mean_square(np.array(errors)) if errors else None


def _note_fit(runs: Sequence[RecordedRun], groups: Sequence[int], law: AnnealingLaw) -> tuple[str, ...]:
    notes = []
    if runs[0].metric == "train/loss":
        notes.append("the runs have no common val/loss, so train/loss is predicted: overfitting is not seen")
    if law.gain == 0.0:
        notes.append("the decay lowered nothing in these runs, so the largest sum of rates ranks first")
    repeats = [[run.final_loss for run, own in zip(runs, groups, strict=True) if own == group] for group in set(groups)]
    if spreads := [float(np.std(losses, ddof=1) / np.mean(losses)) for losses in repeats if len(losses) > 1]:
        notes.append(f"the final losses of one schedule differ by {100 * np.mean(spreads):.2g} % over its seeds")
    return tuple(notes)


def _root_mean_square(values: Numbers) -> float:
    return float(np.sqrt(np.mean(values**2)))

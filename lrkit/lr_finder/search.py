"""The search for a learning rate: range tests on temporary copies, the analysis of their curves, and short runs."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence

from lrkit.config.find_options import Search
from lrkit.lr_finder import short_run
from lrkit.lr_finder.curve_analysis import CurveReading, RangeTestRun, has_diverged, read_curves
from lrkit.lr_finder.result import FinderResult, round_rate
from lrkit.lr_finder.short_run import ShortRun
from lrkit.lr_finder.successive_halving import Confirmation, confirm_rate
from lrkit.lr_finder.training_task import TrainingTask
from lrkit.planning.plan import Plan
from lrkit.schedules.curve import Curve

__all__ = ["Say", "search_rate"]

Say = Callable[[str], None]


def search_rate(task: TrainingTask, search: Search, say: Say) -> FinderResult:
    """Find the base learning rate for a training.

    Args:
        task: the training.
        search: the options of the range test and of the short runs.
        say: is called with a line about each step of the search.

    Raises:
        ConfigError: the training, or a search for its rate, is not possible.
    """
    begun = time.perf_counter()
    tests = list(_run_range_tests(task, search, say))
    sweeps, steps = [_read_range_test(test, search) for test in tests], sum(len(test.losses) for test in tests)
    reading = read_curves(sweeps)
    lr, low, high, reason = reading.lr, reading.low, reading.high, reading.reason
    confirmation: Confirmation | None = None
    scored, loss = "", "validation loss" if search.loss == "val" else "training loss"
    if search.confirm and lr is not None:
        estimates = ", ".join(f"{name} {estimate:.2g}" for name, estimate in reading.estimates.items())
        say(f"estimates from the curve: {estimates}")
        confirmation, run, scored = _confirm_rates(task, tests[0].full, reading, search, say)
        lr, low, high, reason, steps = (
            confirmation.lr,
            confirmation.low,
            confirmation.high,
            confirmation.reason,
            steps + run,
        )
    seconds, rounds = round(time.perf_counter() - begun, 3), confirmation.rounds if confirmation else ()
    if lr is None or low is None or high is None:
        return FinderResult(None, None, None, reason, False, steps, seconds, sweeps, reading, rounds, scored, loss)
    lr, low, high = round_rate(lr), round_rate(low), round_rate(high)
    return FinderResult(
        lr,
        min(low, lr),
        max(high, lr),
        "",
        confirmation is not None,
        steps,
        seconds,
        sweeps,
        reading,
        rounds,
        scored,
        loss,
    )


def _run_range_tests(task: TrainingTask, search: Search, say: Say) -> Iterator[ShortRun]:
    """The range tests, each with another seed."""

    def rising(full: Plan) -> tuple[Plan, int]:
        """The plan of a range test: only the rate rises, and the groups keep their proportions."""
        search.check_full(full.horizon)
        horizon = dataclasses.replace(full.horizon, steps=search.length(full.horizon), stop_after=None)
        plain = dataclasses.replace(
            full, horizon=horizon, group_curves={}, momentum=None, decay_curve=None, plateau=None
        )
        curve = Curve.build(search.schedule(), horizon)
        return dataclasses.replace(plain, base_lr=search.end, curve=curve), horizon.require("steps", "find.steps")

    def stop(losses: Sequence[float]) -> str:
        return "it diverged" if has_diverged(losses) else ""

    for repeat in range(search.repeats):
        seeded = task.with_seed((task.seed + repeat) % 2**32)
        test = short_run.run_short(seeded, rising, stop=stop, probe=search.loss == "val")
        last = test.rates[-1] if test.losses else search.start
        say(f"range test {repeat + 1} of {search.repeats}: {len(test.losses)} steps; {test.ended}, at lr {last:.3g}")
        yield test


def _read_range_test(test: ShortRun, search: Search) -> RangeTestRun:
    """The finite losses of a range test, with their rates."""
    losses = test.validated if search.loss == "val" else test.losses
    kept = [(lr, loss) for lr, loss in zip(test.rates, losses, strict=False) if math.isfinite(loss)]
    return RangeTestRun([lr for lr, _ in kept], [loss for _, loss in kept], test.ended)


def _confirm_rates(
    task: TrainingTask, full: Plan, reading: CurveReading, search: Search, say: Say
) -> tuple[Confirmation, int, str]:
    """The confirmation by short runs, their number of steps, and the name of their score."""
    taken, scored = 0, ""

    def train(rate: float, length: int) -> float:
        nonlocal taken, scored
        run = short_run.run_short(task, lambda plan: (plan.within(length, rate), length), score=True)
        taken += len(run.losses)
        scored = scored or run.scored
        ended = f"{run.scored} {run.score:.4g}" if math.isfinite(run.score) else "diverged"
        say(f"  lr {rate:<10.4g} {length} steps: {ended}")
        return run.score

    assert reading.minimum is not None
    say(f"short runs: the run's {full.horizon.steps or 'unlimited'} steps, compressed")
    return confirm_rate(train, reading.minimum, full.horizon.steps, search.rounds, search.full), taken, scored

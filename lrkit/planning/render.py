"""Output of a plan: text, CSV, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lrkit.base.errors import ConfigError
from lrkit.planning.batch_rendering import BATCH_TAG
from lrkit.planning.optimizer_tracks import step_at, track_tag
from lrkit.planning.plan_page import plan_page

if TYPE_CHECKING:
    from lrkit.planning.plan import Plan

__all__ = ["render_csv", "render_json", "render_text"]

_MOST_ROWS = 10**7  # of a CSV: half a gigabyte


def render_text(plan: Plan, width: int | None = None, *, curve: bool = True) -> str:
    """The plan as a page of text: the rate, the horizon, the phases, the groups, the curve drawn, and warnings.

    ``width`` is the number of columns of a terminal; None: no limit.
    """
    return "\n".join(plan_page(plan, width, curve=curve)) + "\n"


def render_csv(plan: Plan) -> str:
    """Return a header, and a row for each optimizer step: ``step``, ``lr/<group>``, then scheduled hyper-parameters.

    A reader of the numbers gets the same bits. With several optimizers there is a row for each batch, and
    ``lr/<track>/<group>`` is empty in batches without a step of the track. With a batch-size schedule,
    ``batch/effective`` has the samples of each step. For a run with an early stop, the column ``stopped`` is 1 for the
    steps after the stop, and 0 before.
    """
    if plan.horizon.steps is None:
        raise ConfigError("horizon.steps", "must be set to list a run of unknown length")
    if plan.horizon.steps > _MOST_ROWS:
        raise ConfigError("format=csv", f"lists at most {_MOST_ROWS} steps, and the run has {plan.horizon.steps}")
    drivers, per_epoch = _list_plans(plan), plan.horizon.steps_per_epoch
    names = [track_tag(tag, track) if track else tag for track, own in drivers.items() for tag in _list_values(own, 0)]
    stop, sizes = plan.horizon.stop_after, plan.horizon.batch_sizes
    names += [] if sizes is None else [BATCH_TAG]
    rows = [",".join(["step", *names, *([] if stop is None else ["stopped"])])]
    for step in range(plan.horizon.steps):
        cells: list[str] = []
        for own in drivers.values():
            t = step_at(step, own.every, own.offset, per_epoch)
            cells += map(repr, _list_values(own, t).values()) if t is not None else [""] * len(_list_values(own, 0))
        cells += [] if sizes is None else [str(sizes.at(step))]
        rows.append(",".join([str(step), *cells, *([] if stop is None else [str(int(step >= stop))])]))
    return "\n".join(rows) + "\n"


def _list_plans(plan: Plan) -> Mapping[str, Plan]:
    """Return the plans of the optimizers: those of the tracks by name, or the run's own with an empty name."""
    return plan.tracks or {"": plan}


def _list_values(plan: Plan, step: int) -> dict[str, float]:
    """Return the values of one optimizer at a step, by tag."""
    return {f"lr/{group.name}": plan.lr(group, step) for group in plan.groups} | plan.hyper(step)


def render_json(plan: Plan) -> str:
    """Return the plan as JSON."""
    return json.dumps(plan.to_json(), indent=2, default=str) + "\n"

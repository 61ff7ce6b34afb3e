"""Output of a plan: text, CSV, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lrkit.base.errors import ConfigError
from lrkit.planning.plan_page import plan_page
from lrkit.planning.tracks import step_at, track_tag

if TYPE_CHECKING:
    from lrkit.planning.plan import Plan

__all__ = ["FORMATS", "render_csv", "render_json", "render_text"]

_MOST_ROWS = 10**7  # half a gigabyte
FORMATS = ("text", "csv", "json", "png")


def render_text(plan: Plan, width: int | None = None, *, curve: bool = True) -> str:
    """The plan as a page of text: the rate, the horizon, the phases, the groups, the curve drawn, and warnings.

    ``width`` is the number of columns of a terminal; None: no limit.
    """
    return "\n".join(plan_page(plan, width, curve=curve)) + "\n"


def render_csv(plan: Plan) -> str:
    """A header, and a row for each optimizer step: ``step``, ``lr/<group>`` ..., then each driven hyper-parameter.

    Numbers are written so that reading them gives the same bits. With several optimizers there is a row for each batch,
    and ``lr/<track>/<group>`` is empty where that track takes no step. Of a run that stops early the column ``stopped``
    is 1 at the steps that it does not take, and 0 before.
    """
    if plan.horizon.steps is None:
        raise ConfigError("horizon.steps", "must be set to list a run of unknown length")
    if plan.horizon.steps > _MOST_ROWS:
        raise ConfigError("format=csv", f"lists at most {_MOST_ROWS} steps, and the run has {plan.horizon.steps}")
    drivers, per_epoch = _list_plans(plan), plan.horizon.steps_per_epoch
    names = [track_tag(tag, track) if track else tag for track, own in drivers.items() for tag in _list_values(own, 0)]
    stop = plan.horizon.stop_after
    rows = [",".join(["step", *names, *([] if stop is None else ["stopped"])])]
    for step in range(plan.horizon.steps):
        cells: list[str] = []
        for own in drivers.values():
            t = step_at(step, own.every, own.offset, per_epoch)
            cells += map(repr, _list_values(own, t).values()) if t is not None else [""] * len(_list_values(own, 0))
        rows.append(",".join([str(step), *cells, *([] if stop is None else [str(int(step >= stop))])]))
    return "\n".join(rows) + "\n"


def _list_plans(plan: Plan) -> Mapping[str, Plan]:
    """The plans that parameters follow: those of the tracks, or the run's own, which has no name."""
    return plan.tracks or {"": plan}


def _list_values(plan: Plan, step: int) -> dict[str, float]:
    """The values of one optimizer at a step, by tag."""
    return {f"lr/{group.name}": plan.lr(group, step) for group in plan.groups} | plan.hyper(step)


def render_json(plan: Plan) -> str:
    """The plan as JSON."""
    return json.dumps(plan.to_json(), indent=2, default=str) + "\n"

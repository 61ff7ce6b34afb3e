"""Output of a plan: text, CSV, JSON, picture. Matplotlib is loaded when used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrkit.base.errors import ConfigError
from lrkit.base.files import write_figure
from lrkit.planning.plan_page import plan_page
from lrkit.planning.plateau import Plateau, PlateauState
from lrkit.planning.tracks import step_at, track_tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lrkit.planning.plan import Plan

__all__ = ["FORMATS", "draw_picture", "render_csv", "render_json", "render_text"]

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


def draw_picture(plans: Mapping[str, Plan], path: Path) -> Path:
    """Draw learning rates over optimizer steps: up to six curves in one frame, more in a frame each.

    Args:
        plans: label -> plan.
        path: where to write; the ending chooses the kind (png, svg, pdf).
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("format=png", "needs the package matplotlib: pip install 'lrkit[plot]'") from None
    plans = {
        f"{label} {track}".strip(): own for label, plan in plans.items() for track, own in _list_plans(plan).items()
    }
    own_frames = len(plans) > 6
    columns = min((4, 5, 6), key=lambda c: -len(plans) % c) if own_frames else 1  # the fewest empty frames
    rows = math.ceil(len(plans) / columns) if own_frames else 1
    size = (2.2 * columns, 1.7 * rows) if own_frames else (6.4, 3.6)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=own_frames, sharey=own_frames)
    for i, (label, plan) in enumerate(plans.items()):
        ax = axes[i // columns][i % columns] if own_frames else axes[0][0]
        plan.horizon.require("steps", "format")
        for group in plan.groups:
            steps = plan.curve_of(group).places()
            name = label if len(plan.groups) == 1 else f"{label} {group.name}".strip()
            style: dict[str, Any] = {"lw": 1.5} if not own_frames else {"lw": 1.5, "color": "C0"}
            (line,) = ax.plot(steps, [plan.lr(group, step) for step in steps], label=name, **style)
            if plan.plateau is not None and plan.horizon.steps_per_epoch:
                gains = _never_better(plan, plan.plateau)
                rates = [plan.lr(group, step, gains[step]) for step in steps]
                worst = f"{name} if nothing ever improves"
                ax.plot(steps, rates, ls=":", lw=1.5, color="C1" if own_frames else line.get_color(), label=worst)
        _mark_stop(ax, plan)
        if own_frames:
            ax.set_title(label, fontsize=9)
            ax.tick_params(labelsize=7)
    for ax in axes.flat[len(plans) :] if own_frames else ():
        ax.set_visible(False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_ylim(bottom=0)
        ax.margins(x=0.01)
    figure.supxlabel("optimizer step", fontsize=9)
    figure.supylabel("learning rate", fontsize=9)
    if not own_frames and (len(plans) > 1 or len(next(iter(plans.values())).groups) > 1):
        axes[0][0].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_figure(path, figure)
    return path


def _mark_stop(ax: Axes, plan: Plan) -> None:
    """Mark the step after which a run stops early."""
    if (stop := plan.horizon.stop_after) is not None:
        ax.axvline(stop, color="0.5", lw=1, ls="--")
        ax.annotate(f" stops after {stop}", (stop, 0.02), xycoords=("data", "axes fraction"), fontsize=7, color="0.4")


def _never_better(plan: Plan, plateau: Plateau) -> list[float]:
    """The gain at each step if the metric, checked once an epoch, never improved: the lowest that it can go."""
    per_epoch, state, gains = plan.horizon.require("steps_per_epoch", "plateau"), PlateauState(), list[float]()
    if plan.horizon.require("steps", "plateau") > _MOST_ROWS:
        raise ConfigError("format=png", f"draws a plateau over at most {_MOST_ROWS} steps", plan.horizon.steps)
    for step in range(plan.horizon.require("steps", "plateau")):
        if step and step % per_epoch == 0 and step >= plan.warmup_steps:
            state = plateau.observe(state, 1.0)
        gains.append(state.gain)
    return gains

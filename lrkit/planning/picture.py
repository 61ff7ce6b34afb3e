"""The picture of a plan: its learning rates over the optimizer steps. matplotlib is loaded when it is used."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lrkit.base.errors import ConfigError
from lrkit.base.figure_style import LABEL, LINE_STYLES, TITLE, style_axes, wrap_text
from lrkit.base.files import write_figure
from lrkit.planning.batch_rendering import mark_sizes
from lrkit.planning.plateau import Plateau, PlateauState

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lrkit.planning.plan import Plan

__all__ = ["draw_picture", "render_png"]

_TOGETHER = 6  # curves in one frame
_MOST_STEPS = 10**7  # of a plateau, whose gain is followed step by step
_TITLE_WIDTH = 92  # characters of a line of the title
_RENDERED = deque[tuple["Plan", bytes]](maxlen=128)  # plans, each with its picture; a stack has as many jobs at most


def draw_picture(plans: Mapping[str, Plan], path: Path) -> Path:
    """Draw learning rates over optimizer steps: up to six curves in one frame, more curves in separate frames.

    Args:
        plans: label -> plan.
        path: the file to write; its ending chooses the format (png, svg, pdf).
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("format=png", "needs the package matplotlib: pip install 'lrkit[plot]'") from None
    title = _describe_plans(list(plans.values()))
    plans = {
        f"{label} {track}".strip(): own
        for label, plan in plans.items()
        for track, own in (plan.tracks or {"": plan}).items()
    }
    own_frames = len(plans) > _TOGETHER
    columns = min((4, 5, 6), key=lambda c: -len(plans) % c) if own_frames else 1  # the fewest empty frames
    rows = math.ceil(len(plans) / columns) if own_frames else 1
    size = (2.2 * columns, 1.7 * rows + 0.5) if own_frames else (7.2, 4.2)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=own_frames, sharey=own_frames)
    drawn = 0
    for i, (label, plan) in enumerate(plans.items()):
        ax = axes[i // columns][i % columns] if own_frames else axes[0][0]
        names = ("", "") if own_frames else ("optimizer step", "learning rate")
        style_axes(ax, label if own_frames else "", *names, width=26)
        if own_frames:
            ax.title.set_fontsize(8)
            ax.tick_params(labelsize=7)
        drawn += _draw_plan(ax, label, plan, 0 if own_frames else drawn)
        mark_sizes(ax, plan)
        _mark_stop(ax, plan)
    for ax in axes.flat[len(plans) :] if own_frames else ():
        ax.set_visible(False)
    for ax in axes.flat:
        if sum(line.get_linestyle() == "-" for line in ax.lines) == 1:  # a single line needs no legend
            ax.lines[0].set_marker("")
        ax.set_ylim(bottom=0)
        ax.margins(x=0.01)
    figure.suptitle(wrap_text(title, _TITLE_WIDTH), x=0.01, ha="left", fontsize=9.5, color=TITLE)
    if own_frames:
        figure.supxlabel("optimizer step", fontsize=9, color=LABEL)
        figure.supylabel("learning rate", fontsize=9, color=LABEL)
    elif len(axes[0][0].get_legend_handles_labels()[0]) > 1:
        _draw_legend(figure, axes[0][0])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_figure(path, figure)
    return path


def render_png(plan: Plan) -> bytes:
    """Return the picture of a plan as PNG; one that this process has drawn is not drawn again.

    The jobs of a stack often have the same plan, such as those that differ in their seed.
    """
    png = next((png for drawn, png in _RENDERED if drawn == plan), None)
    if png is None:
        with TemporaryDirectory() as folder:
            png = draw_picture({"": plan}, Path(folder) / "plan.png").read_bytes()
        _RENDERED.append((plan, png))
    return png


def _draw_plan(ax: Axes, label: str, plan: Plan, first: int) -> int:
    """Draw the rate of each group, from the line style ``first`` on; groups with the same rates share a line.

    Returns:
        The number of lines.
    """
    plan.horizon.require("steps", "format")
    drawn: dict[tuple[float, ...], list[str]] = {}
    for group in plan.groups:
        steps = plan.places(group)
        drawn.setdefault(tuple(plan.lr(group, step) for step in steps), []).append(group.name)
    gains = (
        _compute_lowest_gains(plan, plan.plateau) if plan.plateau is not None and plan.horizon.shortest_epoch else None
    )
    for place, (rates, names) in enumerate(drawn.items(), first):
        group = next(group for group in plan.groups if group.name == names[0])
        steps = plan.places(group)
        name = label if len(plan.groups) == 1 else f"{label} {', '.join(names)}".strip()
        style = LINE_STYLES[place % len(LINE_STYLES)]
        ax.plot(steps, rates, label=wrap_text(name or "learning rate", 60), **style.line(place, every=0.2))
        if gains is not None:
            worst = [plan.lr(group, step, gains[step]) for step in steps]
            told = f"{name or 'learning rate'} if nothing ever improves"
            ax.plot(steps, worst, ls=":", lw=1.5, color=style.light, label=wrap_text(told, 60))
    return len(drawn)


def _draw_legend(figure: Any, ax: Axes) -> None:
    """Draw the legend below the axes, where it covers no line."""
    handles, labels = ax.get_legend_handles_labels()
    widest = max(len(line) for label in labels for line in label.splitlines())
    columns = max(1, min(4, len(labels), 90 // (widest + 8)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def _describe_plans(plans: list[Plan]) -> str:
    """Return the facts that all plans share: shapes, steps, optimizer and base rate; and the number of plans."""
    parts: list[Callable[[Plan], str]] = [_describe_shapes, _describe_horizon, _describe_rate]
    shared = [values[0] for part in parts if len(set(values := [part(plan) for plan in plans])) == 1]
    many = [f"{len(plans)} plans"] if len(plans) > 1 else []
    return "\n".join([*many, *filter(None, shared)])


def _describe_shapes(plan: Plan) -> str:
    """Return the phases of the curve of each optimizer, such as ``warmup linear, then schedule cosine``."""
    told = [
        ", then ".join(f"{phase.name} {phase.schedule.describe()}" for phase in own.curve.phases)
        for own in (plan.tracks or {"": plan}).values()
    ]
    names = [f"{name}: " if name else "" for name in (plan.tracks or [""])]
    return "; ".join(f"{name}{shapes}" for name, shapes in zip(names, told, strict=True))


def _describe_horizon(plan: Plan) -> str:
    horizon = plan.horizon
    units = {"steps": "steps", "steps_per_epoch": "steps an epoch", "batch_size": "samples a step"}
    known = {unit: getattr(horizon, name) for name, unit in units.items()}
    return ", ".join(f"{value} {unit}" for unit, value in known.items() if value is not None)


def _describe_rate(plan: Plan) -> str:
    owns = plan.tracks or {"": plan}
    return "; ".join(
        f"{f'{name}: ' if name else ''}{own.optimizer.rpartition('.')[2]}, {own.rate_line()}".lstrip(", ")
        for name, own in owns.items()
    )


def _mark_stop(ax: Axes, plan: Plan) -> None:
    """Mark the step of an early stop."""
    if (stop := plan.horizon.stop_after) is not None:
        ax.axvline(stop, color="0.5", lw=1, ls="--")
        ax.annotate(f" stops after {stop}", (stop, 0.02), xycoords=("data", "axes fraction"), fontsize=7, color="0.4")


def _compute_lowest_gains(plan: Plan, plateau: Plateau) -> list[float]:
    """Return the gain at each step if the metric, checked once an epoch, never improves: its lowest values."""
    state, gains, epochs = PlateauState(), list[float](), 1
    end = plan.horizon.steps_after_epochs(epochs)
    if plan.horizon.require("steps", "plateau") > _MOST_STEPS:
        raise ConfigError("format=png", f"draws a plateau over at most {_MOST_STEPS} steps", plan.horizon.steps)
    for step in range(plan.horizon.require("steps", "plateau")):
        if step == end:
            epochs += 1
            end = plan.horizon.steps_after_epochs(epochs)
            state = plateau.observe(state, 1.0) if step >= plan.warmup_steps else state
        gains.append(state.gain)
    return gains

"""The curves of a plan in block characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lrkit.base.errors import name_some

if TYPE_CHECKING:
    from lrkit.planning.plan import Plan

__all__ = ["draw_sketch"]

_SKETCHED = 3  # curves that are drawn
_LABEL = 9  # columns of the labels of the vertical axis
_USUAL, _MOST = 80, 120  # columns of a sketch without a terminal, and in a wide one
_STOP = "┊"


def draw_sketch(plan: Plan, width: int | None = None, height: int = 8) -> list[str]:
    """Return the curves of the rate as lines of text; no lines if the end of the run is unknown.

    Each curve has the factor of its groups, or 1 if they have different factors. At most three curves are drawn.
    A dashed line marks the step after which the run stops, if it stops early.

    Args:
        plan: the plan of one optimizer.
        width: columns of the terminal; None: 80.
        height: lines of a curve.
    """
    if plan.horizon.steps is None:
        return []
    drawn = []
    followed = plan.on_curves()
    for curve, groups in followed[:_SKETCHED]:
        title = [f"{'':>{_LABEL}} {name_some([group.name for group in groups], 3)}"] if len(followed) > 1 else []
        scales = {group.lr_scale for group in groups}
        scale = scales.pop() if len(followed) > 1 and len(scales) == 1 else 1.0
        columns = max(min(width or _USUAL, _MOST) - _LABEL - 1, 8)
        shown = _space_steps(plan.horizon.steps, columns)
        rates = [plan.base(scale, step) * curve(step) for step in shown]
        drawn += [*title, *_draw_curve(rates, plan.horizon.steps, plan.horizon.stop_after, height)]
    return drawn


def _space_steps(steps: int, columns: int) -> list[int]:
    """Return the steps that the columns of a sketch show."""
    return [x * (steps - 1) // max(1, columns - 1) for x in range(columns)]


def _draw_curve(rates: Sequence[float], steps: int, stop: int | None, height: int) -> list[str]:
    """Return one curve of a rate in block characters, with a value for each column, and its axes."""
    columns = len(rates)
    shown = _space_steps(steps, columns)
    top = max(rates) or 1.0
    levels = [round(rate / top * height * 8) for rate in rates]
    at = None if stop is None else next((x for x, step in enumerate(shown) if step >= stop), None)
    label = f"{top:.3g}"
    lines = []
    for row in range(height, 0, -1):
        cells = [" ▁▂▃▄▅▆▇█"[max(0, min(8, level - 8 * (row - 1)))] for level in levels]
        if at is not None:
            cells[at] = _STOP
        text = f"{label if row == height else '0' if row == 1 else '':>{_LABEL}} {''.join(cells)}"
        lines.append(text.rstrip())
    return [*lines, f"{'':>{_LABEL}} {_label_axis(steps, stop, at, columns)}"]


def _label_axis(steps: int, stop: int | None, at: int | None, columns: int) -> str:
    """Return the labels of the horizontal axis: the first step, the last step, and the stop below its mark.

    >>> print(_label_axis(1000, 300, 12, 40))
    0           ┊ stops after 300   step 999
    """
    last = f"step {steps - 1}"
    axis = f"0{last:>{columns - 1}}"
    if at is None:
        return axis
    for begin, text in ((at, f"{_STOP} stops after {stop}"), (at - len(f"stops after {stop}"), f"stops after {stop}")):
        end = begin + len(text)
        if begin > 1 and end < columns - len(last):
            return axis[:begin] + text + axis[end:]
    return axis

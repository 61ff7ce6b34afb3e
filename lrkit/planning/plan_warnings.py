"""Warnings of a plan: valid settings that the user probably did not intend."""

from __future__ import annotations

from lrkit.planning.batch_scaling import BatchScale
from lrkit.planning.optimizer_traits import lr_warnings, traits_of
from lrkit.schedules.curve import DELAY, Curve, Excerpt, Phase
from lrkit.schedules.shapes import Schedule

__all__ = ["curve_warnings", "list_warnings", "short_name"]


def list_warnings(
    optimizer: str, lr: float, schedule: Schedule, cooldown: Schedule | None, curve: Curve, scale: BatchScale
) -> list[str]:
    """Return a line for each valid setting that the user probably did not intend."""
    middle = next(i for i, p in enumerate(curve.phases) if p.name == "schedule")
    decays = curve.phases[-1].final < curve.peak(middle)
    lines = lr_warnings(optimizer, lr, decays) if optimizer else []
    known = traits_of(optimizer) if optimizer else None
    if scale.rule == "linear" and known is not None and known.kind == "adaptive":
        lines.append(f"linear batch-size scaling is a rule for SGD; {short_name(optimizer)} is usually scaled by sqrt")
    return lines + curve_warnings(curve, schedule)


def curve_warnings(curve: Curve, schedule: Schedule) -> list[str]:
    """Return the warnings about a curve and the schedule of its middle phase."""
    lines: list[str] = []
    middle = next(i for i, p in enumerate(curve.phases) if p.name == "schedule")
    begin = curve.starts[1] if curve.phases[0].name == DELAY else 0
    if curve(begin) == 0.0:
        lines.append(f"step {begin} is a no-op: its learning rate is 0")
    for first, phase in zip(curve.starts, curve.phases, strict=True):
        if phase.name == "cooldown" and phase(0) == 0.0:
            lines.append(f"the cooldown does nothing: the rate is 0 when it begins at step {first}")
    highest = max(curve.peak(i) for i in range(len(curve.phases)))
    if highest > 1.0:
        lines.append(f"the rate rises to {highest:g} times the base rate")
    return [*lines, *_list_shape_warnings(schedule, curve.phases[middle])]


def _list_shape_warnings(schedule: Schedule, phase: Phase) -> list[str]:
    """Return the warnings of a schedule about its own shape."""
    if phase.length is None:
        return []
    part = phase.schedule  # an excerpt after a warmup that overlaps it
    shape, n = (part.shape, part.of) if isinstance(part, Excerpt) else (part, phase.length)
    n += shape.set_options.get("skip", 0)
    return schedule.warnings(shape.bare().edges(n), n)


def short_name(optimizer: str) -> str:
    """Return the name of an optimizer's class, without the modules of its path."""
    return optimizer.rpartition(".")[2]

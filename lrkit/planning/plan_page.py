"""The plan as a page of text, in the width of a terminal. Lines that several optimizers share are printed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lrkit.base.errors import name_some
from lrkit.base.terminal_width import find_width, print_line, wrap_text
from lrkit.base.text_table import format_table
from lrkit.planning.batch_rendering import factor_texts, shorten_values, size_lines
from lrkit.planning.plan_sketch import draw_sketch

if TYPE_CHECKING:
    from lrkit.planning.plan import GroupRate, Plan

__all__ = ["formula_lines", "plan_page", "print_plan"]

_COLUMNS = ("phase", "shape", "steps", "group", "first", "peak", "last")
_WORDS = ("optimizer", "phase", "shape", "group")  # columns that are aligned left


def plan_page(plan: Plan, width: int | None = None, *, curve: bool = True) -> list[str]:
    """Return the lines of the page: the rate, the horizon, the phases, the groups, the curve, and warnings.

    Args:
        plan: the plan.
        width: columns of the terminal; None: no limit.
        curve: whether the curve is drawn.
    """
    plans = plan.tracks or {"": plan}
    page = [line for track, own in plans.items() for line in _list_rate_lines(own, track)]
    page += _merge_lines({track: _list_horizon_lines(own) for track, own in plans.items()})
    text = [line for each in page for line in wrap_text(each, width).split("\n")]
    text += _format_phases(plans, width).split("\n")
    page = _merge_lines({track: [*_list_detail_lines(own)] for track, own in plans.items()})
    text += [line for each in page for line in wrap_text(each, width).split("\n")]
    if curve:
        text += _sketch_lines(plans, width)
    page = _merge_lines({track: _note_lines(own) for track, own in plans.items()})
    page += _note_lines(plan) if plan.tracks else []
    return [*text, *(line for each in page for line in wrap_text(each, width).split("\n"))]


def print_plan(plan: Plan, *, curve: bool = False) -> None:
    """Print the plan on standard output, with its warnings in colour on a terminal."""
    page = plan_page(plan, find_width(), curve=curve)
    noted = next((i for i, line in enumerate(page) if line.startswith("note: ")), len(page))
    print_line("\n".join(page[:noted]))
    if page[noted:]:
        print_line("\n".join(page[noted:]), style="yellow")


def formula_lines(plan: Plan) -> list[str]:
    """Return the formula of each optimizer, with its numbers.

    >>> import lrkit
    >>> formula_lines(lrkit.plan(lr=0.1, steps=10))
    ['lr[group, t] = 0.1 x curve(t) (schedule)']
    """
    return [_format_formula(own, track) for track, own in (plan.tracks or {"": plan}).items()]


def _merge_lines(of_tracks: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the lines of all optimizers, each once; a line of only some of them begins with their names."""
    said: dict[str, list[str]] = {}
    for track, lines in of_tracks.items():
        for line in lines:
            said.setdefault(line, []).append(track)
    shared = len(of_tracks)
    return [line if len(tracks) == shared else f"{', '.join(tracks)}: {line}" for line, tracks in said.items()]


def _list_rate_lines(plan: Plan, track: str) -> list[str]:
    optimizer = plan.optimizer.rpartition(".")[2]
    title = f"{track}: " if track else ""
    return [f"{title}{plan.rate_line()}   {optimizer}".rstrip(), _format_formula(plan, track)]


def _format_phases(plans: Mapping[str, Plan], width: int | None) -> str:
    """Return the table of the phases; with several optimizers, each row begins with the name of one."""
    names: tuple[str, ...] = _COLUMNS
    rows = [row for own in plans.values() for row in _list_phase_rows(own)]
    if len(plans) > 1 or "" not in plans:
        names = ("optimizer", *_COLUMNS)
        rows = [
            (track if i == 0 else "", *row)
            for track, own in plans.items()
            for i, row in enumerate(_list_phase_rows(own))
        ]  # fmt: skip
    return format_table(names, rows, width, _WORDS)


def _list_phase_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    """Yield a row for each phase of each curve and each rate; groups with the same rate share a row."""
    for curve, groups in plan.on_curves():
        alike: dict[float, list[GroupRate]] = {}
        for group in groups:
            alike.setdefault(group.lr_scale, []).append(group)
        for i, (first, phase) in enumerate(zip(curve.starts, curve.phases, strict=True)):
            last = "" if phase.length is None else first + phase.length - 1
            about = (phase.name, phase.schedule.describe(), f"{first}-{last}")
            for same in alike.values():
                names = name_some([group.name for group in same], 3)
                rates = plan.phase_rates(i, same[0]).values()
                yield (*about, names, *("" if rate is None else f"{rate:.4g}" for rate in rates))
                about = ("", "", "")


def _list_detail_lines(plan: Plan) -> Iterator[str]:
    """Yield the other lines about one optimizer: its groups, hyper-parameters, weight decay and feedback."""
    yield from plan.notes
    if any("*" in group.name for group in plan.groups):
        yield "layer_*: layers are counted when there is a model; lrkit train prints them before training"
    for name in plan.hyper(0):
        edges = {*plan.stages, *(edge for curve, _ in plan.on_curves() for edge in curve.edges)}
        steps = (0, *sorted(edges - {0}), (plan.horizon.steps or 1) - 1)
        values = list(dict.fromkeys(f"{plan.hyper(step)[name]:.4g}" for step in steps))
        yield f"{name}  {' -> '.join(shorten_values(values))}"
    if rule := plan.weight_decay_rule.line(plan.base_weight_decay):
        yield rule
    if plan.plateau is not None:
        p = plan.plateau
        yield f"gain x {p.factor:g} when {p.monitor} has not improved for more than {p.patience} checks"
    if plan.guard is not None and (line := plan.guard.line()):
        yield line


def _note_lines(plan: Plan) -> list[str]:
    return [f"note: {warning}" for warning in plan.warnings]


def _sketch_lines(plans: Mapping[str, Plan], width: int | None) -> list[str]:
    """Return the drawn curves; optimizers with the same curves share a drawing."""
    drawn: dict[tuple[str, ...], list[str]] = {}
    for track, own in plans.items():
        drawn.setdefault(tuple(draw_sketch(own, width)), []).append(track)
    lines: list[str] = []
    for sketch, tracks in drawn.items():
        lines += [f"{', '.join(tracks)}:", *sketch] if len(drawn) > 1 and sketch else sketch
    return lines


def _format_formula(plan: Plan, track: str = "") -> str:
    """Return the formula with its numbers, without factors that are always 1."""
    scales = {group.name: group.lr_scale for group in plan.groups if group.lr_scale != 1.0}
    feedback = ["plateau"] if plan.plateau is not None else []
    feedback += ["guard"] if plan.guard is not None and plan.guard.rules.lowers_rate else []
    factors = [
        f"{plan.base_lr:g}",
        *factor_texts(plan),
        *([f"scale[group] ({', '.join(f'{name} {scale:g}' for name, scale in scales.items())})"] if scales else []),
        _format_curve_factor(plan),
        *([f"gain(t) ({' x '.join(feedback)})"] if feedback else []),
    ]
    return f"lr[{f'{track}, ' if track else ''}group, t] = {' x '.join(factors)}"


def _format_curve_factor(plan: Plan) -> str:
    """Return the factor of the curve: the phases of the run's curve, then those of each rule's."""
    own = {rule: each.curve for rule, each in plan.group_curves.items()}
    said = [
        f"{f'{rule}: ' if rule else ''}{' then '.join(phase.name for phase in curve.phases)}"
        for rule, curve in {"": plan.curve, **own}.items()
    ]
    return f"curve{'[group, t]' if own else '(t)'} ({'; '.join(said)})"


def _list_horizon_lines(plan: Plan) -> list[str]:
    horizon, lines = plan.horizon, []
    for name, unit in (("steps", "steps"), ("steps_per_epoch", "steps an epoch"), ("batch_size", "samples a step")):
        value = getattr(horizon, name)
        if value is not None:
            lines.append(f"{value} {unit} ({horizon.sources.get(name, 'given')})")
    tokens, samples = horizon.tokens_per_sample, horizon.batch_size
    if tokens is not None and samples is not None:
        source = horizon.sources.get("tokens_per_sample", "given")
        lines.append(f"{samples * tokens} tokens a step ({samples} samples x {tokens}: {source})")
        if horizon.steps is not None:
            lines.append(f"{horizon.steps * samples * tokens:.4g} tokens in all")
    page = ["; ".join(lines) or "the end of the run is not known", *size_lines(plan)]
    if horizon.stop_after is not None:
        of = "" if horizon.steps is None else f" of {horizon.steps}"
        page.append(f"stops after {horizon.stop_after}{of} steps (schedule goes on)")
    return page

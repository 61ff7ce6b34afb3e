"""Output of a plan: text, CSV, JSON, picture. Rich and matplotlib are loaded when used."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrkit.base.errors import ConfigError, name_some
from lrkit.base.files import write_figure
from lrkit.planning.batch_rendering import BATCH_TAG, factor_texts, mark_sizes, size_lines
from lrkit.planning.plateau import Plateau, PlateauState
from lrkit.planning.tracks import step_at, track_tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import RenderableType

    from lrkit.lr_finder.result import FinderResult
    from lrkit.planning.plan import GroupRate, Plan
    from lrkit.runs.diagnosis import Finding
    from lrkit.schedules.curve import Curve

__all__ = [
    "draw_picture",
    "draw_sketch",
    "formula_lines",
    "print_closing",
    "print_finder_result",
    "render_csv",
    "render_text",
]

_MOST_VALUES = 12  # of a hyper-parameter in one line
_MOST_ROWS = 10**7  # half a gigabyte
FORMATS = ("text", "csv", "json", "png")
_SKETCHED = 3  # curves that are drawn in text
_SAID = 2  # findings that are printed at the end of a run


def render_text(plan: Plan, *, curve: bool = True) -> str:
    """The plan as a page of text: the rate, the horizon, the phases, the groups, warnings, and the curve drawn."""
    return _print_page(*_make_page(plan, curve))


def print_plan(plan: Plan) -> None:
    """Print the plan, without its curve, before training."""
    from rich.console import Console

    Console(soft_wrap=True, highlight=False).print(*_make_page(plan, curve=False), sep="\n")


def render_csv(plan: Plan) -> str:
    """A header, and a row for each optimizer step: ``step``, ``lr/<group>`` ..., then each driven hyper-parameter.

    Numbers are written so that reading them gives the same bits. With several optimizers there is a row for each batch,
    and ``lr/<track>/<group>`` is empty where that track takes no step. With a batch-size schedule ``batch/effective``
    has the samples of each step. Of a run that stops early the column ``stopped`` is 1 at the steps that it does not
    take, and 0 before.
    """
    if plan.horizon.steps is None:
        raise ConfigError("horizon.steps", "must be set to list a run of unknown length")
    if plan.horizon.steps > _MOST_ROWS:
        raise ConfigError("format=csv", f"lists at most {_MOST_ROWS} steps, and the run has {plan.horizon.steps}")
    drivers, per_epoch = _list_plans(plan), plan.horizon.steps_per_epoch
    names = [track_tag(tag, track) if track else tag for track, own in drivers.items() for tag in _list_values(own, 0)]
    stop, sizes = plan.horizon.stop_after, plan.horizon.batch_sizes
    names += [BATCH_TAG] if sizes is not None else []
    rows = [",".join(["step", *names, *([] if stop is None else ["stopped"])])]
    for step in range(plan.horizon.steps):
        cells: list[str] = []
        for own in drivers.values():
            t = step_at(step, own.every, own.offset, per_epoch)
            cells += map(repr, _list_values(own, t).values()) if t is not None else [""] * len(_list_values(own, 0))
        cells += [str(sizes.at(step))] if sizes is not None else []
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
            steps = plan.places(group)
            name = label if len(plan.groups) == 1 else f"{label} {group.name}".strip()
            style: dict[str, Any] = {"lw": 1.5} if not own_frames else {"lw": 1.5, "color": "C0"}
            (line,) = ax.plot(steps, [plan.lr(group, step) for step in steps], label=name, **style)
            if plan.plateau is not None and plan.horizon.shortest_epoch:
                gains = _never_better(plan, plan.plateau)
                rates = [plan.lr(group, step, gains[step]) for step in steps]
                worst = f"{name} if nothing ever improves"
                ax.plot(steps, rates, ls=":", lw=1.5, color="C1" if own_frames else line.get_color(), label=worst)
        mark_sizes(ax, plan)
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
    state, gains, epochs = PlateauState(), list[float](), 1
    end = plan.horizon.steps_after_epochs(epochs)
    if plan.horizon.require("steps", "plateau") > _MOST_ROWS:
        raise ConfigError("format=png", f"draws a plateau over at most {_MOST_ROWS} steps", plan.horizon.steps)
    for step in range(plan.horizon.require("steps", "plateau")):
        if step == end:
            epochs += 1
            end = plan.horizon.steps_after_epochs(epochs)
            state = plateau.observe(state, 1.0) if step >= plan.warmup_steps else state
        gains.append(state.gain)
    return gains


def draw_sketch(plan: Plan, width: int = 72, height: int = 8) -> str:
    """The curves of the rate in block characters, or an empty string where the run has no known end.

    One for each curve that groups follow, at their factor, or at 1 where they have several; of many, the first three.
    """
    if plan.horizon.steps is None:
        return ""
    drawn = []
    followed = plan.on_curves()
    for curve, groups in followed[:_SKETCHED]:
        title = [f"{'':>9} {name_some([group.name for group in groups], 3)}"] if len(followed) > 1 else []
        scales = {group.lr_scale for group in groups}
        scale = scales.pop() if len(followed) > 1 and len(scales) == 1 else 1.0
        rates = _sample_rates(plan, scale, curve, plan.horizon.steps, width)
        drawn += [*title, *_sketch_lines(rates, plan.horizon.steps, height)]
    return "\n".join(drawn)


def _sample_rates(plan: Plan, lr_scale: float, curve: Curve, steps: int, width: int) -> list[float]:
    """The rate of groups with one scale that follow a curve, at ``width`` places."""
    places = [x * (steps - 1) // max(1, width - 1) for x in range(width)]
    return [plan.base(lr_scale, step) * curve(step) for step in places]


def _sketch_lines(rates: Sequence[float], steps: int, height: int) -> list[str]:
    """One curve of a rate in block characters."""
    width = len(rates)
    top = max(rates) or 1.0
    levels = [round(rate / top * height * 8) for rate in rates]
    label = f"{top:.3g}"
    lines = []
    for row in range(height, 0, -1):
        cells = "".join(" ▁▂▃▄▅▆▇█"[max(0, min(8, level - 8 * (row - 1)))] for level in levels)
        lines.append(f"{label if row == height else '0' if row == 1 else '':>9} {cells}")
    lines.append(f"{'':>9} 0{f'step {steps - 1}':>{width - 1}}")
    return lines


def print_closing(
    folder: Path,
    final: Mapping[str, float],
    best: Mapping[str, float],
    seconds: float,
    ended: str = "",
    tensorboard: bool = True,
    findings: Sequence[Finding] = (),
    said: Sequence[str] = (),
) -> None:
    """Print the end of the run, the two gravest findings, and the paths of its files.

    ``said``: lines of callbacks with measurements.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("metric")
    table.add_column("best", justify="right")
    table.add_column("final", justify="right")
    for name in sorted({*final, *best}):
        table.add_row(name, *(f"{m[name]:.4g}" if name in m else "" for m in (best, final)))
    console.print()
    console.print(table)
    for line in said:
        console.print(line, markup=False)
    for finding in findings[:_SAID]:
        console.print(Text(f"diagnosis: {finding}", style="yellow"))
    console.print(f"\n{ended + '; ' if ended else ''}{seconds:.1f} s; everything is in {_shorten_path(folder)}")
    if tensorboard:
        console.print(f"curves: tensorboard --logdir {_shorten_path(folder)}")


def print_finder_result(folder: Path, found: FinderResult) -> None:
    """Print the result of a search, the path of its files, and the override to type."""
    print(f"\n{found.sentence()}; {found.steps} steps in {found.seconds:.1f} s")
    print(f"everything is in {_shorten_path(folder)}")
    if found.lr is not None:
        print(found.flag)


def _shorten_path(folder: Path) -> str:
    """A path, relative to the current folder if that is shorter."""
    try:
        return str(folder.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(folder)


def _make_page(plan: Plan, curve: bool) -> list[RenderableType]:
    from rich.text import Text

    page = [line for track, own in _list_plans(plan).items() for line in _optimizer_page(own, curve, track)]
    return [*page, *(Text(f"note: {warning}", style="yellow") for warning in plan.warnings if plan.tracks)]


def _optimizer_page(plan: Plan, curve: bool, track: str) -> list[RenderableType]:
    """The lines about one optimizer."""
    from rich.table import Table
    from rich.text import Text

    optimizer = plan.optimizer.rpartition(".")[2]
    title = f"{track}: " if track else ""
    page: list[RenderableType] = [Text(f"{title}{plan.rate_line()}   {optimizer}".rstrip())]
    page.append(Text(_format_formula(plan, track)))
    page += [Text(line) for line in _horizon_lines(plan)]
    table = Table(box=None, pad_edge=False)
    for column in ("phase", "shape", "steps", "group", "first", "peak", "last"):
        table.add_column(column, justify="left" if column in ("phase", "shape", "group") else "right")
    for row in _phase_rows(plan):
        table.add_row(*row)
    page.append(table)
    page += [Text(note) for note in plan.notes]
    if any("*" in group.name for group in plan.groups):
        page.append(Text("layer_*: layers are counted when there is a model; lrkit train prints them before training"))
    for name in plan.hyper(0):
        edges = {*plan.stages, *(edge for curve, _ in plan.on_curves() for edge in curve.edges)}
        steps = (0, *sorted(edges - {0}), (plan.horizon.steps or 1) - 1)
        values = list(dict.fromkeys(f"{plan.hyper(step)[name]:.4g}" for step in steps))
        if len(values) > _MOST_VALUES:  # of stairs
            values = [*values[: _MOST_VALUES // 2], "...", *values[-_MOST_VALUES // 2 :]]
        page.append(Text(f"{name}  {' -> '.join(values)}"))
    if rule := plan.weight_decay_rule.line(plan.base_weight_decay):
        page.append(Text(rule))
    if plan.plateau is not None:
        p = plan.plateau
        page.append(Text(f"gain x {p.factor:g} when {p.monitor} has not improved for more than {p.patience} checks"))
    if plan.guard is not None and (line := plan.guard.line()):
        page.append(Text(line))
    if curve and (drawn := draw_sketch(plan)):
        page.append(Text(drawn))
    page += [Text(f"note: {warning}", style="yellow") for warning in plan.warnings]
    return page


def _phase_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    """A row for each phase of each curve and each rate: groups with the same rate share one."""
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


def formula_lines(plan: Plan) -> list[str]:
    """The formula of each optimizer, with its numbers.

    >>> import lrkit
    >>> formula_lines(lrkit.plan(lr=0.1, steps=10))
    ['lr[group, t] = 0.1 x curve(t) (schedule)']
    """
    return [_format_formula(own, track) for track, own in _list_plans(plan).items()]


def _format_formula(plan: Plan, track: str = "") -> str:
    """The formula with its numbers; a factor that is 1 throughout is left out."""
    scales = {group.name: group.lr_scale for group in plan.groups if group.lr_scale != 1.0}
    feedback = ["plateau"] if plan.plateau is not None else []
    feedback += ["guard"] if plan.guard is not None and plan.guard.rules.lowers_rate else []
    factors = [
        f"{plan.base_lr:g}",
        *factor_texts(plan),
        *([f"scale[group] ({', '.join(f'{name} {scale:g}' for name, scale in scales.items())})"] if scales else []),
        _curve_factor(plan),
        *([f"gain(t) ({' x '.join(feedback)})"] if feedback else []),
    ]
    return f"lr[{f'{track}, ' if track else ''}group, t] = {' x '.join(factors)}"


def _curve_factor(plan: Plan) -> str:
    """The factor of the curve: the phases of the run's, then those of each rule."""
    own = {rule: each.curve for rule, each in plan.group_curves.items()}
    said = [
        f"{f'{rule}: ' if rule else ''}{' then '.join(phase.name for phase in curve.phases)}"
        for rule, curve in {"": plan.curve, **own}.items()
    ]
    return f"curve{'[group, t]' if own else '(t)'} ({'; '.join(said)})"


def _horizon_lines(plan: Plan) -> list[str]:
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
    page = ["; ".join(lines) or "the end of the run is not known"]
    page += size_lines(plan)
    if horizon.stop_after is not None:
        of = "" if horizon.steps is None else f" of {horizon.steps}"
        page.append(f"stops after {horizon.stop_after}{of} steps (schedule goes on)")
    return page


def _print_page(*page: RenderableType) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), soft_wrap=True, width=120, highlight=False)
    console.print(*page, sep="\n")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()

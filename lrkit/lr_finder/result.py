"""The result of a search, and its files: ``find.json``, ``find.csv``, ``find.png``, and an event file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrkit.base.figure_style import BAND, COLOURS, LABEL, LINE_STYLES, TITLE, style_axes
from lrkit.base.files import write_figure, write_file, write_json
from lrkit.base.line_chart import LineChart
from lrkit.base.run_files import FIND
from lrkit.base.tensorboard_summaries import image_summary, write_summaries
from lrkit.lr_finder.curve_analysis import CurveReading, RangeTestRun
from lrkit.lr_finder.successive_halving import Round

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FinderResult", "round_rate"]

#: The colour of the suggested rate, and the label of the axis of rates.
_SUGGESTED, _RATE = COLOURS[3], "base learning rate optimizer.lr (log scale)"
#: The styles of the rounds of short runs.
_ROUNDS = LINE_STYLES[2], LINE_STYLES[4], LINE_STYLES[6]


@dataclass(frozen=True)
class FinderResult:
    """The result of a search: one base rate with an interval, or the reason for no suggestion.

    Args:
        lr: the rate for ``optimizer.lr``, with two digits; None without a suggestion.
        low, high: the interval; None if the rate was not measured.
        reason: the reason for no suggestion, or for a rate without a search.
        confirmed: whether short runs have confirmed the rate.
        steps: the optimizer steps of the search.
        seconds: the time of the search.
        sweeps, reading, rounds: the measurements.
        scored: the score of the short runs: the name of the monitored metric, or a phrase.
        loss: the loss of the range tests: ``training loss`` or ``validation loss``.
    """

    lr: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    confirmed: bool = False
    steps: int = 0
    seconds: float = 0.0
    sweeps: Sequence[RangeTestRun] = ()
    reading: CurveReading | None = None
    rounds: Sequence[Round] = field(default_factory=tuple)
    scored: str = ""
    loss: str = "training loss"

    @property
    def flag(self) -> str:
        """The override to type.

        >>> FinderResult(0.032).flag
        'optimizer.lr=0.032'
        """
        return f"optimizer.lr={self.lr:g}"

    def sentence(self) -> str:
        """The result as a sentence."""
        if self.lr is None:
            return f"no suggestion: {self.reason}"
        if self.low is None or self.high is None:
            return f"lr {self.lr:g}: {self.reason}"
        trained = sum(len(each.scores) for each in self.rounds)
        how = f"confirmed by {trained} short runs" if self.confirmed else "not confirmed by training"
        return f"lr {self.lr:g} ({self.low:g}-{self.high:g}), {how}"

    def save(self, folder: Path, config: Mapping[str, Any]) -> list[str]:
        """Write all files; return a line for each that could not be written."""
        write_json(folder / FIND, self.to_json() | {"config": config})
        if not self.sweeps:
            return []
        write_file(folder / "find.csv", self.csv())
        try:
            figure = self.picture()
        except ImportError:
            return ["find.png needs the package matplotlib: pip install 'lrkit[plot]'"]
        write_figure(folder / "find.png", figure)
        write_summaries(folder, image_summary("find", (folder / "find.png").read_bytes()))
        return []

    def to_json(self) -> dict[str, Any]:
        """The result as plain containers; infinite numbers become null."""
        plain = asdict(self) | {"flag": None if self.lr is None else self.flag}
        plain["sweeps"] = [{"ended": sweep.ended, "steps": len(sweep.losses)} for sweep in self.sweeps]
        reading = self.reading
        plain["reading"] = None
        if reading is not None:
            plain["reading"] = {name: getattr(reading, name) for name in ("lr", "low", "high", "minimum", "reason")}
            plain["reading"]["estimates"] = dict(reading.estimates)
        plain["rounds"] = [
            {"steps": each.steps, "scores": {f"{lr:.6g}": _finite_or_none(score) for lr, score in each.scores.items()}}
            for each in self.rounds
        ]
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> FinderResult:
        """The result that ``to_json`` wrote, without the measurements."""
        names = ("lr", "low", "high", "reason", "confirmed", "steps", "seconds")
        return cls(**{name: plain[name] for name in names})

    def csv(self) -> str:
        """The range tests: a header, and a row for each step."""
        rows = ["repeat,step,lr,loss"]
        for repeat, sweep in enumerate(self.sweeps):
            pairs = enumerate(zip(sweep.rates, sweep.losses, strict=True))
            rows += [f"{repeat},{step},{lr!r},{loss!r}" for step, (lr, loss) in pairs]
        return "\n".join(rows) + "\n"

    def picture(self) -> Figure:
        """A figure of the loss over the rate with the estimators and the interval, and of the rounds of short runs."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.6 if self.rounds else 6.4, 4.8), dpi=150, layout="constrained")
        axes = figure.subplots(1, 2 if self.rounds else 1, squeeze=False)[0]
        self._draw_range_test(axes[0])
        if self.rounds:
            self._draw_rounds(axes[1])
        for ax in axes:
            self._mark_suggestion(ax)
            ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.17))
        figure.suptitle(self.sentence(), x=0.01, ha="left", fontsize=10, color=TITLE)
        return figure

    def _mark_suggestion(self, ax: Axes) -> None:
        """Mark the suggested rate by a line, and its interval by an area."""
        if self.lr is not None and self.low is not None and self.high is not None:
            ax.axvspan(self.low, self.high, color=_SUGGESTED, alpha=BAND, lw=0, label=f"{self.low:g} to {self.high:g}")
            ax.axvline(self.lr, color=_SUGGESTED, lw=1.5, ls="--", label=f"suggested: {self.lr:g}")

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the loss over the learning rate by matplotlib, with the suggestion, into ``ax`` or a new figure.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        ax = self._make_chart().draw(ax)
        self._mark_suggestion(ax)
        return ax

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self._make_chart().html()

    def _make_chart(self) -> LineChart:
        """The smoothed loss over the rate, without losses far above its start: they would make all else look flat."""
        rates, losses = ((), ()) if self.reading is None else (self.reading.rates, self.reading.losses)
        kept = [(rate, loss) for rate, loss in zip(rates, losses, strict=True) if loss <= 1.2 * abs(losses[0])]
        points = [rate for rate, _ in kept], [loss for _, loss in kept]
        return LineChart(self.sentence(), "base learning rate", "loss", {"range test": points}, logarithmic=True)

    def _draw_range_test(self, ax: Any) -> None:
        """Draw the loss of the range tests over the rate, and the estimates of it."""
        reading = self.reading
        assert reading is not None
        ax.set_xscale("log")
        many = f"{len(self.sweeps)} range tests" if len(self.sweeps) > 1 else "range test"
        style_axes(ax, f"{many}: the rate rises with each step", _RATE, self.loss)
        for sweep in self.sweeps:
            ax.plot(sweep.rates, sweep.losses, color=COLOURS[0], lw=0.8, alpha=0.35)
        told = f"mean of {len(self.sweeps)}, smoothed" if len(self.sweeps) > 1 else "smoothed"
        ax.plot(reading.rates, reading.losses, color=COLOURS[0], lw=2, label=told)
        marks = zip(reading.estimates.items(), "ovsD", strict=False)
        for (name, lr), marker in marks:
            at = min(range(len(reading.rates)), key=lambda i: abs(math.log(reading.rates[i] / lr)))
            look = {"color": COLOURS[1], "ms": 6, "mec": LABEL, "mew": 0.6, "ls": ""}
            ax.plot([lr], [reading.losses[at]], marker, label=f"{name}: {lr:.2g}", **look)
        finite = [loss for loss in reading.losses if math.isfinite(loss)]
        if finite:  # the losses after divergence would compress the rest of the curve
            low, start = min(finite), finite[0]
            margin = max(start - low, 0.05 * abs(start))
            ax.set_ylim(low - 0.3 * margin, start + 0.8 * margin)

    def _draw_rounds(self, ax: Any) -> None:
        """Draw the score of each short run over its rate, with a line for each round."""
        style_axes(ax, "short runs of the whole schedule, compressed", _RATE, f"{self.scored or 'score'} at the end")
        for number, (each, style) in enumerate(zip(self.rounds, _ROUNDS, strict=False), 1):
            finished = {lr: score for lr, score in each.scores.items() if math.isfinite(score)}
            label = f"round {number}: {each.steps} steps each"
            ax.plot(finished.keys(), finished.values(), marker=style.marker, ms=5, color=style.light, label=label)
            diverged = [lr for lr in each.scores if lr not in finished]
            if diverged and finished:
                look = {"color": style.light, "ls": "", "marker": "x", "ms": 7, "mew": 1.6}
                ax.plot(diverged, [max(finished.values())] * len(diverged), label=f"round {number}: diverged", **look)
        ax.margins(y=0.1)
        rates = sorted({lr for each in self.rounds for lr in each.scores})
        ax.set_xscale("log")
        if len(rates) <= 9:
            ax.set_xticks(rates, [f"{lr:.2g}" for lr in rates])
            ax.minorticks_off()


def round_rate(rate: float) -> float:
    """A rate, rounded to two digits.

    >>> round_rate(0.0318), round_rate(2.449e-4)
    (0.032, 0.00024)
    """
    return float(f"{rate:.2g}")


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""The result of a search, and its files: ``find.json``, ``find.csv``, ``find.png``, and an event file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrkit.base.files import write_figure, write_file, write_json
from lrkit.base.line_chart import LineChart
from lrkit.base.tensorboard_summaries import image_summary, write_summaries
from lrkit.lr_finder.curve_analysis import CurveReading, RangeTestRun
from lrkit.lr_finder.successive_halving import Round

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FinderResult", "round_rate"]


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
        sweeps, reading, heats: the measurements.
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
    heats: Sequence[Round] = field(default_factory=tuple)

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
        trained = sum(len(heat.scores) for heat in self.heats)
        how = f"confirmed by {trained} short runs" if self.confirmed else "not confirmed by training"
        return f"lr {self.lr:g} ({self.low:g}-{self.high:g}), {how}"

    def save(self, folder: Path, config: Mapping[str, Any]) -> list[str]:
        """Write all files; return a line for each that could not be written."""
        write_json(folder / "find.json", self.to_json() | {"config": config})
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
        plain["heats"] = [
            {"steps": heat.steps, "scores": {f"{lr:.6g}": _finite_or_none(score) for lr, score in heat.scores.items()}}
            for heat in self.heats
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

        figure = Figure(figsize=(9.6 if self.heats else 6.4, 4.0), dpi=150, layout="constrained")
        axes = figure.subplots(1, 2 if self.heats else 1, squeeze=False)[0]
        self._draw_range_test(axes[0])
        if self.heats:
            self._draw_rounds(axes[1])
        for ax in axes:
            ax.set_xscale("log")
            ax.set_xlabel("base learning rate (optimizer.lr)")
            ax.spines[["top", "right"]].set_visible(False)
            if self.lr is not None and self.low is not None and self.high is not None:
                ax.axvspan(self.low, self.high, color="C2", alpha=0.15, lw=0)
                ax.axvline(self.lr, color="C2", lw=1.5, label=f"suggested: {self.lr:g}")
            ax.legend(frameon=False, fontsize=8)
        figure.suptitle(self.sentence(), fontsize=10)
        return figure

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the loss over the learning rate by matplotlib, with the suggestion, into ``ax`` or a new figure.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        ax = self._make_chart().draw(ax)
        if self.lr is not None and self.low is not None and self.high is not None:
            ax.axvspan(self.low, self.high, color="C2", alpha=0.15, lw=0)
            ax.axvline(self.lr, color="C2", lw=1.5)
        return ax

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self._make_chart().html()

    def _make_chart(self) -> LineChart:
        """The smoothed loss over the rate, up to where it began: the cliff behind would make everything else flat."""
        rates, losses = ((), ()) if self.reading is None else (self.reading.rates, self.reading.losses)
        kept = [(rate, loss) for rate, loss in zip(rates, losses, strict=True) if loss <= 1.2 * abs(losses[0])]
        points = [rate for rate, _ in kept], [loss for _, loss in kept]
        return LineChart(self.sentence(), "base learning rate", "loss", {"range test": points}, logarithmic=True)

    def _draw_range_test(self, ax: Any) -> None:
        reading = self.reading
        assert reading is not None
        for sweep in self.sweeps:
            ax.plot(sweep.rates, sweep.losses, color="C0", lw=0.8, alpha=0.35)
        ax.plot(reading.rates, reading.losses, color="C0", lw=2, label=f"mean of {len(self.sweeps)}, smoothed")
        marks = zip(reading.estimates.items(), "ovsD", strict=False)
        for (name, lr), marker in marks:
            at = min(range(len(reading.rates)), key=lambda i: abs(math.log(reading.rates[i] / lr)))
            ax.plot([lr], [reading.losses[at]], marker, color="C1", ms=5, label=f"{name} {lr:.2g}")
        finite = [loss for loss in reading.losses if math.isfinite(loss)]
        if finite:  # the losses after divergence would compress the rest of the curve
            low, start = min(finite), finite[0]
            margin = max(start - low, 0.05 * abs(start))
            ax.set_ylim(low - 0.3 * margin, start + 0.8 * margin)
        ax.set_ylabel("loss")
        ax.set_title("range test", fontsize=10)

    def _draw_rounds(self, ax: Any) -> None:
        for i, heat in enumerate(self.heats):
            finished = {lr: score for lr, score in heat.scores.items() if math.isfinite(score)}
            ax.plot(
                finished.keys(), finished.values(), "o-", color=f"C{(0, 3)[i % 2]}", label=f"{heat.steps} steps each"
            )
            diverged = [lr for lr in heat.scores if lr not in finished]
            if diverged and finished:
                ax.plot(
                    diverged, [max(finished.values())] * len(diverged), "x", color=f"C{(0, 3)[i % 2]}", label="diverged"
                )
        ax.set_ylabel("score at the end")
        ax.set_title("short runs of the real schedule, compressed", fontsize=10)


def round_rate(rate: float) -> float:
    """A rate, rounded to two digits.

    >>> round_rate(0.0318), round_rate(2.449e-4)
    (0.032, 0.00024)
    """
    return float(f"{rate:.2g}")


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""The result of a search: its text and its files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lrkit.lr_finder.curve_analysis import RangeTestRun, read_curves
from lrkit.lr_finder.result import FinderResult
from lrkit.lr_finder.successive_halving import Round

RATES = [1e-7 * 1e8 ** (i / 100) for i in range(100)]
CURVE = [2.3 - 1.5 / (1 + (0.01 / rate) ** 2) + (rate / 0.5) ** 3 for rate in RATES]
SWEEPS = [RangeTestRun(RATES, CURVE, "it diverged"), RangeTestRun(RATES[:90], CURVE[:90], "it diverged")]
HEATS = (
    Round(50, {0.01: 1.0, 0.02: 0.5, 0.04: math.inf}),
    Round(200, {0.01: 0.3, 0.02: 0.2}),
    Round(400, {0.01: 0.2, 0.02: 0.1}),
)
FOUND = FinderResult(0.021, 0.012, 0.03, "", True, 600, 4.2, SWEEPS, read_curves(SWEEPS), HEATS, "val/loss")


def test_the_sentence() -> None:
    assert FOUND.sentence() == "lr 0.021 (0.012-0.03), confirmed by 7 short runs"
    assert FinderResult(0.021, 0.01, 0.04).sentence() == "lr 0.021 (0.01-0.04), not confirmed by training"
    assert FinderResult(None, reason="the loss is flat").sentence() == "no suggestion: the loss is flat"
    assert FinderResult(1.0, reason="Prodigy finds it itself").sentence() == "lr 1: Prodigy finds it itself"


def test_the_files(tmp_path: Path) -> None:
    assert FOUND.save(tmp_path, {"seed": 3}) == []
    plain = json.loads((tmp_path / "find.json").read_text())
    assert (plain["lr"], plain["flag"], plain["config"]) == (0.021, "optimizer.lr=0.021", {"seed": 3})
    assert plain["rounds"][0] == {"steps": 50, "scores": {"0.01": 1.0, "0.02": 0.5, "0.04": None}}
    assert plain["rounds"][2] == {"steps": 400, "scores": {"0.01": 0.2, "0.02": 0.1}}
    assert plain["sweeps"] == [{"ended": "it diverged", "steps": 100}, {"ended": "it diverged", "steps": 90}]
    assert FinderResult.from_json(plain) == FinderResult(0.021, 0.012, 0.03, "", True, 600, 4.2)
    rows = list(csv.DictReader((tmp_path / "find.csv").read_text().splitlines()))
    assert len(rows) == 190
    assert [(float(r["lr"]), float(r["loss"])) for r in rows if r["repeat"] == "0"] == list(
        zip(RATES, CURVE, strict=True)
    )
    events = EventAccumulator(str(tmp_path), {"images": 0}).Reload()
    (image,) = events.Images("find")
    assert image.encoded_image_string == (tmp_path / "find.png").read_bytes()
    assert (image.width, image.height) == (1440, 720)


def test_the_picture_says_what_is_scored() -> None:
    left, right = FOUND.picture().axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("training loss", "val/loss at the end")
    assert left.get_xlabel() == right.get_xlabel() == "base learning rate optimizer.lr (log scale)"
    lines = [text.get_text() for text in right.get_legend().get_texts()]
    assert lines == ["round 1: 50 steps each", "round 1: diverged", "round 2: 200 steps each",
                     "round 3: 400 steps each", "0.012 to 0.03", "suggested: 0.021"]  # fmt: skip


def test_no_suggestion_leaves_its_files_too(tmp_path: Path) -> None:
    sweeps = [RangeTestRun(RATES, [2.3] * 100, "it came to its end")]
    reading = read_curves(sweeps)
    found = FinderResult(None, reason=reading.reason, sweeps=sweeps, reading=reading)
    assert found.save(tmp_path, {}) == []
    assert json.loads((tmp_path / "find.json").read_text())["reason"].startswith("the loss is flat")
    assert (tmp_path / "find.png").stat().st_size > 1000


def test_without_matplotlib_everything_else_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert FOUND.save(tmp_path, {}) == ["find.png needs the package matplotlib: pip install 'lrkit[plot]'"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["find.csv", "find.json"]

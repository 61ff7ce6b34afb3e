"""`lrkit predict`: schedules that were not trained, ranked from the folders of finished runs; what is refused."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lrkit
from lrkit.base.errors import ConfigError
from lrkit.cli.main import main
from lrkit.comparison import figures
from lrkit.prediction.annealing_law import AnnealingLaw
from lrkit.prediction.prediction import predict_losses
from lrkit.prediction.recorded_runs import load_recorded_runs, sample_rates
from lrkit.runs.event_reader import Series
from tests.helpers.law_runs import LAW, write_run
from tests.helpers.run_folders import write_events

LINEAR = lrkit.plan(lr=0.1, schedule="linear", steps=400, optimizer="momentum", batch_size=32)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fixed rate and a cosine, two seeds each."""
    top = tmp_path_factory.mktemp("runs")
    for schedule in ("constant", "cosine"):
        for seed in (1, 2):
            write_run(top / f"{schedule}_{seed}", f"schedule={schedule}", f"seed={seed}", noise=0.003)
    return top


def true_loss(plan: lrkit.Plan, law: AnnealingLaw = LAW) -> float:
    steps = plan.horizon.steps or 0
    return float(law.losses(*sample_rates(plan, steps), [steps])[0])


def test_it_ranks_what_was_not_trained(runs: Path) -> None:
    found = lrkit.predict(runs, overrides=["schedule=sqrt,wsd,constant", "horizon.steps=300,400"])
    truth = {run.label: true_loss(run.plan) for run in found.predicted}
    assert len(truth) == 6 and [run.label for run in found.predicted] == sorted(truth, key=truth.__getitem__)
    for run in found.predicted:
        assert run.loss == pytest.approx(truth[run.label], rel=0.01) and run.low < truth[run.label] < run.high
        assert (run.measured is not None) == (run.label == "constant horizon.steps=400")
    assert found.has_numbers and found.metric == "val/loss" and found.runs == 4 and found.left_out is None
    assert found.predicted[0].mark == "best" and found.predicted[-1].mark == ""
    assert found.predicted[0].losses[-1] == pytest.approx(found.predicted[0].loss)
    assert "differ by" in str(found) and "constant horizon.steps=400: was trained" in str(found)


def test_the_order_of_the_folders_and_the_seed_change_nothing(runs: Path) -> None:
    recorded = load_recorded_runs([runs])
    plans = {"linear": LINEAR}
    assert predict_losses(recorded, plans) == predict_losses(recorded[::-1], plans)


def test_similar_schedules_are_not_separable_and_far_ones_extrapolate(runs: Path) -> None:
    words = ["schedule=linear", "optimizer.lr=0.1,0.3", "horizon.steps=2000"]
    found = lrkit.predict(runs, overrides=words, plans={"one": LINEAR})
    notes = {run.label: " ".join(run.notes) for run in found.predicted}
    assert notes["optimizer.lr=0.1"] == "extrapolates: 5 x the length of the nearest run" and notes["one"] == ""
    assert "3 x the peak rate" in notes["optimizer.lr=0.3"]


def test_the_command_writes_a_page_with_dashed_curves(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [str(runs), "schedule=linear,wsd"]
    assert main(["predict", *asked, f"out={tmp_path}"]) == 0
    text = capsys.readouterr().out
    assert "1  best  wsd" in text and f"predict.json, compare.html, predict.png are in {tmp_path}" in text
    told = json.loads((tmp_path / "predict.json").read_text())
    assert [run["schedule"] for run in told["predicted"]] == ["wsd", "linear"] and told["has_numbers"]
    page = (tmp_path / "compare.html").read_text()
    curves = json.loads(page.partition('id="data">')[2].partition("</script>")[0])["panels"]
    drawn = {(panel["title"], curve["name"]): curve["broken"] for panel in curves for curve in panel["curves"]}
    assert (
        drawn["validation loss", "wsd"] and drawn["learning rate", "linear"] and not drawn["validation loss", "cosine"]
    )
    assert (tmp_path / "predict.png").stat().st_size > 10_000 and "4 runs, 2 settings and 2 predicted" in page
    wsd = lrkit.predict(runs, overrides=["schedule=linear,wsd"]).predicted[0]
    said = re.search(r"Predicted best: wsd \(final val/loss ([\d.]+), 90 % interval ([\d.]+) to ([\d.]+)\)\.", page)
    assert said and [float(text) for text in said.groups()] == pytest.approx([wsd.loss, wsd.low, wsd.high], abs=0.01)
    assert "Best trained: cosine (final val/loss" in page
    assert main(["predict", *asked, "format=csv"]) == 0
    first = next(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert first["schedule"] == "wsd" and float(first["low"]) < float(first["loss"]) < float(first["high"])
    assert main(["predict", *asked, "format=json"]) == 0
    assert json.loads(capsys.readouterr().out) == told


def test_the_picture_ranks_only_what_was_trained_and_its_title_ends_before_the_legend(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "write_figure", lambda path, figure: drawn.append(figure))
    lengths = ["cooldown=sqrt", "cooldown.length=10%,12.5%,15%,17.5%,20%"]
    lrkit.predict(runs, overrides=["schedule=linear,wsd"], out=tmp_path)
    lrkit.predict(runs, overrides=["schedule=linear,constant", *lengths], out=tmp_path)
    for figure in drawn:
        (legend,) = figure.legends
        figure.draw_without_rendering()
        title, box = (each.get_window_extent() for each in (figure.texts[0], legend))
        assert title.x1 < box.x0, figure.get_suptitle()
        names = [text.get_text() for text in legend.get_texts()]
        assert names[0].startswith("1  cosine") and names[1].startswith("2  constant")
        assert not any(re.match(r"\d+  ", name) for name in names[2:])
        assert figure.get_suptitle().startswith("Predicted best: ")
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()][2:4] == ["wsd", "linear"]


def test_a_bad_fit_gives_a_ranking_without_losses(tmp_path: Path) -> None:
    for schedule in ("constant", "cosine"):
        write_run(tmp_path / schedule, f"schedule={schedule}", noise=0.05)
    found = lrkit.predict(tmp_path, overrides=["schedule=linear,wsd"], out=tmp_path / "out")
    assert not found.has_numbers and "a ranking without losses: the law is off by" in str(found)
    assert "loss" not in found.to_json()["predicted"][0] and "90 % interval" not in str(found)
    panels = json.loads(
        (tmp_path / "out" / "compare.html").read_text().partition('id="data">')[2].partition("</script>")[0]
    )
    assert {curve["name"] for curve in panels["panels"][-1]["curves"]} == {"constant", "cosine"}
    assert "Predicted best: wsd. " in (tmp_path / "out" / "compare.html").read_text()
    order = [run.label for run in found.predicted]
    assert order == ["wsd", "linear"]  # not that of the alphabet
    assert [curve["name"] for curve in panels["panels"][0]["curves"] if curve["name"] in order] == order


def test_a_picture_that_cannot_be_drawn_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for schedule in ("constant", "cosine"):
        write_run(tmp_path / schedule, f"schedule={schedule}")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    found = lrkit.predict(tmp_path, overrides=["schedule=wsd"], out=tmp_path / "out")
    assert "note: predict.png needs the package matplotlib: pip install 'lrkit[plot]'" in str(found)
    assert (tmp_path / "out" / "compare.html").is_file() and not (tmp_path / "out" / "predict.png").exists()


def test_three_schedules_are_judged_by_leaving_one_out(tmp_path: Path) -> None:
    other = AnnealingLaw(0.6, 2.5, 0.4, 2.0, 20.0)
    for schedule, law in (("constant", LAW), ("cosine", LAW), ("wsd", other)):
        write_run(tmp_path / schedule, f"schedule={schedule}", law=law)
    found = lrkit.predict(tmp_path, plans={"linear": LINEAR})
    assert found.left_out is not None and found.left_out > 0.02 and not found.has_numbers


def test_the_recorded_gain_and_a_resumed_run_count(tmp_path: Path) -> None:
    """Rates are the plan's times the gain; a resumed run has two files, and the later one counts from its step."""
    gains = Series([0, 200], [1.0, 0.125])
    write_run(tmp_path / "constant", "schedule=constant", "plateau=reduce", gains=gains)
    write_run(tmp_path / "cosine", "schedule=cosine")
    rows = list(csv.DictReader((tmp_path / "constant" / "metrics.csv").read_text().splitlines()))
    curves = {tag: {int(r["step"]): float(r[tag]) for r in rows if r[tag]} for tag in ("val/loss", "gain")}
    assert len(curves["gain"]) == 2
    by_csv = load_recorded_runs([tmp_path])
    lost = {tag: {s: v + (s > 250) for s, v in at.items() if s <= 300} for tag, at in curves.items()}
    later = {tag: {s: v for s, v in at.items() if s > 250} for tag, at in curves.items() if tag == "val/loss"}
    write_events(tmp_path / "constant", lost, "1")
    write_events(tmp_path / "constant", later, "2", holds_from=251)
    by_events = load_recorded_runs([tmp_path])
    for one, other in zip(by_csv, by_events, strict=True):
        assert other.curve.losses == pytest.approx(one.curve.losses, rel=1e-6)
        assert np.array_equal(one.curve.rates, other.curve.rates)
    rates = {run.name: run.curve.rates for run in by_csv}["constant"]
    assert rates[199] == pytest.approx(0.1) and rates[200] == pytest.approx(0.0125)


def test_accumulated_batches_are_batches(tmp_path: Path) -> None:
    """16 samples accumulated twice are a batch of 32, and the training loss serves where there is no other."""
    write_run(tmp_path / "constant", "schedule=constant", metric="train/loss")
    words = ["data.batch_size=16", "trainer.accumulate_grad_batches=2"]
    write_run(tmp_path / "cosine", "schedule=cosine", *words, metric="train/loss")
    found = lrkit.predict(tmp_path, plans={"linear": LINEAR})
    assert found.metric == "train/loss" and "train/loss is predicted" in str(found)


def test_a_long_curve_is_thinned(tmp_path: Path) -> None:
    """A training loss of every step is averaged; nothing of it is lost."""
    for schedule in ("constant", "cosine"):
        write_run(tmp_path / schedule, f"schedule={schedule}", every=1, metric="train/loss")
    runs = load_recorded_runs([tmp_path])
    assert all(len(run.curve.steps) == 160 and run.curve.steps[-1] == 399.5 for run in runs)
    (found,) = predict_losses(runs, {"linear": LINEAR}).predicted
    assert found.loss == pytest.approx(true_loss(LINEAR), rel=0.01)


def test_no_part_of_it_imports_torch() -> None:
    code = "import sys, lrkit.cli.predict, lrkit.prediction.prediction, lrkit.comparison.predicted_runs"
    told = subprocess.run(
        [sys.executable, "-c", f"{code}; print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert told.stdout.strip() == "False"


@pytest.mark.slow
def test_runs_of_lrkit_are_read_as_they_were_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two short trainings with reduce-on-plateau; rates, steps and losses are those that were logged."""
    words = ["data=digits", "model=linear", "optimizer=momentum", "optimizer.lr=0.05", "data.batch_size=128"]
    words += ["trainer.max_epochs=12", "warmup=linear", "logger=many", "plateau=reduce", "plateau.patience=1"]
    for schedule in ("constant", "cosine"):
        assert main(["train", *words, f"schedule={schedule}", f"hydra.run.dir={tmp_path / schedule}"]) == 0
    capsys.readouterr()
    for run in load_recorded_runs([tmp_path]):
        rows = list(csv.DictReader((tmp_path / run.name / "metrics.csv").read_text().splitlines()))
        logged = {int(row["step"]): float(row["lr/default"]) for row in rows if row["lr/default"]}
        assert [run.curve.rates[step] for step in logged] == pytest.approx([*logged.values()])
        assert run.final_loss == pytest.approx(float([row["val/loss"] for row in rows if row["val/loss"]][-1]))
    assert main(["predict", str(tmp_path), "schedule=wsd,linear", "plateau=none", f"out={tmp_path / 'out'}"]) == 0
    assert "best" in capsys.readouterr().out and (tmp_path / "out" / "compare.html").is_file()


FIXED = {"fixed": ["schedule=constant"], "other": ["schedule=constant", "optimizer.lr=0.05"]}
BOTH = {"constant": ["schedule=constant"], "cosine": ["schedule=cosine"]}


@pytest.mark.parametrize(
    ("folders", "how", "must"),
    [
        ({"alone": ["schedule=cosine"]}, {}, "needs two finished runs at least"),
        (FIXED, {}, "needs a run whose rate decays"),
        ({"a": ["schedule=cosine"], "b": ["schedule=linear"]}, {}, "needs a run that holds its rate for half"),
        ({"a": ["schedule=wsd"], "b": ["schedule=wsd", "seed=2"]}, {}, "needs a run that holds its rate for half"),
        ({**BOTH, "cosine": ["schedule=cosine", "model.hidden=[8]"]}, {}, "must have model.hidden="),
        ({**BOTH, "cosine": ["schedule=cosine", "optimizer=adamw"]}, {}, "must have optimizer=torch.optim.SGD"),
        ({**BOTH, "cosine": ["schedule=cosine", "data.batch_size=64"]}, {}, "must have data.batch_size=32"),
        ({**BOTH, "cosine": ["schedule=cosine", "data=mnist1d", "data.batch_size=32"]}, {}, "must have data._target_="),
        (
            {**BOTH, "cosine": ["schedule=cosine", "optimizer.weight_decay=0.1"]},
            {},
            "must have optimizer.weight_decay=",
        ),
        (BOTH, {"status": "preempted"}, "must be finished"),
        (BOTH, {"status": "diverged"}, "must be finished"),
        (BOTH, {"every": 100}, "must have recorded val/loss or train/loss at least 5 times"),
        (BOTH, {"every": 70}, "at least 5 times after the first fifth"),
        (BOTH, {"law": AnnealingLaw(1.0, 0.0, 0.5, -3.0, 20.0)}, "must have a val/loss that falls"),
        (BOTH, {"law": AnnealingLaw(-3.0, 2.0, 0.5, 1.0, 20.0)}, "must have a val/loss that is finite and above 0"),
        (BOTH, {"noise": 0.5}, "must follow the annealing law"),
    ],
)
def test_it_refuses(folders: dict[str, list[str]], how: dict[str, object], must: str, tmp_path: Path) -> None:
    for name, words in folders.items():
        write_run(tmp_path / name, *words, **how)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as refused:
        lrkit.predict(tmp_path, plans={"linear": LINEAR})
    assert must in str(refused.value)


@pytest.mark.parametrize(
    ("words", "must"),
    [
        ([], "needs the folders of finished runs"),
        (["RUNS"], "needs what to predict"),
        (["RUNS", "schedule=cosin"], "Did you mean 'cosine'"),
        (["RUNS", "schedule=wsd", "format=pdf"], "format is not a format"),
        (["RUNS", "schedule=wsd", "--lr", "0.1"], "--lr is not a flag of lrkit predict: write optimizer.lr=..."),
        (["RUNS", "schedule=wsd", "out="], "out has no value"),
        (["RUNS", "schedule=wsd", "model.hidden=[8]"], "must have model.hidden="),
        (["nowhere", "schedule=wsd"], "nowhere does not exist"),
    ],
)
def test_the_command_refuses(words: list[str], must: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", *(str(runs) if word == "RUNS" else word for word in words)]) == 2
    assert must in capsys.readouterr().err


def test_where_the_decay_lowers_nothing_the_sum_of_rates_ranks(tmp_path: Path) -> None:
    """And a plan that never moves is refused."""
    for schedule in ("constant", "cosine"):
        write_run(tmp_path / schedule, f"schedule={schedule}", law=AnnealingLaw(0.0, 2.0, 0.5, 0.0, 20.0))
    how = {"lr": 0.1, "steps": 400, "optimizer": "momentum", "batch_size": 32}
    later = lrkit.plan(schedule="constant", warmup=lrkit.schedules.Constant(length=100, start=0.0), **how)
    found = lrkit.predict(tmp_path, plans={"later": later, "linear": LINEAR})
    assert [run.label for run in found.predicted] == ["later", "linear"]
    still = lrkit.plan(schedule=lrkit.schedules.Constant(start=0.0), **how)
    with pytest.raises(ConfigError, match="must have a step with a rate above 0"):
        lrkit.predict(tmp_path, plans={"still": still})


def rows_of(losses: list[float], apart: int = 10) -> str:
    return "step,val/loss\n" + "".join(f"{(i + 1) * apart},{loss!r}\n" for i, loss in enumerate(losses))


@pytest.mark.parametrize(
    "content",
    [
        "", "\0" * 50, "9" * 5000, "step,val/loss\n" + "1e30,1\n" * 9, "step,val/loss\n-5,1\n-4,2\n1,3\n2,0.1\n3,0.1\n",
        rows_of([1e300] * 40), rows_of([1e-300 * (50 - i) for i in range(40)]),
        rows_of([1e300 / (i + 1) for i in range(40)]), rows_of([2 - i / 100 for i in range(40)], 10**14),
        rows_of([1e-5 * (i % 2) + 5 - i / 10 for i in range(40)]),
    ],
)  # fmt: skip
def test_odd_values_are_answered(content: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback, no warning of numpy, and no endless loop."""
    for name in ("constant_1", "cosine_1"):
        shutil.copytree(runs / name, tmp_path / name)
    (tmp_path / "constant_1" / "metrics.csv").write_text(content)
    assert main(["predict", str(tmp_path), "schedule=linear", "format=csv"]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err

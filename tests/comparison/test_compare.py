"""`lrkit compare`: settings, columns, ranking and separability; tables, figures and the page."""

from __future__ import annotations

import csv
import json
import math
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_events, write_run

from lrkit.base.errors import ConfigError
from lrkit.base.figure_style import LINE_STYLES
from lrkit.base.metric_names import higher_is_better
from lrkit.cli.main import main
from lrkit.comparison.plot_data import build_band, build_panels
from lrkit.comparison.ranking import Comparison, compare
from lrkit.comparison.statistics import Interval, means_differ, t_quantile
from lrkit.runs.event_reader import Series
from lrkit.runs.run_folders import find_runs
from lrkit.runs.run_reader import load_run

Said = Callable[..., str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*argv: object, code: int = 0) -> str:
        result = main(["compare", *map(str, argv)])
        out, err = capsys.readouterr()
        assert result == code, out + err
        return out if code == 0 else err

    return run


def sweep(folder: Path, **values: list[float]) -> Path:
    """Write runs: schedule -> final validation losses of seeds 1, 2, ..."""
    for schedule, losses in values.items():
        for seed, loss in enumerate(losses, 1):
            write_run(folder / f"{schedule}-{seed}", schedule=schedule, seed=seed, loss=loss)
    return folder


def ails(folder: Path, kind: str, advice: str = "optimizer.lr=0.01 (a tenth), or lrkit find") -> None:
    """Write a symptom into a run's metrics.json."""
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["findings"] = [{"kind": kind, "evidence": "it shows", "advice": advice}]
    (folder / "metrics.json").write_text(json.dumps(metrics))


def names(comparison: Comparison) -> list[str]:
    return [setting.name for setting in comparison.settings]


def results(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "results.csv").read_text().splitlines()))


def refused(*argv: Any, **options: Any) -> str:
    with pytest.raises(ConfigError) as error:
        compare(*argv, **options)
    return str(error.value)


# --- intervals: against values computed by scipy 1.17 ----------------------------------------------


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706204736174694), (1.3, 7.500529325562029), (2, 4.302652729749462), (2.5, 3.5746548420036817),
     (7, 2.364624251592784), (30, 2.0422724563012378), (120, 1.9799304050824402)],
)  # fmt: skip
def test_the_quantile_of_t(freedom: float, quantile: float) -> None:
    assert t_quantile(freedom) == pytest.approx(quantile, rel=1e-9)


def test_an_interval() -> None:  # scipy.stats.t.interval(0.95, 4, np.mean(x), scipy.stats.sem(x))
    interval = Interval.of([0.2, 0.25, 0.31, 0.22, 0.27])
    assert interval.mean == pytest.approx(0.25) and interval.n == 5
    assert interval.mean + (interval.half or 0) == pytest.approx(0.30340598792462703, rel=1e-9)
    assert Interval.of([0.3]) == Interval(0.3, None, 1)
    assert (str(interval), str(Interval.of([0.3])), str(Interval(12345.6, 321.0, 3))) == (
        "0.250 ± 0.053", "0.3", "1.235e+04 ± 3.2e+02",
    )  # fmt: skip


#: A sample and others; the p values are of scipy.stats.ttest_rel and ttest_ind(equal_var=False).
A = [0.21, 0.25, 0.23, 0.24]
CASES = [
    ([0.23, 0.27, 0.24, 0.27], True, False),  # p = 0.016 paired, 0.187 Welch
    ([0.31, 0.24, 0.30, 0.33], False, True),  # p = 0.087 paired, 0.040 Welch
    ([0.21, 0.26, 0.23, 0.24], False, False),  # p = 0.391 paired, 0.859 Welch
]


@pytest.mark.parametrize(("other", "paired", "welch"), CASES)
def test_paired_where_the_seeds_are_the_same_else_welch(other: list[float], paired: bool, welch: bool) -> None:
    assert means_differ(dict(enumerate(A)), dict(enumerate(other))) is paired
    assert means_differ(dict(enumerate(A)), dict(enumerate(other, 10))) is welch


def test_a_difference_needs_two_runs_and_needs_no_spread() -> None:
    assert means_differ({1: 0.1}, {1: 0.2, 2: 0.3}) is None
    assert means_differ({1: 0.1, 2: 0.2}, {1: 0.2, 2: 0.3}) is True
    assert means_differ({1: 0.1, 2: 0.2}, {1: 0.1, 2: 0.2}) is False


def test_the_direction_follows_from_the_name() -> None:
    assert [higher_is_better(n) for n in ("val/loss", "val/accuracy", "val/F1", "test_auc")] == [
        False,
        True,
        True,
        True,
    ]


# --- settings and columns -------------------------------------------------------------------------


def test_seeds_are_repetitions_and_columns_are_what_differs(tmp_path: Path) -> None:
    for schedule in ("cosine", "step"):
        for seed in (1, 2):
            write_run(tmp_path / f"{schedule}{seed}", schedule=schedule, seed=seed)
    comparison = compare([tmp_path])
    assert comparison.columns == ["schedule"]  # and not schedule.gamma, which comes with step
    assert {(s.name, len(s.runs)) for s in comparison.settings} == {("cosine", 2), ("step", 2)}


def test_a_key_that_differs_within_an_option_is_a_column(tmp_path: Path) -> None:
    for i, (schedule, gamma) in enumerate([("step", 0.1), ("step", 0.5), ("cosine", None)]):
        node = {"schedule": {"_target_": f"lrkit.schedules.{schedule.title()}", "gamma": gamma}}
        write_run(tmp_path / str(i), schedule=schedule, config=node)
    comparison = compare([tmp_path])
    assert comparison.columns == ["schedule", "schedule.gamma"]
    assert {tuple(s.label.values()) for s in comparison.settings} == {("step", "0.1"), ("step", "0.5"), ("cosine", "")}


def test_without_the_names_of_options_their_classes_are_shown(tmp_path: Path) -> None:
    for name in ("OneCycle", "Cosine"):
        node = {"schedule": {"_target_": f"lrkit.schedules.{name}", "length": None}}
        write_run(tmp_path / name, config=node, choices=name == "Cosine")
    assert sorted(names(compare([tmp_path]))) == ["cosine", "one_cycle"]


def test_a_rate_is_a_column_also_where_the_optimizer_explains_it(tmp_path: Path) -> None:
    for name, lr in (("SGD", 0.1), ("AdamW", 0.001)):
        write_run(tmp_path / name, config={"optimizer": {"_target_": f"torch.optim.{name}", "lr": lr}}, choices=False)
    assert compare([tmp_path]).columns == ["optimizer", "optimizer.lr"]


def test_what_says_nothing_about_the_result_tells_no_settings_apart(tmp_path: Path) -> None:
    for seed in (1, 2):
        node = {"resume": {"path": f"outputs/runs/{seed}"}, "logger": {"csv": {"save_dir": str(seed)}}}
        write_run(tmp_path / str(seed), seed=seed, config=node)
    comparison = compare([tmp_path])
    assert len(comparison.settings) == 1 and comparison.columns == []
    assert comparison.settings[0].name == "1"


def test_the_same_run_twice_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path / "1", seed=3, loss=0.5)
    write_run(tmp_path / "2", seed=3, loss=0.4)
    write_run(tmp_path / "3", seed=3, loss=None, status="failed")
    comparison = compare([tmp_path])
    assert [run.name for run in comparison.settings[0].runs] == ["2"]
    assert comparison.notes[0] == "1 is left out: 2 has the same setting and the same seed"


# --- the ranking ----------------------------------------------------------------------------------


def test_it_ranks_by_the_mean_and_marks_what_cannot_be_told_apart(tmp_path: Path) -> None:
    sweep(tmp_path, cosine=[0.21, 0.25, 0.23, 0.24], linear=[0.21, 0.26, 0.23, 0.24], step=[0.23, 0.27, 0.24, 0.27])
    comparison = compare([tmp_path])
    assert [(s.name, s.mark) for s in comparison.settings] == [("cosine", "best"), ("linear", "="), ("step", "")]
    assert comparison.settings[0].best == Interval.of([0.21, 0.25, 0.23, 0.24])


def test_diverged_failed_and_unfinished_runs_rank_last_with_their_status(tmp_path: Path) -> None:
    sweep(tmp_path, cosine=[0.5, 0.6], step=[0.7, 0.8])
    write_run(tmp_path / "d1", schedule="linear", seed=1, loss=math.nan, best=0.01)
    write_run(tmp_path / "d2", schedule="linear", seed=2, loss=math.nan, best=0.02, status="diverged")
    write_run(tmp_path / "f1", schedule="rex", loss=None, best=math.nan, status="failed")
    write_run(tmp_path / "u1", schedule="sqrt", status=None, curves={"val/loss": {10: 0.3}})
    write_run(tmp_path / "p1", schedule="wsd", seed=1, loss=0.1)
    write_run(tmp_path / "p2", schedule="wsd", seed=2, loss=math.inf, best=0.1)
    comparison = compare([tmp_path])
    expected = [
        ("cosine", "done"), ("step", "done"), ("wsd", "1 done, 1 diverged"), ("sqrt", "unfinished"),
        ("linear", "diverged"), ("rex", "failed"),
    ]  # fmt: skip
    assert [(s.name, s.status) for s in comparison.settings] == expected
    assert [s.mark for s in comparison.settings] == ["best", "", "?", "", "", ""]
    assert comparison.settings[2].best == Interval(0.1, None, 1)


def test_where_nothing_ended_nothing_is_best(tmp_path: Path) -> None:
    write_run(tmp_path / "a", loss=math.nan, best=0.5)
    write_run(tmp_path / "b", schedule="step", status="failed")
    assert {setting.mark for setting in compare([tmp_path]).settings} == {""}


def test_best_and_final_and_another_metric(tmp_path: Path) -> None:
    for schedule, losses, accuracy in (("cosine", (0.1, 0.9), 0.7), ("step", (0.5, 0.6), 0.8)):
        curves = {"val/loss": {1: losses[0], 2: losses[1]}, "val/accuracy": {1: 0.9 - accuracy, 2: accuracy}}
        write_run(tmp_path / schedule, schedule=schedule, loss=losses[1], best=losses[0], curves=curves)
    assert names(compare([tmp_path])) == ["cosine", "step"]
    assert names(compare([tmp_path], by="final")) == ["step", "cosine"]
    by_accuracy = compare([tmp_path], metric="val/accuracy")
    assert names(by_accuracy) == ["step", "cosine"]
    assert [s.best and round(s.best.mean, 6) for s in by_accuracy.settings] == [0.8, 0.7]


def test_the_best_is_what_the_run_says_where_it_says_it(tmp_path: Path) -> None:
    """A run resumed in a new folder has a best value that is not in its own curve."""
    write_run(tmp_path / "a", loss=0.3, best=0.05, curves={"val/loss": {200: 0.4, 300: 0.3}})
    assert compare([tmp_path]).settings[0].best == Interval(0.05, None, 1)


def test_a_rate_at_the_edge_of_those_tried_is_said(tmp_path: Path) -> None:
    for schedule, losses in (("cosine", (0.3, 0.2, 0.1)), ("step", (0.3, 0.1, 0.2))):
        for lr, loss in zip((0.01, 0.1, 1.0), losses, strict=True):
            write_run(tmp_path / f"{schedule}{lr}", schedule=schedule, lr=lr, loss=loss)
    comparison = compare([tmp_path])
    assert "cosine: the best optimizer.lr, 1, is the highest tried" in comparison.notes
    assert not any(note.startswith("step:") for note in comparison.notes)
    assert [[rate for rate, _ in at] for at in comparison.rates().values()] == [[0.01, 0.1, 1.0]] * 2


# --- folders of other programs, and damaged ones ----------------------------------------------------------


def test_foreign_folders_by_their_hyper_parameters(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        for seed in (1, 2):
            curves = {"val_loss": {0: 1.0, 10: lr + seed / 100}, "lr-SGD": {0: lr, 10: 0.0}, "train_loss": {5: 2.0}}
            hparams = {"lr": lr, "layers": 3, "seed": seed}
            write_events(tmp_path / f"version_{lr}_{seed}", curves, hparams=hparams)
    comparison = compare([tmp_path])
    assert (comparison.metric, comparison.columns, names(comparison)) == ("val_loss", ["lr"], ["lr=0.1", "lr=0.2"])
    assert [s.status for s in comparison.settings] == ["unknown"] * 2
    assert comparison.settings[0].best == Interval(pytest.approx(0.115), pytest.approx(12.706204736 * 0.005), 2)
    assert [panel.title for panel in build_panels(comparison)] == ["learning rate", "training loss", "validation loss"]


def test_foreign_folders_by_their_names_where_there_is_nothing_else(tmp_path: Path) -> None:
    write_events(tmp_path / "big" / "a", {"val_loss": {0: 0.2}})
    write_events(tmp_path / "small", {"val_loss": {0: 0.1}})
    comparison = compare([tmp_path])
    assert (comparison.columns, names(comparison)) == (["run"], ["small", "big/a"])


def test_a_foreign_run_beside_a_sweep(tmp_path: Path) -> None:
    write_run(tmp_path / "cosine", loss=0.5)
    write_run(tmp_path / "step", schedule="step", loss=0.4)
    write_events(tmp_path / "theirs", {"val/loss": {7: 0.1}})
    comparison = compare([tmp_path])
    assert comparison.columns == ["run", "schedule"]
    assert [s.label["run"] for s in comparison.settings] == ["theirs", "step", "cosine"]


def test_keras_splits_a_run_into_two_folders(tmp_path: Path) -> None:
    for name, loss in (("a", 0.3), ("b", 0.2)):
        write_events(tmp_path / name / "train", {"epoch_loss": {0: 1.0}, "epoch_learning_rate": {0: 0.1}}, tensors=True)
        write_events(tmp_path / name / "validation", {"epoch_loss": {0: loss}}, tensors=True)
    comparison = compare([tmp_path])
    assert (comparison.metric, names(comparison)) == ("val/epoch_loss", ["b", "a"])
    assert [panel.title for panel in build_panels(comparison)] == ["learning rate", "training loss", "validation loss"]


def test_what_torch_add_hparams_writes_belongs_to_the_run_above(tmp_path: Path) -> None:
    write_events(tmp_path / "run", {"val_loss": {0: 0.3}})
    write_events(tmp_path / "run" / "1700000000.123", {"hparam/loss": {0: 0.3}}, hparams={"lr": 0.1})
    write_events(tmp_path / "run" / "inner", {"val_loss": {0: 0.4}})
    assert sorted(find_runs([tmp_path]).values()) == ["run", "run/inner"]
    assert load_run(tmp_path / "run", "run").facts == {"lr": 0.1}


def test_what_lies_inside_of_a_run_belongs_to_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "s" / "a")
    write_events(folder / "tensorboard" / "version_0", {"val/loss": {0: 1.0}})
    assert find_runs([tmp_path]) == {folder: "s/a"}
    assert list(load_run(folder, "a").series) == ["val/loss"]


def test_a_foreign_hydra_run_is_read_as_plain_data(tmp_path: Path) -> None:
    hydra = tmp_path / "run" / ".hydra"
    hydra.mkdir(parents=True)
    write_events(tmp_path / "run" / "tensorboard" / "version_0", {"val/loss": {3: 0.25}})
    text = "seed: 4\nmodel:\n  lr: 1e-3\n  width: ${size}\nsize: 64\nhome: ${oc.env:HOME}\ndata:\n  seed: ${seed}\n"
    (hydra / "config.yaml").write_text(text)
    run = load_run(tmp_path / "run", "run")
    assert run.seed == 4
    assert run.facts == {"model.lr": 0.001, "model.width": 64, "size": 64, "home": "${oc.env:HOME}"}
    assert (run.status, run.steps) == ("unknown", 3)


def test_a_table_of_values_is_one_setting(tmp_path: Path) -> None:
    """Also a long one, of which two may begin alike; it must not use up the number of keys that are read."""
    facts = []
    for last in (0.1, 0.2):
        rows = [*([i, 1.0] for i in range(6000)), [6000, last]]
        node = {"schedule": {"table": rows, "short": [[0, 1], ["50%", 0.5]]}, "size": 64}
        facts.append(load_run(write_run(tmp_path / f"run{last}", config=node), "run").facts)
    assert facts[0].keys() == facts[1].keys() >= {"schedule.table", "schedule.short", "size"}
    assert facts[0]["schedule.short"] == "[[0, 1], ['50%', 0.5]]"
    assert facts[0]["schedule.table"] != facts[1]["schedule.table"]
    assert facts[0]["schedule.table"].startswith("[[0, 1.0], [1, 1.0]") and len(facts[0]["schedule.table"]) < 100


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (".hydra/config.yaml", "!!python/object/apply:os.system ['touch owned']", "cannot be read as plain data"),
        (".hydra/config.yaml", "a: [1, 2", "cannot be read as plain data"),
        (".hydra/config.yaml", "a: &a {b: *a, c: *a, d: *a, e: *a}", "cannot be read as plain data"),
        (".hydra/config.yaml", "[" * 100_000, "cannot be read as plain data"),  # the C parser would crash on it
        ("metrics.json", '{"status": "do', "cannot be read"),
        ("metrics.json", "[" * 100_000, "cannot be read"),
        ("metrics.json", '{"status": 3, "final": [1], "best": null, "steps": "x", "monitor": {}}', None),
        ("config.json", '["a", "b"]', None),
    ],
)
def test_damaged_and_hostile_files_do_no_harm(
    name: str, text: str, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_events(tmp_path / "run", {"val/loss": {1: 0.5}})
    (tmp_path / "run" / ".hydra").mkdir()
    (tmp_path / "run" / name).write_text(text)
    comparison = compare([tmp_path])
    assert comparison.settings[0].best == Interval(0.5, None, 1)
    assert not (tmp_path / "owned").exists()
    assert comparison.notes == ([] if said is None else [f"run: {Path(name).name} {said}"])


def test_a_half_written_run_is_compared_by_what_there_is(tmp_path: Path) -> None:
    write_run(tmp_path / "a", loss=0.4)
    write_run(tmp_path / "b", schedule="step", status=None, curves={"val/loss": {10: 0.9, 20: 0.3}})
    file = next((tmp_path / "b").glob("*tfevents*"))
    file.write_bytes(file.read_bytes()[:-3])
    comparison = compare([tmp_path])
    assert [(s.name, s.status, s.steps, s.best and s.best.mean) for s in comparison.settings] == [
        ("cosine", "done", 100, 0.4), ("step", "unfinished", 10, pytest.approx(0.9)),
    ]  # fmt: skip
    assert "b: events.out.tfevents.1 ends in the middle of a record; the records before were read" in comparison.notes


def test_the_wall_time_of_a_resumed_run_is_that_of_all_its_parts(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", curves={"val/loss": {0: 1.0, 40: 0.5}})
    assert load_run(folder, "a").seconds == 12.5
    write_events(folder, {"val/loss": {40: 0.5, 60: 0.4}}, "2")
    assert load_run(folder, "a").seconds == 40 + 20


# --- curves ---------------------------------------------------------------------------------------


def test_a_band_is_the_mean_and_the_range_over_seeds() -> None:
    made = build_band([Series([0, 10, 20], [1.0, 2.0, 3.0]), Series([0, 20], [3.0, 5.0])])
    assert (made.steps, made.mean, made.low, made.high) == (
        [0, 10, 20], [2.0, 3.0, 4.0], [1.0, 2.0, 3.0], [3.0, 4.0, 5.0],
    )  # fmt: skip


def test_a_band_ends_where_a_run_diverges_and_has_no_values_beyond_its_curves() -> None:
    made = build_band([Series([0, 1, 2], [1.0, math.nan, math.inf]), Series([0, 1], [3.0, 4.0])])
    assert (made.steps, made.mean) == ([0, 1], [2.0, 4.0])
    assert build_band([Series([0], [math.nan])]).steps == []


def test_grey_lines_of_high_rates_leave_the_panel_of_the_others(tmp_path: Path) -> None:
    for number in range(10):
        curves = {"lr/default": {0: 0.1 if number < 8 else 10.0, 9: 0.0}, "val/loss": {9: 1.0 + number}}
        config = {"warmup": {"length": number}}
        write_run(tmp_path / str(number), loss=1.0 + number, curves=curves, config=config, choices=False)
    (panel,) = [each for each in build_panels(compare([tmp_path])) if each.title == "learning rate"]
    assert len(panel.bands) == 10 and panel.high == pytest.approx(0.2)


def test_long_curves_become_means_and_rates_stay_exact() -> None:
    steps = list(range(1001))
    losses = build_band([Series(steps, [float(step % 10) for step in steps])], 100)
    assert len(losses.steps) == 100 and losses.mean[:-1] == [4.5] * 99
    rates = build_band([Series(steps, [0.1 if step < 500 else 0.01 for step in steps])], 100, exact=True)
    assert rates.steps == steps[::10] and set(rates.mean) == {0.1, 0.01}


# --- the command ----------------------------------------------------------------------------------


def test_it_prints_the_answer_and_leaves_tables_pictures_and_a_page(tmp_path: Path, said: Said) -> None:
    for schedule, base in (("cosine", 0.2), ("step", 0.4)):
        for lr in (0.01, 0.1):
            for seed in (1, 2):
                loss = base + 0.01 * seed + 0.1 * (lr == 0.01)
                curves = {
                    "lr/default": {0: lr, 50: lr / 2, 99: 0.0}, "train/loss": {0: 2.0, 99: loss},
                    "val/loss": {50: 1.0, 99: loss}, "val/accuracy": {99: 1 - loss},
                }  # fmt: skip
                write_run(tmp_path / "sweep" / f"{schedule}-{lr}-{seed}", schedule=schedule, lr=lr, seed=seed,
                          loss=loss, curves=curves)  # fmt: skip
    page = said("sweep")
    table = page.partition("All settings, by the best val/loss:\n")[2].splitlines()
    assert table[0].split() == ["#", "schedule", "optimizer.lr", "best", "val/loss", "final", "val/loss",
                                "runs", "steps", "time", "status"]  # fmt: skip
    assert " ".join(table[1].split()) == "1 best cosine 0.1 0.215 ± 0.064 0.215 ± 0.064 2 100 12.5 s done"
    assert "Best: cosine at optimizer.lr=0.1 (best val/loss 0.215 ± 0.064)." in page
    folder = tmp_path / "sweep"
    written = {path.name for path in folder.iterdir() if path.is_file()}
    assert written == {"results.csv", "results.md", "tuned.csv", "compare.html", "compare.png", "sensitivity.png"}
    for name in ("compare.png", "sensitivity.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG") and (folder / name).stat().st_size > 10_000
    markdown = (folder / "results.md").read_text()
    assert "| 1 | best | cosine | 0.1 | 0.215 ± 0.064 | 0.215 ± 0.064 | 2 | 100 | 12.5 s | done |" in markdown
    assert said("sweep").splitlines()[0] == page.splitlines()[0]  # the files of the comparison are not taken for a run
    assert said("sweep/cosine-0.1-1", "out=one").endswith("are in one\n")


def test_csv_has_a_row_for_each_run_also_those_that_failed(tmp_path: Path, said: Said) -> None:
    sweep(tmp_path / "s", cosine=[0.1, 1 / 3], step=[0.7])
    write_run(tmp_path / "s" / "lost", schedule="step", seed=2, loss=None, best=math.nan, status="failed")
    (tmp_path / "s" / "cosine-1" / "checkpoints").mkdir()
    (tmp_path / "s" / "cosine-1" / "checkpoints" / "best.ckpt").touch()
    said("s")
    rows = results(tmp_path / "s")
    assert [(r["run"], r["rank"], r["mark"], r["schedule"], r["seed"], r["status"]) for r in rows] == [
        ("cosine-1", "1", "best", "cosine", "1", "done"), ("cosine-2", "1", "best", "cosine", "2", "done"),
        ("lost", "2", "?", "step", "2", "failed"), ("step-1", "2", "?", "step", "1", "done"),
    ]  # fmt: skip
    assert float(rows[1]["final"]) == 1 / 3 and float(rows[0]["final_mean"]) == (0.1 + 1 / 3) / 2
    assert float(rows[0]["final_interval"]) == pytest.approx(12.706204736 * (1 / 3 - 0.1) / 2)
    assert rows[0]["checkpoint"].endswith("cosine-1/checkpoints/best.ckpt") and rows[1]["checkpoint"] == ""
    assert (rows[0]["steps"], rows[0]["seconds"], rows[0]["metric"]) == ("100", "12.5", "val/loss")


def test_the_page_needs_no_network_and_takes_nothing_for_markup(tmp_path: Path, said: Said) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    for i, name in enumerate([evil, "plain {{data}} $x_$"]):
        curves = {"val/loss": {0: 1.0 + i, 1: 0.5 + i}, "lr": {0: 0.1}}
        write_events(tmp_path / "runs" / str(i), curves, hparams={"name": name, "lr": 0.1 + i})
    said("runs", "out=made")
    page = (tmp_path / "made" / "compare.html").read_text()
    assert not re.search(r"https?:|//\w+\.|<link|@import|src=[\"']|url\((?!#)", page.replace("src=x", ""))
    assert "<img" not in page and "&lt;img" in page
    assert page.count("</script>") == 2
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert [entry["name"] for entry in data["legend"]] == [f"lr=0.1 name={evil}", "lr=1.1 plain {{data}} $x_$"]
    assert [panel["title"] for panel in data["panels"]][:2] == ["learning rate", "validation loss"]
    assert [entry["style"] for entry in data["legend"]] == [0, 1]  # with a marker, and a colour for each mode
    assert data["marks"][1] == LINE_STYLES[1].path
    light, dark = page.partition("@media (prefers-color-scheme: dark)")[::2]
    assert f"--line1: {LINE_STYLES[1].light};" in light and f"--line1: {LINE_STYLES[1].dark};" in dark


def test_runs_of_another_commit_or_version_are_told(tmp_path: Path, said: Said) -> None:
    folder = sweep(tmp_path / "one", cosine=[0.1, 0.2], step=[0.3])
    for number, run in enumerate(sorted(folder.glob("*-*"))):
        git, versions = {"commit": f"{number % 2}" * 40, "dirty": number == 0}, {"torch": "2.13", "lrkit": "\x1b[31m1"}
        starts = [{"git": git, "versions": versions}, *([{"versions": {"torch": "2.14"}}] * (number == 2))]
        (run / "environment.json").write_text(json.dumps({"starts": starts}))
    page = said("one")
    assert (
        "note: the runs differ in git commit: 0000000000 with changes (1 run), 1111111111 (1 run), 0000000000" in page
    )
    assert "note: the runs differ in torch: 2.13 (2 runs), 2.13 then 2.14 (1 run)" in page
    assert "differ in lrkit" not in page and "\x1b" not in page
    html = (folder / "compare.html").read_text()
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    assert data["environments"]["torch"] == {"2.13": 2, "2.13 then 2.14": 1}
    assert {row["torch"] for row in results(folder)} == {"2.13", "2.13 then 2.14"}


def test_several_folders_make_a_new_one(tmp_path: Path, said: Said) -> None:
    sweep(tmp_path / "one", cosine=[0.1])
    sweep(tmp_path / "two", step=[0.2])
    page = said("one", "two", "two/step-1")
    (folder,) = (tmp_path / "outputs" / "compare").iterdir()
    assert page.endswith(f"are in {folder.relative_to(tmp_path)}\n")
    assert [row["run"] for row in results(folder)] == ["one/cosine-1", "two/step-1"]


def test_without_matplotlib_there_is_all_but_the_pictures(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(tmp_path / "s", cosine=[0.1], step=[0.2])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    page = said("s")
    assert "note: compare.png needs the package matplotlib: pip install 'lrkit[plot]'." in page
    assert "results.csv, results.md, compare.html are in s" in page


def test_bad_input_is_refused_in_one_line(tmp_path: Path, said: Said) -> None:
    sweep(tmp_path / "s=1", cosine=[0.1])
    (tmp_path / "empty").mkdir()
    write_events(tmp_path / "dumb", {"speed": {0: 1.0}})
    for argv, expected in (
        (["nowhere"], "lrkit: nowhere does not exist."),
        (
            ["empty"],
            "lrkit: empty must contain a run: it has no plan.json, metrics.json, .hydra or TensorBoard event files",
        ),
        (["s=1/cosine-1/plan.json"], "must be the folder of a run or of a sweep"),
        ([], "lrkit: lrkit compare needs a folder of runs"),
        (["s=1", "metric=val/los"], "metric must be a metric of the runs. Did you mean 'val/loss'? Accepted: "),
        (["s=1", "by=last"], "by must be one of best, final. Received: 'last'"),
        (["s=1", "metrics=val/loss"], "metrics is not a key. Did you mean 'metric'? Accepted: by, metric, out."),
        (["s=1", "metric="], "metric has no value: write metric=..."),
        (["s=1", "by=best", "by=final"], "by is given twice"),
        (["s=1", "--metric", "val/loss"], "--metric is not a flag of lrkit compare"),
        (["s=1", "out=s=1/cosine-1/plan.json"], "out must be a folder that can be written to"),
        (["dumb"], "metric must be set: no run names its monitored metric. Accepted: speed"),
    ):
        error = said(*argv, code=2)
        assert expected in error and error.count("\n") == 1, error


def test_runs_that_logged_nothing_are_said_to(tmp_path: Path) -> None:
    write_run(tmp_path / "a", loss=None, status="failed")
    assert refused([tmp_path]) == "metric needs a logged metric: there is none in 1 run."


def test_it_never_imports_torch_nor_tensorflow(tmp_path: Path) -> None:
    curves = {"lr/default": {0: 0.1}, "val/loss": {1: 0.5}}
    write_run(tmp_path / "s" / "a", curves=curves)
    code = "import sys; from lrkit.cli.main import main; code = main(['compare', 's']); " + (
        "print([n for n in ('torch', 'tensorflow', 'pytorch_lightning', 'hydra') if n in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[] 0"], done.stderr
    assert (tmp_path / "s" / "compare.png").is_file()


@pytest.mark.slow
def test_two_hundred_runs_of_a_thousand_points_take_less_than_ten_seconds(tmp_path: Path) -> None:
    file = write_events(tmp_path, {
        "lr/default": {step: 0.1 - step / 1e4 for step in range(1000)},
        "train/loss": {step: 2 / (1 + step) for step in range(1000)},
        "val/loss": {step: 2 / (1 + step) for step in range(49, 1000, 50)},
    })  # fmt: skip
    for i in range(200):
        folder = write_run(tmp_path / "s" / str(i), lr=0.01 * (1 + i // 5), seed=i % 5, loss=0.1 + i / 1000)
        shutil.copy(file, folder)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "lrkit", "compare", "s"], cwd=tmp_path, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # of the CPU, so that other programs do not count
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10
    assert len(results(tmp_path / "s")) == 200


# --- the diagnoses of the runs --------------------------------------------------------------------


def test_a_symptom_of_most_runs_of_a_setting_is_a_note(tmp_path: Path) -> None:
    sweep(tmp_path, cosine=[0.1, 0.2, 0.3], step=[0.4, 0.5, 0.6])
    for run in ("cosine-1", "step-1", "step-3"):
        ails(tmp_path / run, "rate too high")
    ails(tmp_path / "cosine-2", "no symptom that is known")
    notes = [note for note in compare([tmp_path]).notes if "rate too" in note or "symptom" in note]
    assert notes == ["step: rate too high in 2 of 3 runs; try optimizer.lr=0.01 (a tenth), or lrkit find"]


def test_symptoms_are_told_of_a_few_settings_the_best_first(tmp_path: Path) -> None:
    sweep(tmp_path, **{name: [i / 10] for i, name in enumerate(("cosine", "step", "linear", "sqrt", "rex"), 1)})
    for folder in tmp_path.iterdir():
        ails(folder, "overfitting", "fewer")
    notes = [note for note in compare([tmp_path]).notes if "overfitting" in note or "symptoms" in note]
    assert [note.partition(":")[0] for note in notes[:-1]] == ["cosine", "step", "linear"]
    assert notes[-1] == "symptoms of 2 more settings: see their metrics.json"


@pytest.mark.parametrize("findings", [None, 3, "x", [3], [{}], [{"kind": ["overfitting"]}], {"kind": "overfitting"}])
def test_findings_that_are_none_are_left_out(tmp_path: Path, findings: Any) -> None:
    folder = write_run(tmp_path / "run")
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**metrics, "findings": findings}))
    assert load_run(folder, "run").findings == {}

"""Families at their own best rates: the choice of the rate, the ranking, and the notes."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_run

from lrkit.base.figure_style import OTHER
from lrkit.comparison import html_page, report, tables
from lrkit.comparison.best_lr import BestRate, RankedFamilies, choose_best_rates
from lrkit.comparison.line_styles import family_styles, setting_styles
from lrkit.comparison.plot_data import build_panels
from lrkit.comparison.ranking import Comparison, compare

#: The result of a run of one seed: its validation loss, and its test loss; None without a test loss.
Reached = tuple[float, float | None]


def sweep(folder: Path, **families: Mapping[float, Sequence[Reached]]) -> Path:
    """Write runs: schedule -> rate -> results of seeds 1, 2, ...

    What has diverged, and ends with a loss that is NaN, had been the best of all before.
    """
    for schedule, rates in families.items():
        for lr, seeds in rates.items():
            for seed, (loss, test) in enumerate(seeds, 1):
                tests = None if test is None else {"test/loss": test, "test/accuracy": 1 - test}
                status, best = ("done", loss) if math.isfinite(loss) else ("diverged", 0.01)
                write_run(folder / f"{schedule}-{lr}-{seed}", schedule=schedule, lr=lr, seed=seed, loss=loss,
                          best=best, test=tests, status=status)  # fmt: skip
    return folder


def same(loss: float, test: float | None = None) -> list[Reached]:
    """Three seeds with the same deviations from the mean."""
    return [(loss + d, None if test is None else test + d) for d in (-0.01, 0.0, 0.01)]


def tuned(comparison: Comparison) -> RankedFamilies:
    found = choose_best_rates(comparison)
    assert found is not None
    return found


def short(found: RankedFamilies) -> list[tuple[str, str, str]]:
    return [(choice.name, choice.marked_rate, choice.mark) for choice in found.choices]


def means(choices: Sequence[BestRate]) -> list[float]:
    return [round(choice.judged.mean, 6) for choice in choices if choice.judged is not None]


# --- the choice of the rate -----------------------------------------------------------------------

#: At the shared rate 0.1 step is the best; cosine is better at 0.4, where step is no good.
CROSSED = {
    "cosine": {0.1: same(0.50, 0.51), 0.4: same(0.20, 0.21), 1.6: same(0.60, 0.61)},
    "step": {0.025: same(0.45, 0.46), 0.1: same(0.30, 0.31), 0.4: same(0.90, 0.91)},
}


def test_a_shared_rate_crowns_another_family_than_the_own_best_rates_do(tmp_path: Path) -> None:
    shared = sweep(tmp_path / "shared", **{name: {0.1: rates[0.1]} for name, rates in CROSSED.items()})
    assert [setting.name for setting in compare([shared]).settings] == ["step", "cosine"]
    own = tuned(compare([sweep(tmp_path / "own", **CROSSED)]))
    assert short(own) == [("cosine", "0.4", "best"), ("step", "0.1", "")]
    assert (own.rate, own.chosen_by, own.judged_by, own.beside) == (
        "optimizer.lr", "best val/loss", "test/loss", "test/accuracy",
    )  # fmt: skip
    assert means(own.choices) == [0.21, 0.31]
    assert [choice.beside and round(choice.beside.mean, 6) for choice in own.choices] == [0.79, 0.69]
    assert [choice.chosen and round(choice.chosen.mean, 6) for choice in own.choices] == [0.20, 0.30]
    assert own.notes == []


def test_the_rate_is_chosen_by_validation_though_test_would_choose_another(tmp_path: Path) -> None:
    cosine = {0.1: same(0.30, 0.10), 0.4: same(0.20, 0.50), 1.6: same(0.40, 0.60)}
    step = {0.1: same(0.35, 0.45), 0.4: same(0.25, 0.30), 1.6: same(0.40, 0.20)}
    found = tuned(compare([sweep(tmp_path, cosine=cosine, step=step)]))
    assert short(found) == [("step", "0.4", "best"), ("cosine", "0.4", "")]  # and ranked by test
    assert means(found.choices) == [0.30, 0.50]


def test_judged_is_by_the_metric_of_the_same_name(tmp_path: Path) -> None:
    for schedule, accuracy in (("cosine", {0.1: 0.7, 0.4: 0.9}), ("step", {0.1: 0.8, 0.4: 0.6})):
        for lr, reached in accuracy.items():
            folder = tmp_path / f"{schedule}{lr}"
            write_run(folder, schedule=schedule, lr=lr, loss=0.5)
            metrics = json.loads((folder / "metrics.json").read_text())
            metrics["final"]["val/accuracy"] = reached
            metrics["test"] = {"test/loss": 0.5, "test/accuracy": reached - 0.1}
            (folder / "metrics.json").write_text(json.dumps(metrics))
    found = tuned(compare([tmp_path], metric="val/accuracy"))
    assert (found.judged_by, found.beside) == ("test/accuracy", None)
    assert [(choice.name, choice.rate) for choice in found.choices] == [("cosine", "0.4"), ("step", "0.1")]
    assert means(found.choices) == [0.8, 0.7]


def test_a_rate_of_which_a_run_diverged_is_chosen_only_where_there_is_no_other(tmp_path: Path) -> None:
    lost = (math.nan, 0.01)
    cosine = {0.1: same(0.30, 0.30), 0.4: [(0.1, 0.1), (0.1, 0.1), lost]}
    step = {0.1: [(0.2, 0.2), (0.2, 0.2), (math.nan, None)], 0.4: [lost, lost, lost]}
    linear = {0.1: [lost, lost, lost], 0.4: [lost, lost, lost]}
    comparison = compare([sweep(tmp_path, cosine=cosine, step=step, linear=linear)])
    found = tuned(comparison)
    assert short(found) == [
        ("cosine", "0.1 (edge)", "best"),
        ("step", "0.1 (edge)", ""),
        ("linear", "no run finished", ""),
    ]
    assert means(found.choices) == [0.3, 0.2]  # step ranks after: its mean covers the finished runs only
    rows = tables.families_sheet(found).rows
    assert [row[-1] for row in rows] == ["3", "2 of 3", "0 of 3"]
    assert rows[2][2:-1] == ["linear", "no run finished", "", "", ""]


def test_where_no_run_ended_nothing_is_best(tmp_path: Path) -> None:
    lost = [(math.nan, None)]
    comparison = compare([sweep(tmp_path, cosine={0.1: lost, 0.4: lost}, step={0.1: lost, 0.4: lost})])
    found = tuned(comparison)
    assert {choice.mark for choice in found.choices} == {""}
    assert found.notes == []
    assert tables.describe_answer(comparison) == "No run finished, so no setting is best."
    report.write_report(comparison, tmp_path)


# --- what is not separable ------------------------------------------------------------------------


def test_what_is_not_separable_is_marked_and_said_by_the_test_results(tmp_path: Path) -> None:
    """By the validation loss the two would be separable, and the third not."""
    cosine = {0.1: [(0.20, 0.20), (0.21, 0.24), (0.22, 0.25)], 0.4: same(0.9, 0.9)}
    step = {0.1: [(0.30, 0.21), (0.31, 0.23), (0.32, 0.26)], 0.4: same(0.9, 0.9)}
    linear = {0.1: [(0.20, 0.30), (0.22, 0.34), (0.23, 0.36)], 0.4: same(0.9, 0.9)}
    comparison = compare([sweep(tmp_path, cosine=cosine, step=step, linear=linear)])
    found = tuned(comparison)
    assert [(choice.name, choice.mark) for choice in found.choices] == [
        ("cosine", "best"),
        ("step", "="),
        ("linear", ""),
    ]
    assert found.notes == [
        "= not separable from the best at 95 % (paired by seed where the seeds are the same, else Welch)"
    ]
    assert tables.describe_answer(comparison) == (
        "Best: cosine at optimizer.lr=0.1 (test/loss 0.230 ± 0.066). Not separable from it: step."
    )
    by_validation = {setting.name: setting.mark for setting in comparison.settings}
    assert (by_validation["step lr=0.1"], by_validation["linear lr=0.1"]) == ("", "=")


def test_one_run_alone_says_nothing(tmp_path: Path) -> None:
    one = {0.1: [(0.2, 0.2)], 0.4: [(0.3, 0.3)]}
    found = tuned(compare([sweep(tmp_path, cosine=one, step={0.1: [(0.9, 0.9)], 0.4: [(0.8, 0.8)]})]))
    assert [choice.mark for choice in found.choices] == ["best", "?"]
    assert found.notes == ["? too few runs to test whether it differs from the best"]


# --- the edge -------------------------------------------------------------------------------------


def test_a_rate_at_the_edge_is_marked_in_its_row(tmp_path: Path) -> None:
    families = {
        "cosine": {0.1: same(0.3, 0.3), 0.4: same(0.2, 0.2), 1.6: same(0.3, 0.3)},
        "step": {0.1: same(0.4, 0.4), 0.4: same(0.5, 0.5), 1.6: same(0.6, 0.6)},
        "linear": {0.1: same(0.9, 0.9), 0.4: same(0.8, 0.8), 1.6: same(0.7, 0.7)},
        "rex": {0.4: same(0.95, 0.95)},
    }
    comparison = compare([sweep(tmp_path, **families)])
    found = tuned(comparison)
    assert [(choice.marked_rate, choice.edge) for choice in found.choices] == [
        ("0.4", ""), ("0.1 (edge)", "lowest"), ("1.6 (edge)", "highest"), ("0.4 (only one)", "only"),
    ]  # fmt: skip
    assert [note for note in tables.list_notes(comparison) if "tried" in note] == [
        "step: the best optimizer.lr, 0.1, is the lowest tried",
        "linear: the best optimizer.lr, 1.6, is the highest tried",
    ]


# --- without test results -------------------------------------------------------------------------

OPTIMISTIC = "the same data choose the rates and rank the families, so the ranking is slightly optimistic"


def test_without_test_results_it_is_by_validation_and_says_so(tmp_path: Path) -> None:
    families = {
        name: {rate: [(loss, None) for loss, _ in seeds] for rate, seeds in rates.items()}
        for name, rates in CROSSED.items()
    }
    comparison = compare([sweep(tmp_path, **families)])
    found = tuned(comparison)
    assert not found.tested and (found.judged_by, found.beside) == ("best val/loss", None)
    assert means(found.choices) == [0.2, 0.3]
    assert found.notes == [f"{OPTIMISTIC}: train with test=true"]
    assert tables.families_sheet(found).names == ["#", "", "schedule", "rate", "best val/loss", "runs"]
    assert tables.describe_answer(comparison).startswith("Best: cosine at optimizer.lr=0.4 (best val/loss 0.200 ±")


def test_a_test_result_that_is_missing_makes_none_count(tmp_path: Path) -> None:
    families = {**CROSSED, "step": {**CROSSED["step"], 0.1: [*same(0.30, 0.31)[:2], (0.31, None)]}}
    found = tuned(compare([sweep(tmp_path, **families)]))
    assert not found.tested
    assert found.notes == [f"{OPTIMISTIC}: 1 of the 6 chosen runs has no test/loss (step-0.1-3)"]
    elsewhere = {**CROSSED, "step": {**CROSSED["step"], 0.4: [(0.9, None)] * 3}}  # at a rate that is not chosen
    assert tuned(compare([sweep(tmp_path / "other", **elsewhere)])).tested


def test_what_was_chosen_by_training_is_not_judged_by_test(tmp_path: Path) -> None:
    found = tuned(compare([sweep(tmp_path, **CROSSED)], metric="train/loss"))
    assert found.judged_by == "best train/loss"
    assert found.notes == [f"{OPTIMISTIC}: rank by a validation metric, and train with test=true"]


def test_another_rate_at_the_end_is_said_for_it_is_what_was_tested(tmp_path: Path) -> None:
    for schedule, runs in (
        ("cosine", {0.1: (0.2, 0.9), 0.4: (0.3, 0.3)}),
        ("step", {0.1: (0.5, 0.5), 0.4: (0.6, 0.6)}),
    ):
        for lr, (best, final) in runs.items():
            write_run(tmp_path / f"{schedule}{lr}", schedule=schedule, lr=lr, loss=final, best=best,
                      test={"test/loss": final})  # fmt: skip
    found = tuned(compare([tmp_path]))
    assert [(choice.name, choice.rate) for choice in found.choices] == [("step", "0.1"), ("cosine", "0.1")]
    assert found.notes[-1] == (
        "the test used the final weights, and by the final val/loss another rate is best: cosine 0.4; "
        "to rank by it: by=final"
    )
    final = tuned(compare([tmp_path], by="final"))
    assert [(choice.name, choice.rate) for choice in final.choices] == [("cosine", "0.4"), ("step", "0.1")]
    assert not any("last weights" in note for note in final.notes)


def test_a_run_whose_test_is_not_finite_has_diverged(tmp_path: Path) -> None:
    families = {**CROSSED, "cosine": {**CROSSED["cosine"], 0.4: [*same(0.20, 0.21)[:2], (0.21, math.inf)]}}
    comparison = compare([sweep(tmp_path, **families)])
    assert short(tuned(comparison))[0] == ("step", "0.1", "best")
    assert "2 done, 1 diverged" in {setting.status for setting in comparison.settings}


# --- comparisons without this table ---------------------------------------------------------------


def test_one_family_or_no_swept_rate_makes_no_table(tmp_path: Path) -> None:
    alone = compare([sweep(tmp_path / "alone", cosine=CROSSED["cosine"])])
    assert choose_best_rates(alone) is None and alone.rates()
    shared = compare([sweep(tmp_path / "shared", cosine={0.1: same(0.2)}, step={0.1: same(0.3)})])
    assert choose_best_rates(shared) is None
    own = compare([sweep(tmp_path / "own", cosine={0.1: same(0.2)}, step={0.4: same(0.3)})])
    assert choose_best_rates(own) is None  # each has one rate, so none was swept
    for comparison in (alone, shared, own):
        assert "own best" not in tables.tables_as_text(comparison) + tables.tables_as_markdown(
            comparison
        ) + html_page.render_page(comparison, [])
    assert tables.describe_answer(alone).startswith("Best: lr=0.4 (best val/loss")
    files, _ = report.write_report(alone, tmp_path / "alone")
    assert "tuned.csv" not in {file.name for file in files}


def test_families_of_which_the_short_name_is_the_same_stay_apart(tmp_path: Path) -> None:
    for part, other in (("warmup", "cooldown"), ("cooldown", "warmup")):
        for lr in (0.1, 0.4):
            lengths: dict[str, Any] = {part: {"length": 5}, other: {"length": None}}
            write_run(tmp_path / f"{part}{lr}", lr=lr, config=lengths, choices=False)
    assert set(compare([tmp_path]).families()) == {"warmup.length=5", "cooldown.length=5"}


# --- where it is shown ----------------------------------------------------------------------------


def test_it_is_shown_on_the_terminal_in_the_files_and_on_the_page(tmp_path: Path) -> None:
    comparison = compare([sweep(tmp_path, **CROSSED)])
    heading = "Each at its own best optimizer.lr, chosen by the best val/loss, judged by test/loss (lower is better)"
    files, _ = report.write_report(comparison, tmp_path)
    assert {"tuned.csv", "sensitivity.png"} < {file.name for file in files}

    lines = tables.tables_as_text(comparison).splitlines()
    assert lines[0] == f"{heading}:"
    assert [re.split(r"\s{2,}", line) for line in lines[1:4]] == [
        ["#", "schedule", "rate", "test/loss", "test/accuracy", "best val/loss", "runs"],
        ["1", "best", "cosine", "0.4", "0.210 ± 0.025", "0.790 ± 0.025", "0.200 ± 0.025", "3"],
        ["2", "step", "0.1", "0.310 ± 0.025", "0.690 ± 0.025", "0.300 ± 0.025", "3"],
    ]
    assert lines[5] == "All settings, by the best val/loss:"

    markdown = (tmp_path / "results.md").read_text()
    row = "| 1 | best | cosine | 0.4 | 0.210 ± 0.025 | 0.790 ± 0.025 | 0.200 ± 0.025 | 3 |"
    assert markdown.index(heading) < markdown.index(row) < markdown.index("All settings:")

    (first, second) = csv.DictReader((tmp_path / "tuned.csv").read_text().splitlines())
    assert (first["rank"], first["mark"], first["schedule"], first["optimizer.lr"], first["edge"]) == (
        "1", "best", "cosine", "0.4", "",
    )  # fmt: skip
    assert (first["judged_by"], first["chosen_by"]) == ("test/loss", "best val/loss")
    assert [float(row["mean"]) for row in (first, second)] == [pytest.approx(0.21), pytest.approx(0.31)]
    each = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert {float(row["test/loss"]) for row in each if row["run"] == "cosine-0.4-3"} == {0.22}

    html = (tmp_path / "compare.html").read_text()
    assert html.index(heading) < html.index('<tr data-rank="0" data-family="cosine">') < html.index("All settings")
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    curves = {curve["name"]: curve for curve in data["panels"][-1]["curves"]}
    assert curves["cosine"]["chosen"] == [False, True, False] == curves["step"]["chosen"]


def test_what_came_from_a_folder_is_no_markup(tmp_path: Path) -> None:
    evil = '"><img src=x onerror=alert(1)>'
    for name in (evil, "plain"):
        for lr in (0.1, 0.4):
            write_run(tmp_path / f"{len(name)}-{lr}", lr=lr, config={"name": name})
    comparison = compare([tmp_path])
    html = html_page.render_page(comparison, build_panels(comparison))
    assert "<img" not in html and "data-family=" in html


def test_the_best_rates_are_computed_once_for_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Comparison] = []

    def counted(comparison: Comparison) -> RankedFamilies | None:
        asked.append(comparison)
        return choose_best_rates(comparison)

    monkeypatch.setattr("lrkit.comparison.ranking.choose_best_rates", counted)
    comparison = compare([sweep(tmp_path, **CROSSED)])
    tables.tables_as_text(comparison)
    report.write_report(comparison, tmp_path)
    assert asked == [comparison]


def test_a_line_style_means_a_family_and_what_was_not_chosen_is_grey(tmp_path: Path) -> None:
    few = compare([sweep(tmp_path / "few", **CROSSED)])
    assert OTHER not in setting_styles(few) and len(set(setting_styles(few))) == 6
    assert family_styles(few) == {"cosine": setting_styles(few)[0], "step": setting_styles(few)[1]}
    rates = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    cosine, step = ({lr: same(0.1 * i + more) for i, lr in enumerate(rates)} for more in (0.1, 5.0))
    many = compare([sweep(tmp_path / "many", cosine=cosine, step=step)])
    styled = {
        setting.name for setting, style in zip(many.settings, setting_styles(many), strict=True) if style != OTHER
    }
    assert styled == {
        "cosine lr=0.1",
        "step lr=0.1",
    }  # and not the first eight, seven of which are not the best of a family


@pytest.mark.parametrize(("settings", "shown"), [(15, 15), (16, 12)])
def test_a_terminal_shows_the_best_of_many_settings(settings: int, shown: int, tmp_path: Path) -> None:
    for i in range(settings):
        write_run(tmp_path / str(i), lr=0.01 * (i + 1), loss=0.1 + i / 100)
    comparison = compare([tmp_path])
    text = tables.tables_as_text(comparison)
    assert sum(line.endswith("done") for line in text.splitlines()) == shown
    assert ("4 more in results.md" in text) == (settings > shown)
    for width in (40, 80, 120):
        narrow = tables.tables_as_text(comparison, width)
        assert max(map(len, narrow.splitlines())) <= width and {*narrow.split()} == {*text.split()}
    assert tables.tables_as_markdown(comparison).count("| done |") == settings

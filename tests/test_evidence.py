"""The experiments of ``evidence``: what they read from runs, their texts, and that docs/evidence.md comes from them.

The slow tests repeat the claims, with margins so wide that random variation does not exceed them.
"""

from __future__ import annotations

import copy
import math
import re
import shlex
from pathlib import Path
from statistics import fmean

import pytest
import torch
from torch.nn.functional import cross_entropy

import lrkit
from evidence import page
from evidence.__main__ import CLAIMS, claim
from evidence.claim import Claim, Finding, markdown, verdict
from evidence.decay import at_best_rate, at_rates
from evidence.lab import Lab, accuracy, by, loss
from evidence.predict import FITTED, PUBLISHED, Cell, fit_spread, predict_held_out, read_published
from evidence.recorded_training import train_recorded
from evidence.translate import SCHEDULES, TASKS, cells_of, final_losses, fit_widths, plan_of
from lrkit.config import compose
from lrkit.config.sweep_values import expand_jobs
from lrkit.data.in_memory import Splits
from lrkit.models import Mlp
from lrkit.runs.run_reader import Run
from lrkit.sweep.sweep import apply_preset

DOCS = Path(__file__).parents[1] / "docs"


def run(seed: int, schedule: str = "cosine", lr: float = 0.1, status: str = "done", **values: float) -> Run:
    found = Run(f"{schedule}-{lr}-{seed}", Path(), "config", {"optimizer.lr": lr}, seed, {"schedule": schedule}, status)
    found.test = {f"test/{name}": value for name, value in values.items()}
    found.final = {f"val/{name}": value for name, value in values.items()}
    return found


def test_runs_are_told_apart_by_options_and_by_values() -> None:
    runs = [run(1), run(2), run(1, "linear"), run(1, lr=0.2)]
    found = by(runs, "schedule", "optimizer.lr")
    assert {key: [*some] for key, some in found.items()} == {
        ("cosine", 0.1): [1, 2], ("cosine", 0.2): [1], ("linear", 0.1): [1],
    }  # fmt: skip


def test_a_run_that_diverged_counts_as_such() -> None:
    assert (accuracy(run(1, accuracy=0.5)), loss(run(1, loss=0.5))) == (50.0, 0.5)
    lost = run(1, status="diverged", accuracy=0.5, loss=0.5)
    assert (accuracy(lost), loss(lost)) == (0.0, math.inf)
    assert (accuracy(run(1, accuracy=math.nan)), loss(run(1, loss=math.nan))) == (0.0, math.inf)


def test_a_schedule_is_taken_at_the_rate_that_validation_finds_best() -> None:
    runs = [run(seed, lr=lr, accuracy=value) for seed in (1, 2) for lr, value in ((0.1, 0.6), (0.2, 0.8), (0.4, 0.7))]
    for each in runs:
        each.test = {"test/accuracy": 1 - each.final["val/accuracy"]}  # which has no say
    assert at_best_rate(at_rates(runs)["cosine"]) == 0.2


def test_the_rates_of_a_task_are_judged_by_the_losses_of_lrkit_train(tmp_path: Path) -> None:
    words, rates = ["data=digits", "data.batch_size=32", "optimizer=adamw", "model=mlp"], (0.001, 0.03)
    found = final_losses(words, 2, [plan_of("cosine", 20, "adamw", lr) for lr in rates])
    for lr, its_loss in zip(rates, found, strict=True):
        own = [f"optimizer.lr={lr}", "schedule=cosine", "warmup=linear", "trainer.max_steps=20", "seed=2"]
        trained = lrkit.train(*words, *own, "trainer.accelerator=cpu", folder=tmp_path / str(lr), quiet=True)
        assert its_loss == pytest.approx(trained.final["val/loss"], rel=1e-5)


def test_widths_cover_nine_of_ten_cells_of_either_kind() -> None:
    task = next(iter(TASKS))
    best = {(schedule, length): 0.1 * 1.3**i for i, schedule in enumerate(SCHEDULES) for length in (100, 400)}
    losses = {run: {rate / 2: 1.0, rate: 0.0, rate * 2: 1.0} for run, rate in best.items()}
    cells = list(cells_of(task, losses))
    widths = fit_widths(cells)
    for kind in ("schedule", "length"):
        covered = [cell.is_covered(widths) for cell in cells if cell.kind == kind]
        assert sum(covered) >= 0.9 * len(covered)
    assert all(cell.untranslated == pytest.approx(1.0) for cell in cells if cell.kind == "length")
    assert cells[0].found.known == pytest.approx(0.1) and plan_of("wsd", 100, "adam").horizon.steps == 100


def test_a_recorded_training_is_torchs_own() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(40, 4, generator=generator), torch.randint(3, (40,), generator=generator)
    torch.manual_seed(7)
    network = Mlp(4, 3)
    twin = copy.deepcopy(network)
    splits, rates = Splits((x, y), (x, y), (x, y), 3), [0.1, 0.2, 0.05]
    steps, losses = train_recorded(network, splits, "momentum", rates, batch=16, seed=7, every=2)
    optimizer, order = torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9), torch.Generator().manual_seed(7)
    first = torch.randperm(40, generator=order)
    batches = [first[:16], first[16:32], torch.randperm(40, generator=order)[:16]]
    for rate, batch in zip(rates, batches, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        cross_entropy(twin(x[batch]), y[batch]).backward()
        optimizer.step()
    assert steps == [2, 3] and losses[-1] == pytest.approx(cross_entropy(twin(x), y).item(), rel=1e-6)


def test_the_published_runs_are_predicted_from_two_of_them() -> None:
    runs = read_published()
    assert len(runs) == 11 and runs["constant", 1.0, 1.0].final_loss == pytest.approx(math.log(23.3887), abs=1e-4)
    found = list(predict_held_out(PUBLISHED, runs, FITTED[0]))
    cells = [cell for some, _ in found for cell in some]
    assert len(cells) == 9 and all(cell.off < 0.02 and cell.misfit < 0.002 for cell in cells)
    spread = fit_spread(cells)
    for kind in ("schedule", "length"):
        own = [cell for cell in cells if cell.kind == kind]
        assert sum(cell.is_covered(spread) for cell in own) >= 0.8 * len(own) and isinstance(own[0], Cell)


@pytest.mark.parametrize(
    ("better", "worse", "said"),
    [
        ([3.0, 3.1, 3.2], [1.0, 1.2, 1.1], "reproduced"),
        ([1.0, 1.2, 1.1], [3.0, 3.1, 3.2], "not reproduced"),
        ([1.0, 3.0, 2.0], [1.1, 2.0, 2.9], "not separable"),
        ([1.0], [0.5], "not separable"),
    ],
)
def test_a_verdict_needs_a_difference_that_the_seeds_can_tell(
    better: list[float], worse: list[float], said: str
) -> None:
    assert verdict(dict(enumerate(better)), dict(enumerate(worse))) == said


def test_the_page_is_put_together_of_what_was_kept(tmp_path: Path) -> None:
    from evidence.pictures import frame

    figure, _ = frame(("a", "b"))
    claims = {name: Claim(f"Title, {name}", "says", "done", lambda lab: finding, ["lrkit train"]) for name in "ab"}
    finding = Finding("reproduced", "words", [["x", "y"], ["1", "2"]], figure)
    page.save_finding("a", finding, 60.0, tmp_path, tmp_path / "evidence")
    page.write(tmp_path / "evidence.md", claims, tmp_path, quick=False)
    text = (tmp_path / "evidence.md").read_text()
    assert "[Title, a](#title-a) | reproduced" in text and "Title, b" not in text
    assert markdown(finding.table) in text and "![Title, a](evidence/a.png)" in text and "**Reproduced.** words" in text
    assert (tmp_path / "evidence" / "a.png").stat().st_size > 0 and "took 1 minutes" in text


@pytest.mark.parametrize("name", CLAIMS)
def test_every_experiment_is_a_line_to_run(name: str) -> None:
    """Its lines name options that are there, and resolve into plans."""
    one = claim(name)
    assert one.commands
    for command in one.commands:
        program, verb, *words = shlex.split(command)
        assert program == "lrkit"
        if verb not in ("train", "find"):
            continue
        if any(word.startswith("resume.") for word in words):  # needs the run that it goes on from
            continue
        words = [word for word in words if word != "-m"]
        composed = compose.compose(expand_jobs(apply_preset(words, None), None)[0])
        if composed["optimizer"]["lr"] != "auto":
            compose.plan(composed)


def test_the_page_in_docs_is_of_these_claims() -> None:
    text = (DOCS / "evidence.md").read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [claim(name).title for name in CLAIMS]
    pictures = re.findall(r"\]\((evidence/.+?\.png)\)", text)
    assert {Path(picture).stem for picture in pictures} <= {*CLAIMS} and len(pictures) >= 9
    for picture in pictures:
        assert (DOCS / picture).stat().st_size < 200_000
    for name in CLAIMS:
        assert claim(name).says in text and claim(name).protocol in text, f"{name}: make evidence writes the page anew"


@pytest.mark.slow
def test_mnist1d_table(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    for model, low, high in (("linear", 28, 36), ("cnn1d", 89, 97)):
        [one] = lab.sweep(model, "+experiment=mnist1d_table", f"model={model}", "seed=1")
        assert low < accuracy(one) < high


@pytest.mark.slow
def test_decay_beats_a_fixed_rate(tmp_path: Path) -> None:
    words = ["schedule=constant,linear", "optimizer.lr=0.1,0.2", "seed=1,2"]
    families = at_rates(Lab(tmp_path).sweep("decay", "+experiment=decay", *words))
    best = {name: fmean(map(accuracy, at[at_best_rate(at)].values())) for name, at in families.items()}
    assert best["linear"] > best["constant"] + 0.5
    at_two = {name: fmean(map(accuracy, at[0.2].values())) for name, at in families.items()}
    assert at_two["linear"] > at_two["constant"] + 3


@pytest.mark.slow
def test_a_post_ln_transformer_needs_warmup(tmp_path: Path) -> None:
    runs = Lab(tmp_path).sweep("warmup", "+experiment=warmup", "model.norm=post,pre", "warmup.length=0,20%", "seed=1")
    ends = {
        (norm, bool(length)): loss(some[1]) for (norm, length), some in by(runs, "model.norm", "warmup.length").items()
    }
    assert ends["post", False] > ends["post", True] + 0.3
    assert abs(ends["pre", False] - ends["pre", True]) < 0.25


@pytest.mark.slow
def test_the_linear_scaling_rule(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    [base] = lab.sweep("base", "+experiment=batch_size", "seed=1")
    runs = lab.sweep("by_8", "+experiment=batch_size", "data.batch_size=200", "batch_scaling=linear,none", "seed=1")
    lost = {rule: accuracy(base) - accuracy(some[1]) for (rule,), some in by(runs, "batch_scaling").items()}
    assert lost["linear"] < 8 and lost["none"] > 20

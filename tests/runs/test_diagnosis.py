"""The diagnosis of curves: each symptom where it is present, none where it is absent, and curves of real runs."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lrkit
from lrkit.config.compose import compose
from lrkit.runs.diagnosis import DECAYED_EARLY, OVERFITTING, TOO_HIGH, TOO_LOW, Curves, Finding, diagnose
from lrkit.runs.event_reader import Series
from lrkit.schedules.shapes import Step

STEPS = 300
Shape = Callable[[float], float]


def curves(
    train: Shape, val: Shape | None = None, rate: Shape = lambda u: 0.1, noise: float = 0.02, seed: int = 0
) -> Curves:
    """Curves over the share ``u`` of the run that is done; the training loss with noise as of single batches."""
    chance = random.Random(seed)
    places = [(i + 1) / STEPS for i in range(STEPS)]
    losses = [train(u) * (1.0 + noise * chance.gauss(0, 1)) for u in places]
    checks = [i / 20 for i in range(1, 21)]
    validated = Series([round(u * STEPS) for u in checks], [(val or train)(u) for u in checks])
    return Curves(train(0.0), Series([*range(1, STEPS + 1)], losses), [rate(u) for u in places], validated)


def kinds(found: Sequence[Finding]) -> list[str]:
    return [finding.kind for finding in found]


def learned(u: float) -> float:
    return 0.2 + 2.1 * math.exp(-8 * u)


def cosine(u: float) -> float:
    return 0.05 * (1 + math.cos(math.pi * u))


CUT = 0.15
SICK = {
    "rises above its start and stays": (curves(lambda u: 2.3 if u == 0 else 2.4 + 20 * math.exp(-40 * u)), TOO_HIGH),
    "is lost again": (curves(lambda u: 2.3 - 1.5 * math.sin(math.pi * min(1.0, 1.1 * u))), TOO_HIGH),
    "bounces": (
        curves(lambda u: 1.6 if u else 2.3, lambda u: 1.7 + 0.3 * math.cos(20 * math.pi * u), noise=0.1), TOO_HIGH,
    ),
    "falls straight": (curves(lambda u: 2.3 - 0.5 * u, noise=0.01), TOO_LOW),
    "falls straight by a cosine": (
        curves(lambda u: 2.3 - 0.4 * (u + math.sin(math.pi * u) / math.pi), rate=cosine, noise=0.01), TOO_LOW,
    ),
    "was cut off": (
        curves(lambda u: 2.3 - 7.0 * min(u, CUT), rate=lambda u: 0.1 if u < CUT else 0.001, noise=0.01), DECAYED_EARLY,
    ),
    "overfits": (curves(lambda u: 2.3 * math.exp(-4 * u), lambda u: 0.8 + (u - 0.4) ** 2), OVERFITTING),
}  # fmt: skip
HEALTHY = {
    "learns": curves(learned),
    "learns, noisy": curves(learned, noise=0.3),
    "learns by a cosine": curves(learned, rate=cosine),
    "learns, and goes on learning": curves(lambda u: 2.3 / (1 + 9 * u)),
    "sits at a floor": curves(lambda u: 1.7 + 0.6 * math.exp(-30 * u), noise=0.05),
    "has nothing to learn": curves(lambda u: 2.3),
    "jumps at first, as RMSprop does": curves(lambda u: learned(u) + 30 * u * math.exp(-100 * u)),
    "falls where the rate does": curves(
        lambda u: (0.9 if u < 0.5 else 0.4 if u < 0.75 else 0.35) + 1.4 * math.exp(-20 * u), noise=0.1,
        rate=lambda u: 0.1 if u < 0.5 else 0.01 if u < 0.75 else 0.001,
    ),
    "rises and falls with a cyclic rate": curves(
        lambda u: learned(u) + 0.5 * (1 - abs(1 - 8 * u % 2)) * (1 - 0.9 * math.exp(-30 * u)),
        rate=lambda u: 0.01 + 0.09 * (1 - abs(1 - 8 * u % 2)),
    ),
    "decays when all is learned": curves(
        lambda u: 0.3 + 2.0 * math.exp(-60 * u), rate=lambda u: 0.1 if u < 0.3 else 0.001
    ),
    "validates a little worse at the end": curves(learned, lambda u: learned(u) + 0.1 + 0.03 * u),
}  # fmt: skip


@pytest.mark.parametrize("name", SICK)
def test_a_symptom_is_seen(name: str) -> None:
    shown, kind = SICK[name]
    assert kinds(diagnose(shown)) == [kind]


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_said_of_a_healthy_run(name: str) -> None:
    assert diagnose(HEALTHY[name]) == []


EVERY = {**HEALTHY, **{name: shown for name, (shown, _) in SICK.items()}}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("scale", [1e-3, 50.0])
def test_units_of_loss_and_rate_do_not_matter(name: str, scale: float) -> None:
    given = EVERY[name]
    other = replace(
        given, first=given.first * scale, rates=[rate / scale for rate in given.rates],
        train=Series(given.train.steps, [loss * scale for loss in given.train.values]),
        validated=Series(given.validated.steps, [loss * scale for loss in given.validated.values]),
    )  # fmt: skip
    assert kinds(diagnose(other)) == kinds(diagnose(given))


@given(st.integers(0, 10**6), st.sampled_from(["constant", "cosine", "cyclic", "step"]), st.floats(0.01, 0.5))
@settings(max_examples=60, deadline=None)
def test_noise_alone_says_nothing(seed: int, schedule: str, noise: float) -> None:
    rate = lrkit.curve(schedule, steps=STEPS)
    shown = curves(lambda u: 1.0, rate=lambda u: rate(round(u * STEPS) - 1), noise=noise, seed=seed)
    chance = random.Random(seed + 1)
    validated = [1.0 + 0.02 * chance.gauss(0, 1) for _ in shown.validated.steps]
    assert diagnose(replace(shown, validated=Series(shown.validated.steps, validated))) == []


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60),
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=12),
)
@settings(deadline=None)
def test_whatever_the_curves_are_there_is_an_answer(losses: list[float], validated: list[float]) -> None:
    train, checks = Series([*range(1, len(losses) + 1)], losses), Series([*range(1, len(validated) + 1)], validated)
    rates = [0.1] * len(losses)
    assert isinstance(diagnose(Curves(losses[0] if losses else math.nan, train, rates, checks)), list)


@pytest.mark.parametrize("part", [0.05, 0.07])
@pytest.mark.parametrize("name", SICK)
def test_a_few_steps_say_nothing(name: str, part: float) -> None:
    given = SICK[name][0]
    n = round(STEPS * part)
    few = Curves(given.first, Series(given.train.steps[:n], given.train.values[:n]), given.rates[:n], Series())
    assert diagnose(few) == []


# --- a loss that is not a number ------------------------------------------------------------------


def blown(losses: list[float]) -> list[Finding]:
    n = len(losses)
    return diagnose(Curves(losses[0], Series([*range(1, n + 1)], losses), [0.5] * n))


def test_a_loss_that_grows_until_it_is_lost() -> None:
    (found,) = blown([2.3, 2.0, 5.0, 90.0, math.inf, math.nan, math.nan])
    assert found.kind == TOO_HIGH
    assert found.evidence == "training loss rose from 2 to 90 and is not finite at step 5, at a rate of 0.5"


@pytest.mark.parametrize(
    "losses",
    [
        [math.nan] * 50,
        [2.3, 2.2, 2.1, math.nan],  # bad data: nothing had grown
        [2.3, 2.2, math.nan, *[2.0] * 30],  # a step that was skipped
    ],
)
def test_a_loss_that_is_lost_for_another_reason(losses: list[float]) -> None:
    assert blown(losses) == []


# --- the messages ---------------------------------------------------------------------------------


def plan(**parts: Any) -> lrkit.Plan:
    return lrkit.plan(**{"lr": 0.1, "steps": STEPS, "steps_per_epoch": 15, "optimizer": "torch.optim.SGD", **parts})


@pytest.mark.parametrize(
    ("name", "parts", "advice"),
    [
        ("rises above its start and stays", {}, "optimizer.lr=0.01 (a tenth), or lrkit find"),
        ("is lost again", {}, "optimizer.lr=0.033 (a third), or lrkit find"),
        ("falls straight", {}, "optimizer.lr=1 (ten times), or lrkit find"),
        ("was cut off", {"schedule": Step(every="15%", gamma=0.01)}, "schedule.every=40%, or schedule=cosine"),
        ("was cut off", {"schedule": "multistep"}, "schedule=cosine"),
        ("overfits", {}, "trainer.max_epochs=8, more optimizer.weight_decay, or use checkpoints/best.ckpt"),
    ],
)
def test_advice_is_a_flag_to_type(name: str, parts: dict[str, Any], advice: str) -> None:
    (found,) = diagnose(SICK[name][0], plan(**parts))
    assert found.advice == advice
    assert str(found) == f"{found.kind}: {found.evidence}; try {advice}"


def test_evidence_is_a_sentence_with_its_numbers() -> None:
    (found,) = diagnose(SICK["overfits"][0])
    assert found.evidence == (
        "validation loss was lowest, 0.802, at step 120 of 300 and is 1.1 at the end, while training loss fell"
        " from 0.469 to 0.0447"
    )


def test_of_an_optimizer_that_finds_its_rate_nothing_is_said_about_that() -> None:
    prodigy = plan(optimizer="pytorch_optimizer.Prodigy", lr=1.0)
    assert diagnose(SICK["falls straight"][0], prodigy) == []
    assert kinds(diagnose(SICK["overfits"][0], prodigy)) == [OVERFITTING]


# --- curves of real runs --------------------------------------------------------------------------

RECORDED = json.loads((Path(__file__).parent / "recorded_curves.json").read_text())


@pytest.mark.parametrize("run", RECORDED, ids=lambda run: run["name"])
def test_what_is_said_of_runs_that_were_recorded(run: dict[str, Any]) -> None:
    train = Series([run["window"] * (i + 1) for i in range(len(run["losses"]))], run["losses"])
    shown = Curves(run["first"], train, run["rates"], Series(*map(list, zip(*run["validated"], strict=True))))
    assert kinds(diagnose(shown)) == run["kinds"]


# --- where it is said -----------------------------------------------------------------------------

HOT = ["optimizer.lr=3", "schedule=constant", "trainer.max_epochs=3", "logger=none"]


def test_a_run_says_it_at_its_end(
    train: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lrkit.training.run import run_training

    run_training(compose(HOT), tmp_path)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("diagnosis: ")]
    (finding,) = json.loads((tmp_path / "metrics.json").read_text())["findings"]
    assert said == [f"diagnosis: {Finding(**finding)}"]
    assert (finding["kind"], finding["advice"]) == (TOO_HIGH, "optimizer.lr=0.3 (a tenth), or lrkit find")
    assert json.loads((train(*HOT[2:], short=False).folder / "metrics.json").read_text())["findings"] == []


def test_a_run_that_is_gone_on_with_remembers_its_curves(train: Callable[..., Any], tmp_path: Path) -> None:
    from lrkit.training.run import run_training

    first = train(*HOT[:2], "trainer.max_epochs=2", "logger=none", short=False)
    run_training(compose([*HOT, f"resume.path={first.folder}", "resume.policy=extend"]), tmp_path, quiet=True)
    (finding,) = json.loads((tmp_path / "metrics.json").read_text())["findings"]
    assert finding["kind"] == TOO_HIGH and "after 114 steps" in finding["evidence"]


@pytest.mark.slow
def test_training_anew_nothing_wrong_is_said() -> None:
    """One cell of the benchmark, with a seed and a task that neither it nor the choice of thresholds has seen."""
    sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
    import diagnosis as bench

    task = ["data=digits", "model=mlp", "model.hidden=[48,48]", "data.batch_size=24", "trainer.max_epochs=10"]
    seen: dict[str, list[bool]] = {}
    for optimizer in ("momentum", "adamw"):
        for truth, run in bench.cell(bench.Bench(None), "digits", task, optimizer, seed=7):
            assert all(bench.right(truth, run, found) for found in run["found"]), (run["overrides"], run["found"])
            seen.setdefault(truth, []).append(truth in kinds(run["found"]))
    assert len(seen["healthy"]) == 20
    assert all(sum(seen[kind]) >= len(seen[kind]) / 4 for kind in (TOO_HIGH, TOO_LOW)), seen

"""The translation of a base rate to another schedule and length: the bound, the factors, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lrkit
from lrkit.base.errors import ConfigError
from lrkit.cli.main import main
from lrkit.config.compose import compose
from lrkit.config.compose import plan as planned
from lrkit.planning.plan import Plan
from lrkit.planning.plan_schema import checked
from lrkit.planning.rate_translation import EXPONENT, bound_terms, shape_of, translate

SGD = {"lr": 0.1, "schedule": "constant", "steps": 400, "optimizer": "sgd", "batch_size": 32}


def plan_of(**parts: Any) -> Plan:
    return lrkit.plan(**{**SGD, **parts})


def bound(etas: list[float]) -> tuple[float, float]:
    """The two terms as they are written in the paper: theorem 1 of arXiv:2501.18965, with D = G = 1."""
    last = max(t for t, eta in enumerate(etas) if eta) + 1
    etas, steps = etas[:last], range(last)
    inner = sum(
        etas[k] / sum(etas[k + 1 :]) * sum(eta**2 for eta in etas[k:]) / sum(etas[k:]) for k in steps[:-1] if etas[k]
    )
    return 1 / (2 * sum(etas)), (sum(eta**2 for eta in etas) / sum(etas) + inner) / 2


@settings(deadline=None, max_examples=50)
@given(st.lists(st.just(0.0) | st.floats(1e-3, 2.0), min_size=1, max_size=30).filter(any))
def test_the_terms_are_those_of_the_theorem(etas: list[float]) -> None:
    assert bound_terms(etas) == pytest.approx(bound(etas), rel=1e-9)
    assert bound_terms([*etas, 0.0, 0.0]) == bound_terms(etas)  # steps at rate 0 move nothing
    doubled = [2 * eta for eta in etas]
    assert bound_terms(doubled) == pytest.approx((bound(etas)[0] / 2, bound(etas)[1] * 2), rel=1e-9)


def test_a_constant_rate_has_the_closed_form() -> None:
    harmonic = sum(1 / k for k in range(1, 400))
    assert bound_terms([1.0] * 400) == pytest.approx((1 / 800, (1 + harmonic) / 2), rel=1e-12)
    assert shape_of(plan_of()) == pytest.approx((1 + harmonic) ** -0.5, rel=1e-12)
    with pytest.raises(ConfigError, match=r"^schedule must have a step with a rate above 0"):
        bound_terms([0.0, 0.0])


def test_some_places_of_a_curve_stand_for_all() -> None:
    long = plan_of(schedule="cosine", steps=5000)
    assert shape_of(long, 1000) == pytest.approx(shape_of(long), rel=0.01)
    # The length has a factor of its own, measured: the logarithm in the bound of a fixed rate is not another one.
    assert translate(plan_of(), plan_of(steps=4000)).shape_factor == 1.0
    # A run that stops early takes the first part of the whole curve, at the same rates.
    assert translate(plan_of(), plan_of(schedule="linear", stop_after=9)) == translate(
        plan_of(), plan_of(schedule="linear")
    )


def test_the_factors_multiply_and_go_back() -> None:
    known, new = plan_of(), plan_of(schedule="linear", steps=1600)
    there, back = translate(known, new), translate(new, known)
    assert there.factor == pytest.approx(shape_of(new, 400) / shape_of(known) * 4**EXPONENT)
    assert there.factor * back.factor == pytest.approx(1.0)
    assert there.lr == float(f"{0.1 * there.factor:.3g}") and there.low < there.lr < there.high
    assert there.high / there.lr == pytest.approx(there.lr / there.low, rel=0.02)
    # With a length that changes too, the interval is wider; a rate for the same run is known best.
    spread = [translate(known, plan).high / translate(known, plan).lr for plan in (plan_of(), plan_of(steps=1600), new)]
    assert spread == sorted(spread) and translate(known, known).factor == 1.0
    assert str(there).splitlines()[0].startswith(f"lr {there.lr:g}, 90 % interval")


@pytest.mark.parametrize(
    ("known", "new", "factor"),
    [
        # A rule carries the rate to another batch; the length then counts in samples.
        ({"batch_scaling": "linear", "base_batch_size": 32}, {"batch_scaling": "linear", "base_batch_size": 32,
                                                              "batch_size": 64, "steps": 200}, 1.0),
        ({}, {"batch_scaling": "linear", "base_batch_size": 16, "batch_size": 64, "steps": 200}, 0.5),
        ({"batch_scaling": "linear", "base_batch_size": 16}, {}, 2.0),
        ({"batch_scaling": "sqrt", "base_batch_size": 8}, {"batch_scaling": "linear", "base_batch_size": 16}, 1.0),
        ({}, {"batch_size": None}, 1.0),
    ],
)  # fmt: skip
def test_the_batch(known: dict[str, Any], new: dict[str, Any], factor: float) -> None:
    if new.get("batch_size", 32) is None:
        with pytest.raises(ConfigError, match=r"^batch_scaling must be a rule"):
            translate(plan_of(**known), plan_of(**new))
        return
    old, plan = plan_of(**known), plan_of(**new)
    assert translate(old, plan).factor == pytest.approx(factor)
    # The rate of the optimizer is the known one, by the rule of the new plan.
    rate = old.base_lr * translate(old, plan).factor
    at_old_batch = plan_of(**{**new, "batch_size": 32}).scale.factor
    assert rate * at_old_batch == pytest.approx(old.base())


HEAD = {"name": "head", "pattern": "h"}
REFUSED = [
    # the known plan, the new plan
    #     the sentence
    ({}, {"optimizer": "adam"},
        "optimizer must be the optimizer of the known rate, torch.optim.SGD. Received: 'torch.optim.Adam'"),
    ({}, {"batch_size": 64}, "batch_scaling must be a rule, such as auto: the known rate is for a batch of 32, and"),
    ({}, {"plateau": "reduce"}, "plateau must be none: when it lowers the rate is not known before the"),
    ({"plateau": "reduce"}, {}, "from.plateau must be none: when it lowers the rate is not known before the"),
    ({}, {"schedule": "one_cycle", "optimizer": "momentum"},
        "schedule must not move momentum, which the bound takes as fixed: set momentum_start and momentum_peak to nu"),
    ({}, {"steps": None}, "horizon.steps needs the total number of optimizer steps, which is not known"),
    ({}, {"param_groups": [{**HEAD, "delay": 9}]}, "param_groups must have no schedule, warmup or delay of their own"),
    ({"optimizer": "schedule_free_sgd"}, {}, "from.optimizer must not be schedule-free: the bound is for the last"),
    ({"optimizer": "prodigy", "lr": 1.0}, {}, "from.optimizer must not find the rate itself: its base rate is 1"),
    ({}, {"optimizers": {"a": {}, "b": {}}}, "optimizers must not be set: with several optimizers no rate alone"),
]  # fmt: skip


@pytest.mark.parametrize(("known", "new", "sentence"), REFUSED)
def test_what_cannot_be_translated(known: dict[str, Any], new: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        translate(plan_of(**known), plan_of(**new))
    assert str(caught.value).startswith(sentence)


# --- optimizer.lr=from:RUN ------------------------------------------------------------------------

RUN = ["schedule=constant", "optimizer.lr=0.2"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a finished run."""
    (tmp_path / "plan.json").write_text(json.dumps(planned(compose(RUN)).to_json()))
    (tmp_path / "metrics.json").write_text('{"status": "done"}')
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    return tmp_path


def test_the_rate_of_a_run_is_a_number_in_the_plan(run: Path) -> None:
    config = compose([f"optimizer.lr=from:{run}", "schedule=linear"])
    plan, found = planned(config), translate(planned(compose(RUN)), planned(compose(["schedule=linear"])))
    assert config["optimizer"]["lr"] == plan.base_lr == found.lr and plan.found == (found.low, found.high)
    assert f"(from {run}: 0.2 x {found.factor:.3g}, 90 %: {found.low:.3g}-{found.high:.3g})" in plan.rate_line()
    plain = json.loads(json.dumps(plan.to_json()))
    assert checked(plain).rate_line() == plan.rate_line()
    del plain["origin"]  # of an earlier lrkit
    assert checked(plain).rate_line() == dataclasses.replace(plan, origin=None).rate_line()
    # A run that goes on has the number and its origin; another rate is the user's.
    (run / "plan.json").write_text(json.dumps(plan.to_json()))
    again = planned(compose([f"resume.path={run}"]))
    assert again == plan and again.rate_line() == plan.rate_line()
    other = planned(compose([f"resume.path={run}", "optimizer.lr=0.3"]))
    assert other.origin is None and other.found is None


def test_a_run_whose_rate_says_nothing_is_refused(run: Path, tmp_path: Path) -> None:
    def said(*words: str) -> str:
        with pytest.raises(ConfigError) as caught:
            compose([f"optimizer.lr=from:{run}", *words])
        return str(caught.value)

    assert said("model=linear").startswith(
        "optimizer.lr cannot be translated: model._target_ must be 'lrkit.models.Mlp', as at the known rate"
    )
    assert "model.hidden must be [64, 64]" in said("model.hidden=[9]")
    assert "optimizer.momentum must be 0.9" in said("optimizer.momentum=0.8")
    assert "data._target_ must be 'lrkit.data.Digits'" in said("data=mnist1d", "data.batch_size=32")
    assert "plateau must be none" in said("plateau=reduce")
    assert "batch_scaling must be a rule" in said("data.batch_size=64")
    assert "batch.schedule must be null" in said("batch.schedule=[[0,32],[50%,64]]", "batch_scaling=linear")
    assert planned(compose([f"optimizer.lr=from:{run}", "data.batch_size=64", "batch_scaling=linear",
                            "batch_scaling.base_batch_size=32", "schedule=constant"])).base_lr == 0.2  # fmt: skip
    (run / "metrics.json").write_text('{"status": "diverged"}')
    assert said().startswith("optimizer.lr must name a run that did not diverge: its rate is too large")
    (run / "plan.json").write_text("{}")
    assert said().startswith("optimizer.lr must name a run with a plan: plan.")
    (run / "plan.json").unlink()
    assert said().startswith("optimizer.lr must name the folder of one run, which has a plan.json")


# --- lrkit translate ------------------------------------------------------------------------------


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["translate", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_translates_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["0.1", "from.schedule=constant", "schedule=cosine", "schedule.end=0.1", "horizon.steps=2000",
             "from.horizon.steps=500"]  # fmt: skip
    code, out, _ = command(capsys, *words)
    plans = [
        lrkit.plan(lr=0.1, schedule=schedule, steps=steps)
        for schedule, steps in (("constant", 500), ({"name": "cosine", "end": 0.1}, 2000))
    ]
    found = translate(*plans)
    assert code == 0 and out.splitlines()[0] == str(found).splitlines()[0]
    assert out.splitlines()[-1] == f"optimizer.lr={found.lr:g}"
    code, out, _ = command(capsys, *words, "format=json")
    assert json.loads(out) == {**dataclasses.asdict(found), "factor": found.factor}


def test_the_command_translates_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = command(capsys, str(run), "schedule=linear", "trainer.max_epochs=60")
    found = translate(planned(compose(RUN)), planned(compose(["schedule=linear", "trainer.max_epochs=60"])))
    assert code == 0 and out.splitlines()[-1] == f"optimizer.lr={found.lr:g}"
    assert math.isclose(found.length_factor, 4**EXPONENT)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "lrkit translate must name the folder of one run, which has a plan.json"),
        (("0.1", "schedule=cosine"), "from must say what the known rate was found with, such as from.schedule=constan"),
        (("schedule=cosine",), "lrkit translate needs a rate or the folder of a run before the overrides"),
        (
            ("0.1", "from.schedule=linear", "optimizer.lr=1"),
            "optimizer.lr must not be set: the first word says the k",
        ),
        (("0.1", "from.schedule=linear", "format=xml"), "format is not a format. "),
        (("0.1", "from.schedul=linear"), "schedul is not a"),
        (("-m", "0.1"), "-m is not a flag of lrkit translate"),
        (("-1", "from.schedule=linear"), "-1 is not a flag of lrkit translate"),
        (("nan", "from.schedule=linear"), "optimizer.lr must be a finite number > 0"),
    ],
)
def test_what_the_command_refuses(words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, *words)
    assert code == 2 and not out and err.startswith(f"lrkit: {sentence}")

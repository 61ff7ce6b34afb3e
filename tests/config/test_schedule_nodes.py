"""Nodes of schedules: the short form of those inside another node, and tables that are read from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lrkit.base.errors import ConfigError
from lrkit.base.files import write_json
from lrkit.checkpoint.resume_differences import list_plan_differences
from lrkit.config.compose import compose, plan
from lrkit.config.plan_objects import build_schedule
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import (
    Cosine,
    Exponential,
    Linear,
    Piecewise,
    Polynomial,
    Product,
    Restarts,
    Schedule,
)

RUN = ["horizon.steps=100", "horizon.steps_per_epoch=10"]


def built(*overrides: str) -> Schedule:
    return plan(compose([*overrides, *RUN])).curve.phases[0].schedule


def test_a_schedule_in_a_list_is_a_name_or_a_name_with_keys() -> None:
    phases = "schedule.phases=[{name: linear, start: 0.1, end: 1, length: 10}, cosine]"
    assert built("schedule=piecewise", phases) == Piecewise(phases=[Linear(start=0.1, end=1, length=10), Cosine()])
    factors = "schedule.factors=[{name: piecewise, phases: [{name: restarts, length: 50, growth: 1}, linear]}, cosine]"
    inner = Piecewise(phases=[Restarts(cycles=3, length=50, growth=1), Linear()])
    assert built("schedule=product", factors) == Product(factors=[inner, Cosine()])


def test_the_shape_of_a_decay_is_an_option_of_cooldown_with_keys() -> None:
    shapes: dict[str, Schedule] = {
        "{name: polynomial, power: 1, k: 2}": Polynomial(power=1, k=2),
        "{name: exponential, ratio: 0.5}": Exponential(end=0.0, ratio=0.5),
    }
    for node, shape in shapes.items():
        for schedule in ("wsd", "restarts"):
            made: Any = built(f"schedule={schedule}", f"schedule.shape={node}")
            assert made.shape == shape.resolved(Horizon(100, 10))
    with pytest.raises(ConfigError, match=r"schedule.shape.name has no option 'polinomial'. Did you mean 'polynomial'"):
        built("schedule=wsd", "schedule.shape={name: polinomial}")


def test_the_node_of_a_rule_takes_the_short_form() -> None:
    for node in ("linear", {"name": "linear"}, {"_target_": "lrkit.schedules.Linear"}):
        assert build_schedule(node, "param_groups.rules[0].schedule", ()) == Linear()
    assert build_schedule("linear", "param_groups.rules[0].warmup", ()) == Linear(start=0.01, length="5%")
    assert build_schedule("none", "param_groups.rules[0].cooldown", ()) is None


@pytest.mark.parametrize(
    ("phases", "sentence"),
    [
        ("[cosin]", "schedule.phases[0].name has no option 'cosin'. Did you mean 'cosine'?"),
        ("[{name: linear, ennd: 1}]", "schedule.phases[0].ennd is not a key. Did you mean 'end'?"),
        ("[{name: linear, end: -1}]", "schedule.phases[0].end must be >= 0. Received: -1"),
        (
            "[{name: linear, _target_: lrkit.schedules.Linear}]",
            "schedule.phases[0].name and schedule.",
        ),
        ("[{name: [linear]}]", "schedule.phases[0].name has no option \"['linear']\""),
        ("[{start: 1}]", "schedule.phases[0] must be a schedule, such as {name: linear, end: 0.1}"),
        ("[3]", "schedule.phases[0] must be a schedule, such as {name: linear, end: 0.1}. Received: 3"),
        ("linear", "schedule.phases must be a list of schedules"),
    ],
)
def test_a_wrong_short_form(phases: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        built("schedule=piecewise", f"schedule.phases={phases}")
    assert str(caught.value).startswith(sentence)


def test_a_config_and_its_plan_hold_the_rows_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rates.csv").write_text("step,a,b\n0,1,1\n50%,0.5,0.2\n")
    words = ["schedule=table", "schedule.table=rates.csv", "schedule.column=b"]
    config = compose([*words, *RUN])
    nested = compose(["schedule=product", "schedule.factors=[{name: table, table: rates.csv, column: b}]", *RUN])
    Path("rates.csv").unlink()
    rows = [[0, 1.0], ["50%", 0.2]]
    assert (config["schedule"]["table"], config["schedule"]["column"]) == (rows, None)
    assert nested["schedule"]["factors"][0]["table"] == rows
    resolved = plan(config)
    assert resolved.config["schedule"]["table"] == rows
    assert [resolved.curve(t) for t in (0, 25, 50, 99)] == [1.0, 0.6, 0.2, 0.2]
    assert plan(nested).curve(25) == 0.6
    with pytest.raises(ConfigError, match=r"^schedule\.table must be a file that can be read \(No such file"):
        compose(words)


def test_a_resumed_run_has_the_rows_of_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rates.csv").write_text("0,1\n50%,0.2\n")
    resolved = plan(compose(["schedule=table", "schedule.table=rates.csv", *RUN]))
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").touch()
    write_json(tmp_path / "run" / "plan.json", resolved.to_json())
    Path("rates.csv").write_text("0,1\n50%,0.9\n")
    again = plan(compose([f"resume.path={tmp_path / 'run'}"]))
    assert again.curve == resolved.curve
    assert list_plan_differences(resolved.to_json(), again.to_json()) == []
    changed = plan(compose([f"resume.path={tmp_path / 'run'}", "schedule.table=rates.csv"]))
    ((name, before, after),) = list_plan_differences(resolved.to_json(), changed.to_json())
    assert (name, "[50, 0.2]" in before, "[50, 0.9]" in after) == ("phases", True, True)


def test_a_wrong_row_of_a_table_names_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rates.csv").write_text("0,1\n50%,x\n")
    wrong: list[Any] = [
        (["schedule=table", "schedule.table=rates.csv"], r"^schedule\.table \(rates\.csv, line 2\) must have 2 cells"),
        (
            ["schedule=product", "schedule.factors=[{name: table, table: rates.csv}]"],
            r"^schedule\.factors\[0\]\.table \(rates\.csv, line 2\)",
        ),
    ]
    for words, sentence in wrong:
        with pytest.raises(ConfigError, match=sentence):
            compose(words)

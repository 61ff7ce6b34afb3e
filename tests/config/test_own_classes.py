"""A schedule of the user's own class: the keys that it has, without `+` and `~`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose, plan
from lrkit.config.hydra_form import quote_formula, with_added_keys
from lrkit.config.overrides import parse_overrides
from lrkit.config.sweep_values import expand_jobs
from lrkit.schedules.shapes import Rex

RUN = ["horizon.steps=100", "horizon.steps_per_epoch=10"]
SOURCE = """
from dataclasses import dataclass

from lrkit.schedules import Schedule


@dataclass(frozen=True)
class Stairs(Schedule):
    steps: int = 4
    end: float = 0.5

    def value(self, s, n):
        return 1.0 - (1.0 - self.end) * (s * self.steps // n) / self.steps


@dataclass(frozen=True)
class Rises(Schedule):
    gentle: bool = False

    def value(self, s, n):
        return (s / n) ** (2 if self.gentle else 1)
"""


@pytest.fixture(autouse=True)
def _own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_shapes.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_shapes", raising=False)


def test_a_class_of_the_users_has_its_own_keys_and_those_of_every_schedule() -> None:
    words = ["schedule=custom", "schedule._target_=own_shapes.Stairs", "schedule.steps=2", "schedule.floor=0.6"]
    made = plan(compose([*words, *RUN]))
    assert [made.curve(t) for t in (0, 49, 50, 99)] == [1.0, 1.0, 0.75, 0.75]
    assert made.config["schedule"] == {
        "_target_": "own_shapes.Stairs", "steps": 2, "scale": 1.0, "floor": 0.6, "skip": 0, "update_every": None,
    }  # fmt: skip


def test_the_keys_of_the_option_that_the_class_does_not_have_are_left_out() -> None:
    config = compose(["schedule=step", "schedule._target_=own_shapes.Stairs", *RUN])
    assert not {"every", "gamma", "start"} & config["schedule"].keys()
    assert plan(config).curve(99) == 0.625
    kept = compose(["schedule=cosine", "schedule._target_=own_shapes.Stairs", "schedule.end=0", *RUN])
    assert (kept["schedule"]["end"], plan(kept).curve(99)) == (0, 0.25)
    assert (
        plan(compose(["schedule=step", "schedule._target_=lrkit.schedules.Rex", *RUN])).curve.phases[0].schedule
        == Rex()
    )


def test_the_warmup_may_be_of_the_users_class_too() -> None:
    words = ["warmup=linear", "warmup._target_=own_shapes.Rises", "warmup.gentle=true", "warmup.length=10", *RUN]
    assert plan(compose(words)).curve(5) == 0.25


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["schedule=custom"], "schedule._target_ must be set"),
        (["schedule=custom", "schedule._target_=own_shapes.Stair"], "schedule._target_ does not exist: own_shapes has"),
        (["schedule=step", "schedule._target_=own_shapes.Stairs", "schedule.every=5"], "schedule.every is not a key"),
        (["schedule=custom", "schedule._target_=own_shapes.Stairs", "schedule.step=5"],
         "schedule.step is not a key. Did you mean 'steps'?"),
        (["schedule=custom", "schedule._target_=pathlib.Path"], "schedule._target_"),
    ],
)  # fmt: skip
def test_what_the_class_does_not_have_is_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(compose([*words, *RUN]))
    assert str(caught.value).startswith(sentence)


def test_keys_are_added_only_to_a_schedule_whose_class_is_named() -> None:
    assert with_added_keys(["schedule.gamma=2", "model._target_=a.B"]) == ["schedule.gamma=2", "model._target_=a.B"]
    assert with_added_keys(["+schedule.a=2", "schedule._target_=a.B", "~schedule.start"]) == [
        "++schedule.a=2", "++schedule._target_=a.B", "~schedule.start",
    ]  # fmt: skip


FORMULAS = [
    # as the shell gives it                   what the key is
    ("schedule.formula=0.5*(1+cos(pi*u))",    "0.5*(1+cos(pi*u))"),
    ("schedule.formula=1 - u**2",             "1 - u**2"),
    ("schedule.formula='1-u'",                "1-u"),
    ('schedule.formula="max(u, 0.1)"',        "max(u, 0.1)"),
    ("schedule.formula=max(u, 0.1)",          "max(u, 0.1)"),
    ("schedule.formula=1 if u < 0.5 else 0.1", "1 if u < 0.5 else 0.1"),
    ("schedule.formula=0.5",                  "0.5"),
    ("+coschedule.momentum.formula=(1-u)",    "(1-u)"),
]  # fmt: skip


@pytest.mark.parametrize(("word", "formula"), FORMULAS)
def test_a_formula_needs_no_quotes_for_hydra(word: str, formula: str) -> None:
    (override,) = parse_overrides([word])
    assert override.value() == formula
    assert parse_overrides([quote_formula(word)])[0].value() == formula


def test_formulas_are_swept() -> None:
    jobs = [["schedule.formula='max(u, 0.1)'"], ["schedule.formula='1-u'"]]
    assert expand_jobs(["schedule.formula=max(u, 0.1),1-u"]) == jobs
    assert expand_jobs(["schedule.formula='max(u, 0.1)','1-u'"]) == jobs


def test_the_plan_of_a_formula() -> None:
    made = plan(compose(["schedule=formula", "schedule.formula=0.5*(1+cos(pi*u))", *RUN]))
    assert (made.curve(0), made.curve(50)) == (1.0, 0.5)
    for hostile in ("u.__class__", '__import__("os").system("id")', "[].append(u)", "`id`", "$(id)", "u;u"):
        with pytest.raises(ConfigError, match=r"^schedule\.formula (must|cannot|calls)"):
            plan(compose(["schedule=formula", f"schedule.formula={hostile}", *RUN]))

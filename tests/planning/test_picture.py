"""The picture of a plan: what it says, and which lines it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import lrkit
from lrkit.planning import picture
from lrkit.planning.picture import draw_picture, render_png
from lrkit.planning.plan import Plan


def words(path: Path) -> list[str]:
    """The texts in a picture; matplotlib writes each as a comment before its glyphs."""
    return [line.strip()[5:-4] for line in path.read_text().splitlines() if line.strip().startswith("<!-- ")]


def test_the_title_says_which_plan_it_is(tmp_path: Path) -> None:
    plan = lrkit.plan(lr=0.1, steps=90, steps_per_epoch=3, batch_size=32, warmup="linear", optimizer="adamw")
    said = words(draw_picture({"": plan}, tmp_path / "a.svg"))
    assert {"warmup linear, then schedule cosine", "AdamW, lr 0.1", "optimizer step", "learning rate"} <= {*said}
    assert "90 steps, 3 steps an epoch, 32 samples a step" in said


def test_the_title_of_several_plans_is_what_they_share(tmp_path: Path) -> None:
    one, other = (lrkit.plan(lr=0.1, steps=90, schedule=name) for name in ("cosine", "step"))
    said = words(draw_picture({"cosine": one, "_$x": other}, tmp_path / "a.svg"))
    assert {"2 plans", "90 steps", "AdamW, lr 0.1", "cosine", " _$x"} <= {*said}
    assert not [line for line in said if line.startswith("schedule")]


def test_groups_with_the_same_rates_share_a_line(tmp_path: Path) -> None:
    rules = [{"name": name, "pattern": f"^{name}", "lr_scale": scale} for name, scale in (("a", 2), ("b", 2), ("c", 3))]
    plan = lrkit.plan(lr=0.1, steps=9, param_groups=rules)
    assert {"a, b", "c", "default"} <= {*words(draw_picture({"": plan}, tmp_path / "a.svg"))}


def test_what_lies_in_many_frames_has_its_name_above(tmp_path: Path) -> None:
    plans = {
        f"power {p}": lrkit.plan(lr=0.1, steps=9, schedule={"name": "polynomial", "power": p}) for p in range(1, 8)
    }
    said = words(draw_picture(plans, tmp_path / "a.svg"))
    assert {"7 plans", *plans} <= {*said}


@pytest.mark.parametrize("plateau", [False, True])
def test_only_lines_to_tell_apart_have_a_legend(tmp_path: Path, plateau: bool) -> None:
    plan = lrkit.plan(lr=0.1, steps=90, steps_per_epoch=3, plateau="reduce" if plateau else None)
    said = words(draw_picture({"": plan}, tmp_path / "a.svg"))
    assert said.count("learning rate") == 1 + plateau  # the axis, and the legend
    assert ("learning rate if nothing ever improves" in said) is plateau


def test_a_plan_is_drawn_once_and_another_one_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs of a stack that differ in their seed alone have one picture."""
    drawn = []

    def draw(plans: Mapping[str, Plan], path: Path) -> Path:
        drawn.extend(plans.values())
        return draw_picture(plans, path)

    monkeypatch.setattr(picture, "draw_picture", draw)
    one, other = (lrkit.plan(lr=lr, steps=10) for lr in (0.1234, 0.1235))
    same = replace(one, config={"seed": 7})
    first = render_png(one)
    assert render_png(same) == first == draw_picture({"": same}, tmp_path / "a.png").read_bytes()
    assert render_png(other) != first and drawn == [one, other]

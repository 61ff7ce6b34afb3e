"""The page of a plan fits its terminal, marks an early stop, and says once what several optimizers share."""

from __future__ import annotations

import dataclasses

import pytest

import lrkit
from lrkit.base.terminal_width import measure_text
from lrkit.config import plan_of_config as config
from lrkit.config.compose import compose
from lrkit.planning.plan import Plan
from lrkit.planning.plan_page import plan_page
from lrkit.planning.plan_sketch import draw_sketch

CONFIGS = {
    "demo": ["+experiment=demo"],
    "groups": ["param_groups=layerwise", "schedule=step", "warmup=linear", "optimizer=adamw", "guard=reduce",
               "param_groups.rules=[{name: head, pattern: '^head', lr_scale: 10, schedule: {name: linear, end: 0.1}}]",
               "horizon.stop_after=40%", "trainer.max_epochs=20"],
    "formula": ["schedule=formula", "schedule.formula='sqrt(1 - u) * (1 + cos(pi * u)) / 2'", "cooldown=linear"],
    "tracks": ["optimizer=adam", "data.train_samples=640", "data.batch_size=64", "warmup=linear",
               "optimizers={generator: {every: 5}, discriminator: {optimizer: {lr: 1e-4}}}"],
}  # fmt: skip


@pytest.fixture(scope="module", params=CONFIGS)
def plan(request: pytest.FixtureRequest) -> Plan:
    return config.plan(compose(CONFIGS[request.param]))


@pytest.mark.parametrize("width", [30, 80, 120, 200])
def test_each_line_fits(plan: Plan, width: int) -> None:
    page = plan_page(plan, width)
    assert all(measure_text(line) <= width for line in page)
    words = " ".join(plan_page(plan, width, curve=False)).split()
    unlimited = " ".join(plan_page(plan, curve=False)).split()
    assert set(words) == set(unlimited)
    assert len(words) == len(unlimited) or width == 30  # a table in two parts repeats its first column


def test_a_stop_is_marked_where_it_is() -> None:
    horizon = lrkit.plan(lr=0.1, steps=1000, schedule="linear").horizon
    plan = lrkit.plan(lr=0.1, steps=1000, schedule="linear")
    assert not any("┊" in line for line in draw_sketch(plan))
    for after in (1, 300, 500, 960):
        *rows, axis = draw_sketch(dataclasses.replace(plan, horizon=horizon.stopping(after)), 110)
        (at,) = {row.index("┊") for row in rows}
        assert (at - 10 - 1) * 999 // 99 < after <= (at - 10) * 999 // 99
        if after in (300, 500):
            assert axis.index("┊") == at and f"┊ stops after {after} " in axis
        assert axis.endswith("step 999") and len(axis) == 110


def test_optimizers_share_what_is_the_same() -> None:
    words = ["optimizer=adam", "data.train_samples=640", "data.batch_size=64", "guard=stop", "schedule=cosine"]
    page = plan_page(config.plan(compose([*words, "optimizers={a: {}, b: {}}"])))
    assert len(page) == len(set(page))
    assert sum("samples a step" in line for line in page) == 1 and sum("step 149" in line for line in page) == 1
    assert "a: lr 0.001   Adam" in page and "b: lr 0.001   Adam" in page
    page = plan_page(config.plan(compose([*words, "optimizers={a: {every: 2}, b: {}}"])))
    assert [line[:3] for line in page if "samples a step" in line] == ["a: ", "b: "]
    assert [line for line in page if line in ("a:", "b:")] == ["a:", "b:"]

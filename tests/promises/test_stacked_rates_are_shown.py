"""The promise for the jobs of a stack: the rates that ``lrkit show`` lists are, bit for bit, those of the program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest import mock

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from interrupted_runs import ignored
from test_shown_rates_are_used import SMALL, runs, several

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose, plan
from lrkit.planning.render import render_csv
from lrkit.stacking.stackable_config import why_not_stackable
from lrkit.stacking.stacked_optimizer import StackedOptimizer, StepValues
from lrkit.training.stacked_runs import StackedRun, train_stacked_runs

Row = dict[str, float]
_SMALL = [word for word in SMALL if not word.startswith("model.dropout")]
#: The drawn options that a stack does not have -> the key that its refusal names.
REFUSED = {
    "optimizer=lion": "optimizer",
    "schedule=plateau": "plateau",
    "batch.schedule": "batch.schedule",
    "trainer.accumulate_grad_batches": "trainer.accumulate_grad_batches",
}


def used(members: list[dict[str, Any]]) -> list[list[Row]]:
    """Return the rates and weight decays that a stack used, for each member and step."""
    steps: list[list[StepValues]] = []
    trained: list[StackedRun] = []
    step = StackedOptimizer.step

    def look(self: StackedOptimizer, rows: Any, gradients: Any, values: list[StepValues]) -> None:
        steps.append(values)
        step(self, rows, gradients, values)

    with mock.patch.object(StackedOptimizer, "step", look):
        train_stacked_runs(members, lambda _, run: trained.append(run))
    assume(not any(run.recorded.record.against for run in trained))  # it left, and the rows of the others moved
    return [
        [
            {"step": float(t)}
            | {
                f"{name}/{group.name}": 0.0 if column is None else float(column[i])
                for group, own in zip(run.recorded.plan.groups, values, strict=True)
                for name, column in (("lr", own.lr), ("momentum", own.momentum), ("weight_decay", own.weight_decay))
                if column is not None or name == "weight_decay"  # None: no member has any
            }
            for t, values in enumerate(steps)
        ]
        for i, run in enumerate(trained)
    ]


def listed(config: Mapping[str, Any]) -> list[Row]:
    """Return the rows of ``lrkit show format=csv``."""
    header, *rows = render_csv(plan(config)).splitlines()
    return [dict(zip(header.split(","), map(float, row.split(",")), strict=True)) for row in rows]


def find_refused(overrides: list[str]) -> dict[str, str]:
    """Return the drawn words that a stack refuses, each with its key."""
    return {w: key for w in overrides for part, key in REFUSED.items() if w.startswith(part) and not w.endswith("=1")}


@ignored
@settings(max_examples=6, derandomize=True, **several)
@given(overrides=runs(), lr=st.floats(0.001, 0.02))
def test_the_shown_rates_are_those_of_each_member(overrides: list[str], lr: float) -> None:
    refused = find_refused(overrides)
    overrides = [word for word in overrides if word not in refused and not word.startswith("batch.by")]
    try:
        one = compose([*_SMALL, *overrides])
        members = [one, {**one, "optimizer": {**one["optimizer"], "lr": lr}}]  # composing takes the most time here
        shown = [listed(config) for config in members]
    except ConfigError:
        assume(False)
        raise
    assert why_not_stackable(members[1]) is None
    for rows, expected in zip(used(members), shown, strict=True):
        assert {"step", "lr/default"} <= rows[0].keys()
        common = rows[0].keys() & expected[0].keys()
        assert {key for key in expected[0] if key.startswith(("lr/", "weight_decay/", "momentum/"))} <= common
        assert [{key: row[key] for key in common} for row in rows] == [
            {key: row[key] for key in common} for row in expected
        ]


@ignored
@settings(max_examples=5, derandomize=True, **several)
@given(overrides=runs())
def test_a_refusal_names_the_drawn_option(overrides: list[str]) -> None:
    refused = find_refused(overrides)
    assume(refused)
    found = why_not_stackable(compose([*_SMALL, *overrides]))
    assert found is not None and found[0] in refused.values() and found[1]

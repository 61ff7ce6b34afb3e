"""The schedules of other libraries: the overrides of each give the same curve, or a difference that is written down."""

from __future__ import annotations

import json

import pytest
from parity.peers import PEERS, UNSAID
from parity.plans import composed, one_of_each_form, plan_of, quickly_composed, words_of
from parity.rows import CLOSE, Row

from lrkit.planning.plan import Plan

ROWS = {f"{peer.name}: {row.call}": row for peer in PEERS for row in peer.rows}
SAID = [name for name, row in ROWS.items() if row.lrkit]


def difference(row: Row) -> tuple[float, int]:
    """The largest difference, as a share of the base rate, and its step. A saved plan has the same rates."""
    plan = plan_of(row.lrkit, row.steps, row.epoch)
    saved = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    steps = range(row.steps + 1 if row.compared is None else row.compared)
    rates = [plan.lr(*plan.groups, t) for t in steps]
    assert rates == [saved.lr(*saved.groups, t) for t in steps]
    return max((abs(rate - row.theirs(t)), t) for rate, t in zip(rates, steps, strict=True))


@pytest.mark.parametrize("name", SAID)
def test_the_curve_is_the_same_or_differs_as_it_is_written(name: str) -> None:
    row = ROWS[name]
    found, step = difference(row)
    if row.difference:
        assert row.convention
        assert found == pytest.approx(row.difference, rel=0.05), f"at step {step}"
    else:
        assert found < CLOSE, f"at step {step}"


@pytest.mark.parametrize("name", [name for name in SAID if name.startswith(("torch:", "transformers:"))])
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning")
def test_the_formula_is_the_one_of_the_installed_library(name: str) -> None:
    import torch
    import transformers.optimization

    row = ROWS[name]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = eval(row.call, {**vars(torch.optim.lr_scheduler), **vars(transformers.optimization)}, locals())
    for t in range(row.steps):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(row.theirs(t), abs=CLOSE)
        if t < row.steps - 1:
            optimizer.step()
            scheduler.step()


def test_what_cannot_be_said_is_listed_with_its_reason() -> None:
    assert set(UNSAID) == {name for name, row in ROWS.items() if not row.lrkit}
    assert all(UNSAID.values())


def test_no_row_is_lost() -> None:
    """A call may not stand twice for a peer: the second would hide the first."""
    assert len(ROWS) == sum(len(peer.rows) for peer in PEERS) >= 114


@pytest.mark.slow
@pytest.mark.parametrize("name", one_of_each_form({name: ROWS[name].lrkit for name in SAID}))
def test_the_quick_composition_is_the_commands(name: str) -> None:
    row = ROWS[name]
    words = words_of(row.lrkit, row.steps, row.epoch)
    assert quickly_composed(words) == composed(words)

"""What other libraries' tests assert: the overrides of each row give the published values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import pytest
from parity import published_composer, published_functions, published_torch
from parity.plans import composed, one_of_each_form, plan_of, quickly_composed, words_of
from parity.published import Published

from lrkit.planning.plan import GroupRate, Plan
from lrkit.planning.plateau import PlateauState

SOURCES = [published_torch.SOURCE, published_composer.SOURCE, *published_functions.SOURCES]
ROWS = {f"{source.name}: {row.test}": (source, row) for source in SOURCES for row in source.rows}
SAID = [name for name, (_, row) in ROWS.items() if row.lrkit]

#: What lrkit cannot say, and why. A row without overrides must stand here, and no other.
UNSAID = {
    "optax: PiecewiseConstantTest.test_negative": "A learning rate is not negative",
    "optax: WarmupCosineDecayTest.test_with_exponent": "A learning rate is not negative",
}


def in_order(plan: Plan) -> list[GroupRate]:
    """The groups as the other library has them: what no rule takes is the first one."""
    return sorted(plan.groups, key=lambda group: group.name != "default")


def gains(plan: Plan, row: Published) -> list[float]:
    """The factor of reduce-on-plateau after each metric."""
    assert plan.plateau is not None
    state, values = PlateauState(), []
    for metric in row.metrics:
        state = plan.plateau.observe(state, metric)
        values.append(state.gain)
    return values


def differences(row: Published) -> Iterator[tuple[float, int]]:
    plan = plan_of(row.lrkit, row.steps or len(row.rates[0]), row.epoch)
    at = row.at or range(len(row.rates[0]))
    check_saved(plan, at)
    by_step = gains(plan, row) if row.metrics else None
    for group, rates in zip(in_order(plan), row.rates, strict=bool(row.rates[1:])):
        for t, rate in zip(at, rates, strict=True):
            yield abs(plan.lr(group, t, by_step[t] if by_step else 1.0) - rate), t
    for group, momenta in zip(in_order(plan), row.momentum, strict=bool(row.momentum)):
        for t, momentum in zip(at, momenta, strict=True):
            yield abs(plan.hyper(t)[f"momentum/{group.name}"] - momentum), t


def check_saved(plan: Plan, at: Iterable[int]) -> None:
    """A saved plan has the same rates and momenta, bit for bit."""
    saved = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    for t in at:
        assert saved.hyper(t) == plan.hyper(t)
        assert [saved.lr(group, t) for group in saved.groups] == [plan.lr(group, t) for group in plan.groups]


@pytest.mark.parametrize("name", SAID)
def test_the_values_are_the_published_ones(name: str) -> None:
    source, row = ROWS[name]
    worst, step = max(differences(row))
    if row.difference:
        assert row.convention
        assert worst == pytest.approx(row.difference, rel=0.05), f"at step {step}"
    else:
        assert worst <= (source.within if row.within is None else row.within), f"at step {step}"


def test_what_cannot_be_said_is_listed_with_its_reason() -> None:
    assert set(UNSAID) == {name for name, (_, row) in ROWS.items() if not row.lrkit}


def test_no_row_is_lost() -> None:
    assert len(ROWS) == sum(len(source.rows) for source in SOURCES)
    assert sum(row.sequences for _, row in ROWS.values()) >= 178


@pytest.mark.slow
@pytest.mark.parametrize("name", one_of_each_form({name: ROWS[name][1].lrkit for name in SAID}))
def test_the_quick_composition_is_the_commands(name: str) -> None:
    _, row = ROWS[name]
    words = words_of(row.lrkit, row.steps or len(row.rates[0]), row.epoch)
    assert quickly_composed(words) == composed(words)

"""The numbers of the divergence guard: spikes, high losses, and the recovery of the gain."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lrkit
from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose, plan
from lrkit.planning import render
from lrkit.planning.guard import POLICIES, Guard, Reduction
from lrkit.planning.guard_policies import Action, policy_named
from lrkit.planning.loss_statistics import LossStatistics


def levels(losses: list[float], window: int = 100) -> LossStatistics:
    made = LossStatistics(window)
    for loss in losses:
        made.add(loss)
    return made


def test_nothing_is_unusual_before_enough_was_seen() -> None:
    assert levels([1.0] * 19).limit(10.0) == math.inf
    assert levels([1.0] * 20).limit(10.0) == 1.5  # the spread is 0, and has a floor of 5 % of the beginning
    assert levels([1.0] * 4).far(20.0) == math.inf
    assert levels([1.0] * 5).far(20.0) == 20.0


def test_a_network_that_fits_its_data_is_not_disturbed_by_one_hard_sample() -> None:
    assert levels([2.0] * 5 + [0.001] * 200).limit(10.0) == pytest.approx(1.001)


def test_one_spike_does_not_hide_the_next() -> None:
    rng = random.Random(0)
    usual = [2.0 + rng.gauss(0, 0.1) for _ in range(100)]
    before, after = levels(usual), levels([*usual[:-1], 1000.0, *usual[:9]])
    assert after.limit(10.0) < before.limit(10.0) + 0.2


@pytest.mark.parametrize("seed", range(5))
def test_ordinary_noise_is_no_spike(seed: int) -> None:
    rng = random.Random(seed)
    made = LossStatistics()
    for step in range(5000):  # a falling loss, with noise of a fifth of it, which is a lot
        loss = (2.3 * math.exp(-step / 1000) + 0.1) * (1 + 0.2 * rng.gauss(0, 1))
        assert loss <= made.limit(10.0)
        made.add(loss)


def test_negative_losses_and_a_beginning_at_zero() -> None:
    assert levels([-10.0] * 20).limit(10.0) == -5.0
    assert levels([-10.0] * 20).far(20.0) == 180.0
    assert levels([0.0] * 20).far(20.0) == math.inf


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=150))
def test_levels_go_on_as_if_never_interrupted(losses: list[float]) -> None:
    first, second = levels(losses[: len(losses) // 2], 30), LossStatistics(30)
    second.load_state_dict(first.state_dict())
    for loss in losses[len(losses) // 2 :]:
        first.add(loss)
        second.add(loss)
    assert first.state_dict() == second.state_dict()


@given(st.floats(0.01, 0.99), st.integers(0, 10**6), st.integers(1, 1000), st.integers(0, 2000))
def test_the_gain_rises_to_its_new_value_and_never_above(factor: float, since: int, over: int, later: int) -> None:
    reduced = Reduction().once_more(factor, since, over)
    gains = [reduced.at(since + i) for i in range(min(later, over + 2))]
    assert gains == sorted(gains) and all(0 < gain <= factor for gain in gains)
    assert reduced.at(since + over - 1) == reduced.at(since + over + later) == factor


def test_reductions_multiply() -> None:
    twice = Reduction().once_more(0.5, 10, 5).once_more(0.5, 20, 5)
    assert (twice.gain, twice.times, twice.at(100)) == (0.25, 2, 0.25)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("guard=reduce guard.gain=1.0", "guard.gain must be in (0, 1). Received: 1.0"),
        ("guard=skip guard.spike=0.5", "guard.spike must be"),
        ("guard=skip guard.window=3", "guard.window must be a whole number >= 20. Received: 3"),
        ("guard=skip guard.patience=0", "guard.patience must be a whole number >= 1. Received: 0"),
        ("guard=reduce guard.warmup=1.0", "guard.warmup"),
        ("guard=reduce guard.every=2x", "guard.every must be"),
        ("guard=stop guard.gain=0.5", "guard.gain is not a key"),
        ("guard=stop guard.policy=halt", "guard.policy must be"),
    ],
)
def test_what_is_refused(overrides: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        plan(compose(overrides.split()))
    assert str(refused.value).startswith(said)


def test_durations_become_steps_and_the_plan_says_so() -> None:
    planned = plan(compose(["guard=reduce", "guard.warmup=1ep", "guard.every=10%", "trainer.max_epochs=10"]))
    assert planned.guard == Guard(policy="reduce", patience=3, warmup=38, every=38)
    assert type(planned).from_json(planned.to_json()) == planned
    assert plan(compose(["guard=off"])).guard is None
    assert plan(compose([])).guard == Guard()


#: The actions of each policy: at the first bad step, and after 51 of them in a row and 3 reductions of the rate.
DECISIONS = {
    "stop": (Action("nan", stop=True), Action("nan", stop=True)),
    "skip": (Action("nan"), Action("51 steps in a row would have been skipped; nan", stop=True)),
    "reduce": (
        Action("nan", roll_back=True, lower_rate=True),
        Action("nan, and the rate was reduced 3 times", stop=True),
    ),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_what_a_policy_decides(policy: str) -> None:
    guard = plan(compose([f"guard={policy}", "horizon.steps=1000"])).guard
    assert guard is not None and guard.policy == policy
    decisions = (guard.rules.decide(guard, "nan", 1, 0), guard.rules.decide(guard, "nan", 51, 3))
    assert decisions == DECISIONS[policy]


def test_the_plan_shows_the_guard_where_it_lowers_the_rate() -> None:
    for policy in POLICIES:
        page = render.render_text(plan(compose([f"guard={policy}", "horizon.steps=1000"])))
        assert ("gain(t) (guard)" in page) == policy_named(policy).lowers_rate
        assert ("gain x 0.5 from the last good weights when the run diverges, at most 3 times" in page) == (
            policy == "reduce"
        )


@pytest.mark.parametrize("policy", POLICIES)
def test_the_name_of_a_policy_means_in_a_script_what_it_means_on_the_command_line(policy: str) -> None:
    by_name = lrkit.plan(lr=0.1, steps=1000, guard=policy).guard
    assert by_name == plan(compose([f"guard={policy}", "horizon.steps=1000"])).guard

"""The recorded signatures of optimizers equal those of the classes; plans and runs share one check of the options."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import yaml

import lrkit
from lrkit.base.errors import ConfigError
from lrkit.config.compose import CONF_DIR, check, compose
from lrkit.config.optimizer_options import SIGNATURES, check_options
from lrkit.config.optimizer_options import check as check_node
from lrkit.optim import factory

SHIPPED: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONF_DIR / "optimizer").glob("*.yaml"))
}
#: Values that a user may write for a number, a pair or a switch.
VALUES: list[Any] = [
    float("nan"), float("inf"), -float("inf"), -1, 0, 1, 2, 0.5, 10**400, True, False, None, "0.9", "", "x", [],
    [0.9], [0.9, 0.99], [0.9, 0.99, 0.999], [0, 0.5], [1.0, 0.5], [0.5, None], ["0.9", 0.5], {"a": 1},
]  # fmt: skip


def test_every_shipped_optimizer_is_recorded_and_no_other() -> None:
    assert {node["_target_"] for node in SHIPPED.values()} == set(SIGNATURES)


@pytest.mark.parametrize("target", SIGNATURES)
def test_what_is_recorded_is_what_the_class_has(target: str) -> None:
    assert SIGNATURES[target] == factory._read_defaults(factory.resolve_optimizer(target))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_values_are_allowed(name: str) -> None:
    check_node(SHIPPED[name])


def _makes(target: str, options: Mapping[str, Any]) -> bool:
    """Whether the class takes the options, and a step with them."""
    weight = torch.nn.Parameter(torch.ones(2, 2))
    given = check_options(target, options, SIGNATURES[target])
    try:
        optimizer = factory.resolve_optimizer(target)([{"params": [weight], "name": "default"}], lr=0.1, **given)
        if factory.has_modes(optimizer):
            optimizer.train()  # type: ignore[attr-defined]
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        if factory.has_modes(optimizer):
            optimizer.eval()  # type: ignore[attr-defined]
    except Exception:
        return False
    return bool(weight.isfinite().all())


#: Options that need a GPU.
ELSEWHERE = ("capturable",)


@pytest.mark.parametrize("target", SIGNATURES)
def test_what_the_class_refuses_is_refused(target: str) -> None:
    """The class accepts each allowed value, and a step with it leaves finite weights."""
    allowed = 0
    for name, value in itertools.product(SIGNATURES[target], VALUES):
        try:
            check_node({"_target_": target, name: value})
        except ConfigError as error:
            assert error.key == f"optimizer.{name}"
            with pytest.raises(ConfigError) as trained:
                factory.check_optimizer(target, {name: value})
            assert str(trained.value) == str(error)
            continue
        allowed += 1
        assert name in ELSEWHERE or _makes(target, {name: value}), (target, name, value)
    assert allowed > len(SIGNATURES[target]) / 2


def test_a_class_of_the_users_own_is_left_to_itself() -> None:
    check_node({"_target_": "mycode.Own", "momentum": "much"})
    with pytest.raises(ConfigError, match=r"optimizer.momentum must be a number in \[0, 1\). Received: 'much'"):
        check_options("mycode.Own", {"momentum": "much"}, {"momentum": 0.9})


def test_python_is_told_the_same() -> None:
    with pytest.raises(ConfigError, match=r"^optimizer.betas must be two numbers in \[0, 1\). Received: \[0.9\]$"):
        lrkit.plan(lr=0.1, steps=10, options={"betas": [0.9]})
    with pytest.raises(ConfigError, match=r"^optimizers.critic.optimizer.eps must be a number > 0. Received: 0$"):
        lrkit.plan(lr=0.1, steps=10, optimizers={"critic": {"options": {"eps": 0}}})
    with pytest.raises(ConfigError, match=r"^param_groups must give every group the same lr_scale: Prodigy has one"):
        rules = [{"name": "head", "pattern": "head", "lr_scale": 10}]
        lrkit.plan(lr=1.0, steps=10, optimizer="pytorch_optimizer.Prodigy", param_groups=rules)


def test_the_search_for_a_rate_is_told_the_same() -> None:
    with pytest.raises(ConfigError, match=r"optimizer.momentum must be a number in \[0, 1\). Received: 1"):
        check(compose(["optimizer.lr=auto", "optimizer.momentum=1"]))


@pytest.mark.parametrize("words", [["schedule=one_cycle"], ["schedule@coschedule.momentum=linear"]])
def test_momentum_that_is_driven_must_be_one_to_begin_with(words: list[str]) -> None:
    for value in ("nan", "1", "[0.9]"):
        with pytest.raises(ConfigError, match=r"optimizer.momentum must be a number in \[0, 1\)"):
            check(compose([*words, f"optimizer.momentum={value}"]))
    with pytest.raises(ConfigError, match=r"coschedule.momentum must keep momentum below 1; it would reach 1.8"):
        check(compose(["schedule@coschedule.momentum=linear", "coschedule.momentum.start=2"]))
    for key, value in itertools.product(("momentum_start", "momentum_peak"), ("1", "nan", "-1", "x")):
        with pytest.raises(ConfigError, match=f"schedule.{key} must be"):
            check(compose(["schedule=one_cycle", f"schedule.{key}={value}"]))

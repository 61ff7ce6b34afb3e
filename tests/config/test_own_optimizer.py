"""An optimizer class of the user's own: keys of the chosen option that it does not have are left out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from lrkit.base.errors import ConfigError
from lrkit.config.compose import check, compose
from lrkit.optim import factory

OWN = """
from torch.optim import SGD


class MyOpt(SGD):
    def __init__(self, params, lr, beta=0.5, weight_decay=0.0, **ignored):
        super().__init__(params, lr=lr, weight_decay=weight_decay)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_optimizer_module.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_optimizer_module", raising=False)


def options(*overrides: str) -> dict[str, Any]:
    config = compose(["data.train_samples=1347", *overrides])
    check(config)
    node = dict(config["optimizer"])
    factory.check_optimizer(node.pop("_target_"), {name: value for name, value in node.items() if name != "lr"})
    return node


MINE = "optimizer._target_=own_optimizer_module.MyOpt"


@pytest.mark.parametrize(
    ("overrides", "left"),
    [
        ([MINE], {"lr": 0.1, "weight_decay": 0.0}),
        ([MINE, "optimizer=adam", "optimizer.lr=0.2"], {"lr": 0.2, "weight_decay": 0.0}),
        ([MINE, "+optimizer.beta=0.9", "optimizer.weight_decay=0.1"], {"lr": 0.1, "weight_decay": 0.1, "beta": 0.9}),
        ([MINE, "optimizer=custom", "+optimizer.beta=0.9"], {"lr": 0.001, "beta": 0.9}),
        (["optimizer._target_=torch.optim.Adam"], {"lr": 0.1, "weight_decay": 0.0}),
        (["optimizer._target_=torch.optim.RMSprop"], {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}),
        (["optimizer._target_=torch.optim.Adamax"], {"lr": 0.1, "weight_decay": 0.0}),
    ],
)
def test_a_class_takes_the_keys_that_it_has(mine: None, overrides: list[str], left: dict[str, Any]) -> None:
    assert options(*overrides) == left


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([MINE, "optimizer.momentum=0.9"], r"^optimizer\.momentum is unknown to MyOpt\."),
        (["optimizer._target_=torch.optim.Adam", "optimizer.momentum=0.9"], r"^optimizer\.momentum is unknown to Adam"),
        ([MINE, "+optimizer.betta=1"], r"^optimizer\.betta is unknown to MyOpt\. Did you mean 'beta'\?"),
        (["optimizer=custom"], r"^optimizer\._target_ must be set"),
    ],
)
def test_keys_that_are_typed_are_not_left_out(mine: None, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        options(*overrides)


def test_a_plan_with_a_recorded_class_needs_no_import() -> None:
    assert "momentum" not in compose(["optimizer._target_=torch.optim.Adam"])["optimizer"]
    assert compose(["optimizer=momentum"])["optimizer"]["momentum"] == 0.9

"""A parameter that joins during the run has the state that its optimizer's constructor gives to the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Adagrad

from lrkit.optim.factory import build_optimizer


class FilledInTheConstructor(Adagrad):
    """torch's Adagrad in torch 2.11 and older: a group that joins has no state, and the step needs it."""

    def __init__(self, params: Any, lr: float = 0.1, initial_accumulator_value: float = 0.0) -> None:
        super().__init__(params, lr, initial_accumulator_value=initial_accumulator_value, foreach=False)

    def _init_group(self, group: dict[str, Any], *lists: Any) -> Any:
        if any("sum" not in self.state[p] for p in group["params"]):
            raise KeyError("sum")
        return super()._init_group(group, *lists)


def parameters(value: float) -> list[nn.Parameter]:
    return [nn.Parameter(torch.full((2, 3), value)), nn.Parameter(torch.full((2,), value))]


def step(optimizer: torch.optim.Optimizer, closure: bool) -> None:
    def loss() -> float:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = parameter.detach().clone()
        return 0.0

    if closure:
        optimizer.step(loss)
    else:
        loss()
        optimizer.step()


@pytest.mark.parametrize("closure", [False, True])
def test_late_parameters_are_trained_as_those_from_the_start(closure: bool) -> None:
    first, late, alone = parameters(1.0), parameters(2.0), parameters(2.0)
    target, options = f"{__name__}.FilledInTheConstructor", {"initial_accumulator_value": 0.25}
    optimizer = build_optimizer(target, options, [{"params": first, "name": "first", "lr": 0.1}])
    expected = build_optimizer(target, options, [{"params": alone, "name": "late", "lr": 0.3}])
    step(optimizer, closure)
    optimizer.add_param_group({"params": late, "name": "late", "lr": 0.3})
    for _ in range(3):
        step(optimizer, closure)
        step(expected, closure)
    assert all(torch.equal(a, b) for a, b in zip(late, alone, strict=True))
    assert [float(optimizer.state[p]["step"]) for p in (first[0], late[0])] == [4.0, 3.0]
    assert optimizer.param_groups[1]["params"] == late and optimizer.param_groups[1]["name"] == "late"


def test_an_optimizer_that_creates_its_state_in_the_step_gets_no_hook() -> None:
    def hooks(name: str) -> int:
        groups = [{"params": parameters(1.0), "name": "default", "lr": 0.1}]
        return len(build_optimizer(f"torch.optim.{name}", {"foreach": False}, groups)._optimizer_step_pre_hooks)

    assert hooks("Adagrad") == hooks("RMSprop") + 1

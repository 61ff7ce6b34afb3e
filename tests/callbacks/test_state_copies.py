"""Copies of a training's state: the same to the bit on the device and on the host; on the host if they are large."""

from __future__ import annotations

import pytest
import torch
from equality import same
from torch import nn

from lrkit.callbacks.state_copies import State, copy_state, is_kept_on_host


def state_of() -> State:
    module = nn.BatchNorm1d(4)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
    return module.state_dict(), optimizer.state_dict()  # type: ignore[return-value]


@pytest.mark.parametrize("on_host", [False, True])
def test_a_copy_is_equal_and_independent(on_host: bool) -> None:
    state = state_of()
    made = copy_state(state, on_host)
    assert same(made, state) and made[0]._metadata == state[0]._metadata  # type: ignore[attr-defined]
    before = made[0]["weight"].clone()
    state[0]["weight"].add_(1)
    state[1]["state"][0]["exp_avg"].add_(1)
    assert torch.equal(made[0]["weight"], before)
    assert not torch.equal(made[1]["state"][0]["exp_avg"], state[1]["state"][0]["exp_avg"])


def test_large_copies_are_kept_on_the_host() -> None:
    state = state_of()
    size = sum(t.numel() * t.element_size() for part in (state[0], *state[1]["state"].values()) for t in part.values())
    assert not is_kept_on_host(state, 2, 20 * size) and is_kept_on_host(state, 2, 20 * size - 1)
    assert not is_kept_on_host(state, 2, None)

"""The state of parameters that join an optimizer during the run, for a class that creates it in its constructor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer

__all__ = ["create_late_state"]


def create_late_state(optimizer: Optimizer, arguments: Mapping[str, Any]) -> None:
    """Before each step, give parameters of groups that joined the state that the constructor gives to the others.

    torch's Adagrad creates its sums in the constructor. torch 2.11 and older create none for a group that
    ``add_param_group`` adds, and the next step fails with ``KeyError: 'sum'``. A new optimizer of the same class and
    arguments, over the late parameters alone, creates them. Other optimizers create their state in the first step, and
    are left as they are.

    Args:
        optimizer: the optimizer, just built.
        arguments: its arguments.
    """
    if not all(optimizer.state.get(p) for group in optimizer.param_groups for p in group["params"]):
        return

    def before_step(optimizer: Optimizer, *_: Any) -> None:
        parameters = sum(len(group["params"]) for group in optimizer.param_groups)
        if torch.compiler.is_compiling() or len(optimizer.state) == parameters:
            return
        for group in optimizer.param_groups:
            late = [p for p in group["params"] if not optimizer.state.get(p)]
            if late:
                optimizer.state.update(type(optimizer)([{**group, "params": late}], **arguments).state)

    optimizer.register_step_pre_hook(before_step)

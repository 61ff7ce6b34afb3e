"""The base class of lrkit's own optimizers, which update one tensor after the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor

__all__ = ["TensorwiseOptimizer", "update_averages"]


class TensorwiseOptimizer(torch.optim.Optimizer):
    """An optimizer whose subclass defines the update of one tensor. Tensors without a gradient are not changed."""

    @abstractmethod
    def update(
        self, parameter: Tensor, x: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """Update one tensor in place.

        Args:
            parameter: the parameter of the module.
            x: its values; complex numbers are pairs of real numbers, as in torch's own optimizers.
            gradient: the gradient, in the shape of ``x``.
            state: the optimizer's state of the parameter; empty at its first step.
            group: the parameter group.
        """

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; ``closure``, if given, computes the loss and its gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                pair = (parameter, parameter.grad)
                x, gradient = map(torch.view_as_real, pair) if parameter.is_complex() else pair
                self.update(parameter, x, gradient, self.state[parameter], group)
        return loss


def update_averages(
    x: Tensor, gradient: Tensor, state: dict[str, Any], betas: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Update Adam's averages of the gradient and of its square, and return them without bias correction."""
    if not state:
        state.update(step=0, exp_avg=torch.zeros_like(x), exp_avg_sq=torch.zeros_like(x))
    state["step"] += 1
    mean = state["exp_avg"].lerp_(gradient, 1 - betas[0])
    return mean, state["exp_avg_sq"].mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])

"""Muon for any model: matrices by Muon, every other parameter by AdamW, in one optimizer with one learning rate.

``torch.optim.Muon`` accepts only matrices: a model with biases needs a second optimizer with its own rates. This class
chooses the update for each parameter of a group, so groups keep their names, and each group has one ``lr`` for both
updates. The scale of Liu et al. 2025 makes this possible: with it an update by Muon is as large as one by AdamW, so
both can have the same rate.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from lrkit.optim.sharded_tensors import divide_like, gather
from lrkit.optim.tensorwise_optimizer import TensorwiseOptimizer, update_averages

__all__ = ["Muon", "orthogonalize"]


class Muon(TensorwiseOptimizer):
    r"""Orthogonalized momentum for matrices (Jordan 2024), and AdamW for the other parameters.

    For a matrix ``W`` of ``a x b`` with gradient ``G``, momentum ``mu`` and weight decay ``wd``::

        B <- mu * B + (1 - mu) * G
        O  = orthogonalize(mu * B + (1 - mu) * G)         (nesterov; else of B)
        W <- W - lr * (wd * W + 0.2 * sqrt(max(a, b)) * O)

    ``O`` has a root mean square of about ``1/sqrt(max(a, b))``, and updates by AdamW one of 0.2 to 0.4 in practice: the
    factor ``0.2 * sqrt(max(a, b))`` makes them equally large. AdamW updates vectors, scalars, kernels of convolutions
    and complex numbers, with the same ``lr`` and ``weight_decay``. An embedding is a matrix too. If a group has
    ``adamw: True``, AdamW updates all of its parameters; such a group may have its own rate and schedule.

    Args:
        lr: the rate of every parameter of a group, for both updates.
        weight_decay: decoupled weight decay, for both updates.
        momentum: the momentum of the matrices.
        nesterov: whether the matrices use Nesterov's momentum.
        ns_steps: Newton-Schulz iterations; 5 are enough for training.
        adamw_betas: decay rates of AdamW's averages of the gradient and of its square.
        adamw_eps: number that AdamW adds to the denominator.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv:2502.16982.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
    ) -> None:
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps,
            "adamw_betas": adamw_betas, "adamw_eps": adamw_eps,
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(
        self, parameter: Tensor, x: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        x.mul_(1 - group["lr"] * group["weight_decay"])
        is_matrix = parameter.ndim == 2 and x.ndim == 2
        update = self._update_by_muon if is_matrix and not group.get("adamw") else self._update_by_adamw
        update(x, gradient, state, group)

    @staticmethod
    def _update_by_muon(parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        matrix = gather(gradient.lerp(mean, momentum) if group["nesterov"] else mean)
        direction = divide_like(orthogonalize(matrix, group["ns_steps"]), parameter)
        parameter.add_(direction, alpha=-group["lr"] * 0.2 * math.sqrt(max(parameter.shape)))

    @staticmethod
    def _update_by_adamw(parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        beta1, beta2 = group["adamw_betas"]
        mean, square = update_averages(parameter, gradient, state, group["adamw_betas"])
        size = (square / (1 - beta2 ** state["step"])).sqrt_().add_(group["adamw_eps"])
        parameter.addcdiv_(mean, size, value=-group["lr"] / (1 - beta1 ** state["step"]))


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return the nearest matrix with all singular values near 1: between about 0.7 and 1.2.

    A quintic Newton-Schulz iteration, ``X <- a X + (b A + c A^2) X`` with ``A = X X^T``. Its coefficients give the
    largest slope at 0, so that small singular values grow fast; exact values of 1 would not train better (Jordan 2024).
    """
    # bfloat16, as published, on CUDA only: a CPU without instructions for it would be many times slower.
    x = matrix.to(torch.bfloat16 if matrix.is_cuda else torch.float32)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x  # for the smaller of the two Gram matrices
    x = x / x.norm().clamp_min(1e-7)  # the iteration converges from singular values in [0, 1]
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return (x.T if tall else x).to(matrix.dtype)

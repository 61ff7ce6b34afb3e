"""AdaBound whose final learning rate follows the plan; in the code of its authors, it follows only a schedule."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from lrkit.optim.tensorwise_optimizer import TensorwiseOptimizer, update_averages

__all__ = ["AdaBound"]


class AdaBound(TensorwiseOptimizer):
    r"""Adam whose learning rate of each weight is clamped between two bounds, which converge to the rate of SGD.

    For a tensor ``x`` with gradient ``g`` at its step ``t``, learning rate ``lr`` and weight decay ``wd``::

        g <- g + wd * x
        m <- beta1 * m + (1 - beta1) * g                  v <- beta2 * v + (1 - beta2) * g^2
        final = final_lr * lr / final_lr_at
        low   = final * (1 - 1 / (gamma * t + 1))         high = final * (1 + 1 / (gamma * t))
        x <- x - clamp(lr * sqrt(1 - beta2^t) / (1 - beta1^t) / (sqrt(v) + eps), low, high) * m

    After some hundred steps the bounds determine the rate, and it is close to ``final``. In the authors' code,
    ``final_lr_at`` is ``lr`` at the first step, so that only a schedule changes ``final``; the base rate and the factor
    of a group do not. Here ``final_lr_at`` is a constant, so that each factor of the plan changes ``final`` too. If it
    equals ``lr``, the algorithm is that of the authors.

    Args:
        lr: the learning rate of Adam, at the start of training.
        final_lr: the learning rate of SGD, at the end of training, for ``lr = final_lr_at``.
        final_lr_at: the ``lr`` that belongs to ``final_lr``; the paper pairs 0.001 with 0.1.
        gamma: the speed at which the bounds converge, per step.
        betas: decay of the averages of the gradient and its square.
        eps: added to the denominator.
        weight_decay: L2 penalty, added to the gradient, as in the authors' code.

    Source: Luo et al. 2019, arXiv:1902.09843, Algorithm 2; https://github.com/Luolc/AdaBound.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        final_lr: float = 0.1,
        final_lr_at: float = 1e-3,
        gamma: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr, "final_lr": final_lr, "final_lr_at": final_lr_at, "gamma": gamma, "betas": betas, "eps": eps,
            "weight_decay": weight_decay,
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(
        self, parameter: Tensor, x: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        beta1, beta2 = group["betas"]
        final = group["final_lr"] * (group["lr"] / group["final_lr_at"])
        g = gradient.add(x, alpha=group["weight_decay"]) if group["weight_decay"] else gradient
        m, v = update_averages(x, g, state, group["betas"])
        t = group["gamma"] * state["step"]
        rate = group["lr"] * (math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"]))
        rates = v.sqrt().add_(group["eps"]).reciprocal_().mul_(rate)
        x.sub_(rates.clamp_(final * (1 - 1 / (t + 1)), final * (1 + 1 / t)).mul_(m))

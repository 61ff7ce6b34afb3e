"""AdaBound whose final rate follows the plan too; in its authors' code no schedule reaches it."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from lrkit.optim.tensorwise import TensorwiseOptimizer, update_averages

__all__ = ["AdaBound"]


class AdaBound(TensorwiseOptimizer):
    r"""Adam whose rate of each weight is kept between two bounds, which close in on that of SGD.

    For a tensor ``x`` with gradient ``g`` at its step ``t``, rate ``lr`` and weight decay ``wd``::

        g <- g + wd * x
        m <- beta1 * m + (1 - beta1) * g                  v <- beta2 * v + (1 - beta2) * g^2
        final = final_lr * lr / final_lr_at
        low   = final * (1 - 1 / (gamma * t + 1))         high = final * (1 + 1 / (gamma * t))
        x <- x - clamp(lr * sqrt(1 - beta2^t) / (1 - beta1^t) / (sqrt(v) + eps), low, high) * m

    The bounds have hold of the rate after some hundred steps; from then on ``final`` is what counts. The authors take
    ``lr`` at the first step for ``final_lr_at``, so that only a schedule changes ``final``, and neither the rate of a
    group nor another ``lr`` does. Here it is a number, so that all that the plan makes of ``lr`` holds to the end;
    where it equals ``lr``, this is their algorithm.

    Args:
        lr: the rate of Adam, for the beginning.
        final_lr: the rate of SGD, for the end, where ``lr`` is ``final_lr_at``.
        final_lr_at: see above; the paper pairs 0.1 with 0.001.
        gamma: how fast the bounds close in.
        betas: decay of the averages of the gradient and its square.
        eps: added to the denominator.
        weight_decay: L2, added to the gradient, as the authors have it.

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

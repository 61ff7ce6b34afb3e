"""LAMB as in its paper. Other implementations correct the bias after the trust ratio, or bound the norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from lrkit.optim.tensorwise_optimizer import TensorwiseOptimizer, update_averages

__all__ = ["Lamb"]


class Lamb(TensorwiseOptimizer):
    r"""Adam whose update of each tensor is scaled to the norm of the tensor times the learning rate.

    For a tensor ``x`` with gradient ``g`` at its step ``t``, learning rate ``lr`` and weight decay ``wd``::

        m <- beta1 * m + (1 - beta1) * g                  v <- beta2 * v + (1 - beta2) * g^2
        r  = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + wd * x
        x <- x - lr * |x| / |r| * r

    A tensor therefore moves by ``lr`` times its norm at every step. If ``|x|`` or ``|r|`` is 0 (for example, a bias
    that is initialised to 0), the ratio is 1, as in the authors' code.

    Args:
        lr: the learning rate.
        betas: decay of the averages of the gradient and its square.
        eps: added to the denominator.
        weight_decay: added before the ratio, as in the paper: it changes the direction of the update, not its norm.

    Source: You et al. 2020, arXiv:1904.00962, Algorithm 2, with the identity as the function of the norm.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def update(
        self, parameter: Tensor, x: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        beta1, beta2 = group["betas"]
        m, v = update_averages(x, gradient, state, group["betas"])
        size = (v / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        r = (m / (1 - beta1 ** state["step"])).div_(size).add_(x, alpha=group["weight_decay"])
        of_x, of_r = x.norm(), r.norm()
        ratio = torch.where((of_x > 0) & (of_r > 0), of_x / of_r, 1.0)  # on the device, without synchronisation
        x.sub_(r.mul_(ratio * group["lr"]))

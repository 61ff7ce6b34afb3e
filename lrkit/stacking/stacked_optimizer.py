"""Optimizer steps for the rows of a stack: each member has its own rate, weight decay and momentum.

The formulas, and the order of their operations, are those of ``torch.optim`` (``_single_tensor_sgd`` and so on), with
a column of numbers in place of each number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lrkit.stacking.stackable_config import OPTIMIZER_OPTIONS

__all__ = ["StackedOptimizer", "StepValues", "build_stacked_optimizer"]


@dataclass(frozen=True)
class StepValues:
    """The numbers of one step for one parameter group: a column, one number for each member, in float64.

    Args:
        lr: the learning rate.
        weight_decay: the weight decay; None: no member has any, known without reading a value from the device.
        momentum: the momentum, or ``betas[0]`` of the Adam family, where the plan drives it; None: the option.
    """

    lr: Tensor
    weight_decay: Tensor | None
    momentum: Tensor | None = None


class StackedOptimizer:
    """An optimizer of stacked parameters. A subclass has a formula.

    Args:
        options: the options of the class in ``torch.optim``, without the rate.
        rows: the parameters, one row for each member.
        segments: the columns of each parameter group.
    """

    buffers: ClassVar[tuple[str, ...]] = ()
    counts: ClassVar[bool] = True  # whether the state in torch has the number of steps

    def __init__(self, options: Mapping[str, Any], rows: Tensor, segments: Sequence[slice]) -> None:
        self.options, self.segments = options, segments
        self.taken = 0
        self.state = {name: torch.zeros_like(rows) for name in self.buffer_names()}

    def buffer_names(self) -> tuple[str, ...]:
        """Return the names of the state's tensors, as in ``torch.optim``."""
        return self.buffers

    @torch.no_grad()
    def step(self, rows: Tensor, gradients: Tensor, values: Sequence[StepValues]) -> None:
        """Take a step of all members."""
        self.taken += 1
        for columns, of_group in zip(self.segments, values, strict=True):
            state = {name: buffer[:, columns] for name, buffer in self.state.items()}
            self._step_group(rows[:, columns], gradients[:, columns], of_group, state)

    def _step_group(self, p: Tensor, grad: Tensor, values: StepValues, state: Mapping[str, Tensor]) -> None:
        raise NotImplementedError

    def keep(self, members: Sequence[int]) -> None:
        """Remove the state of all members but these."""
        self.state = {name: buffer[[*members]] for name, buffer in self.state.items()}

    def _add_decay(self, p: Tensor, grad: Tensor, values: StepValues) -> Tensor:
        """Add the L2 penalty to the gradient."""
        if values.weight_decay is None:
            return grad
        return grad.addcmul(p, values.weight_decay.to(p.dtype))


class _Sgd(StackedOptimizer):
    counts = False

    def buffer_names(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if self.options.get("momentum") else ()

    def _step_group(self, p: Tensor, grad: Tensor, values: StepValues, state: Mapping[str, Tensor]) -> None:
        grad = self._add_decay(p, grad, values)
        if state:
            momentum = self.options["momentum"] if values.momentum is None else values.momentum.to(p.dtype)
            buffer = state["momentum_buffer"]
            if self.taken == 1:
                buffer.copy_(grad)
            else:
                buffer.mul_(momentum).add_(grad, alpha=1 - self.options.get("dampening", 0.0))
            grad = grad + buffer * momentum if self.options.get("nesterov") else buffer
        p.addcmul_(grad, (-values.lr).to(p.dtype))


class _Adam(StackedOptimizer):
    decoupled: ClassVar[bool] = False

    def buffer_names(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if self.options.get("amsgrad") else ()))

    def _step_group(self, p: Tensor, grad: Tensor, values: StepValues, state: Mapping[str, Tensor]) -> None:
        lr, (beta1, beta2) = values.lr, self.options.get("betas", (0.9, 0.999))
        beta1 = torch.full_like(lr, beta1) if values.momentum is None else values.momentum
        if not self.decoupled:
            grad = self._add_decay(p, grad, values)
        elif values.weight_decay is not None:
            p.mul_((1 - lr * values.weight_decay).to(p.dtype))
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(grad, (1 - beta1).to(p.dtype).expand_as(grad))
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        correction1, correction2 = 1 - beta1**self.taken, 1 - beta2**self.taken
        if "max_exp_avg_sq" in state:
            torch.maximum(state["max_exp_avg_sq"], square, out=state["max_exp_avg_sq"])
            square = state["max_exp_avg_sq"]
        divisor = (square.sqrt() / correction2**0.5).add_(self.options.get("eps", 1e-8))
        p.addcmul_(mean / divisor, (-(lr / correction1)).to(p.dtype))


class _AdamW(_Adam):
    decoupled = True


class _RmsProp(StackedOptimizer):
    def buffer_names(self) -> tuple[str, ...]:
        momentum = ("momentum_buffer",) if self.options.get("momentum") else ()
        return ("square_avg", *momentum, *(("grad_avg",) if self.options.get("centered") else ()))

    def _step_group(self, p: Tensor, grad: Tensor, values: StepValues, state: Mapping[str, Tensor]) -> None:
        grad, alpha = self._add_decay(p, grad, values), self.options.get("alpha", 0.99)
        square = state["square_avg"].mul_(alpha).addcmul_(grad, grad, value=1 - alpha)
        if "grad_avg" in state:
            mean = state["grad_avg"].lerp_(grad, 1 - alpha)
            root = square.addcmul(mean, mean, value=-1).sqrt_()
        else:
            root = square.sqrt()
        change, rate = grad / root.add_(self.options.get("eps", 1e-8)), (-values.lr).to(p.dtype)
        if "momentum_buffer" in state:
            momentum = self.options["momentum"] if values.momentum is None else values.momentum.to(p.dtype)
            change = state["momentum_buffer"].mul_(momentum).add_(change)
        p.addcmul_(change, rate)


class _Adagrad(StackedOptimizer):
    buffers = ("sum",)

    def __init__(self, options: Mapping[str, Any], rows: Tensor, segments: Sequence[slice]) -> None:
        super().__init__(options, rows, segments)
        self.state["sum"].fill_(options.get("initial_accumulator_value", 0.0))

    def _step_group(self, p: Tensor, grad: Tensor, values: StepValues, state: Mapping[str, Tensor]) -> None:
        grad = self._add_decay(p, grad, values)
        rate = values.lr / (1 + (self.taken - 1) * self.options.get("lr_decay", 0.0))
        root = state["sum"].addcmul_(grad, grad).sqrt().add_(self.options.get("eps", 1e-10))
        p.addcmul_(grad / root, (-rate).to(p.dtype))


_CLASSES: dict[str, type[StackedOptimizer]] = {
    "torch.optim.SGD": _Sgd,
    "torch.optim.Adam": _Adam,
    "torch.optim.AdamW": _AdamW,
    "torch.optim.RMSprop": _RmsProp,
    "torch.optim.Adagrad": _Adagrad,
}
assert _CLASSES.keys() == OPTIMIZER_OPTIONS.keys()


def build_stacked_optimizer(
    target: str, options: Mapping[str, Any], rows: Tensor, segments: Sequence[slice]
) -> StackedOptimizer:
    """Return the stacked form of an optimizer of ``torch.optim``.

    Args:
        target: class path of the optimizer.
        options: its options without the rate.
        rows: the parameters, one row for each member.
        segments: the columns of each parameter group.
    """
    return _CLASSES[target](options, rows, segments)

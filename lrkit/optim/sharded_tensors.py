"""Tensors that are divided among the processes of a run (``DTensor``): the whole of one, and the parts of another."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from lrkit.optim.factory import switch_mode

__all__ = ["allow_state_creation", "divide_like", "gather"]


def gather(tensor: Tensor) -> Tensor:
    """Return the whole of a divided tensor, which all processes must ask for; any other tensor as it is."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


def divide_like(whole: Tensor, divided: Tensor) -> Tensor:
    """Divide a tensor that all processes have among them as ``divided`` is; without communication."""
    if not hasattr(divided, "device_mesh"):
        return whole
    from torch.distributed.tensor import distribute_tensor  # loaded already by the code that divided the other tensor

    return distribute_tensor(whole, divided.device_mesh, divided.placements, src_data_rank=None)  # type: ignore[attr-defined]


def allow_state_creation(optimizer: Optimizer) -> None:
    """Let ``torch.distributed.checkpoint`` create the state of an optimizer by a step, before it loads a saved one.

    A schedule-free optimizer takes a step in training mode only; the switch leaves empty states, which torch would
    take for the state.
    """
    switch_mode(optimizer, training=True)
    for parameter in [each for each, state in optimizer.state.items() if not state]:
        del optimizer.state[parameter]

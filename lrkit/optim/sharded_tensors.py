"""Tensors that are divided among the processes of a run (``DTensor``): the whole of one, and the parts of another."""

from __future__ import annotations

from torch import Tensor

__all__ = ["divide_like", "gather", "local_part"]


def gather(tensor: Tensor) -> Tensor:
    """Return the whole of a divided tensor, which all processes must ask for; any other tensor as it is."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


def local_part(tensor: Tensor) -> Tensor:
    """Return this process's part of a divided tensor; any other tensor as it is."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def divide_like(whole: Tensor, divided: Tensor) -> Tensor:
    """Divide a tensor that all processes have among them as ``divided`` is; without communication."""
    if not hasattr(divided, "device_mesh"):
        return whole
    from torch.distributed.tensor import distribute_tensor  # loaded already by the code that divided the other tensor

    return distribute_tensor(whole, divided.device_mesh, divided.placements, src_data_rank=None)  # type: ignore[attr-defined]

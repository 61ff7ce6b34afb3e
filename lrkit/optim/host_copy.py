"""Values of a device that are copied to the host while both go on working."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["HostCopy"]


class HostCopy:
    """A copy of a CUDA tensor on the host. Making it waits for nothing; ``read`` waits for the work before the copy.

    A read is free of cost when the device has finished that work, which is usual one optimizer step later.
    """

    def __init__(self, values: Tensor) -> None:
        self._host = torch.empty_like(values, device="cpu", pin_memory=True)
        self._host.copy_(values, non_blocking=True)
        self._arrived = torch.cuda.current_stream(values.device).record_event()

    @staticmethod
    def is_useful(values: Tensor) -> bool:
        """Whether a plain read of these values would wait for a device that can copy by itself."""
        return values.is_cuda

    def read(self) -> Tensor:
        """The values, on the host."""
        self._arrived.synchronize()
        return self._host

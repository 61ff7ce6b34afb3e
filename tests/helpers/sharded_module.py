"""A module whose parameters are sharded over the processes, for ``ModelParallelStrategy``."""

from __future__ import annotations

import plain_lightning
import torch
from torch.distributed.fsdp import fully_shard


class Net(plain_lightning.Net):
    """Sharded over the replicas (FSDP2); within one replica it is whole."""

    def configure_model(self) -> None:
        if isinstance(self.head.weight, torch.distributed.tensor.DTensor):
            return
        mesh = self.device_mesh["data_parallel"]  # type: ignore[index]
        if mesh.size() > 1:
            fully_shard(self.body, mesh=mesh)
            fully_shard(self.head, mesh=mesh)

"""Modules whose parameters are sharded over the processes, for ``ModelParallelStrategy``."""

from __future__ import annotations

import plain_lightning
import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module


class Net(plain_lightning.Net):
    """Sharded over the replicas (FSDP2); within one replica, and without ModelParallelStrategy, it is whole."""

    def configure_model(self) -> None:
        if self.device_mesh is None or isinstance(self.head.weight, torch.distributed.tensor.DTensor):
            return
        mesh = self.device_mesh["data_parallel"]  # type: ignore[index]
        if mesh.size() > 1:
            fully_shard(self.body, mesh=mesh)
            fully_shard(self.head, mesh=mesh)


class TensorParallelNet(plain_lightning.Net):
    """Its two layers are divided over the processes, each batch is not: the first by outputs, the second by inputs."""

    def configure_model(self) -> None:
        if isinstance(self.head.weight, torch.distributed.tensor.DTensor):
            return
        mesh = self.device_mesh["tensor_parallel"]  # type: ignore[index]
        if mesh.size() > 1:
            parallelize_module(self, mesh, {"body.0": ColwiseParallel(), "head": RowwiseParallel()})

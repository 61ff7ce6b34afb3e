"""Data-parallel replicas: groups of processes that train on different batches.

Usually each process is a replica. With tensor parallelism, one copy of the model is divided among several processes,
which see the same batches and count as one replica in the samples of a step.
"""

from __future__ import annotations

from lrkit.lightning.imports import Trainer

__all__ = ["count_replicas", "replica_index"]


def count_replicas(trainer: Trainer) -> int:
    """The number of replicas; valid after the trainer's strategy is set up."""
    return _sampler_arguments(trainer)["num_replicas"]


def replica_index(trainer: Trainer) -> int:
    """The index of the replica that this process belongs to."""
    return _sampler_arguments(trainer)["rank"]


def _sampler_arguments(trainer: Trainer) -> dict[str, int]:
    """The arguments that Lightning gives to a distributed sampler."""
    by_rank = {"num_replicas": trainer.world_size, "rank": trainer.global_rank}
    if trainer.world_size == 1:
        return by_rank
    return {**by_rank, **(getattr(trainer.strategy, "distributed_sampler_kwargs", None) or {})}

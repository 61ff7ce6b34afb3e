"""Data-parallel replicas: the processes of a run that see batches of their own.

Mostly all of them. Where one copy of the model is divided among several processes (tensor parallel), these see the same
batches, and count once in the samples of a step.
"""

from __future__ import annotations

from lrkit.lightning.classes import Trainer

__all__ = ["count_replicas", "replica_index"]


def count_replicas(trainer: Trainer) -> int:
    """How many there are. To be asked once the trainer's strategy is set up."""
    return _kwargs(trainer)["num_replicas"]


def replica_index(trainer: Trainer) -> int:
    """Which of them this process belongs to."""
    return _kwargs(trainer)["rank"]


def _kwargs(trainer: Trainer) -> dict[str, int]:
    """What Lightning itself would give to a sampler."""
    alone = {"num_replicas": trainer.world_size, "rank": trainer.global_rank}
    if trainer.world_size == 1:
        return alone
    return {**alone, **(getattr(trainer.strategy, "distributed_sampler_kwargs", None) or {})}

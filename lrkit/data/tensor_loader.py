"""A loader of batches from tensors in memory, in an order that is a pure function of the seed and the epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from lrkit.base.errors import ConfigError
from lrkit.base.validation import record, whole

__all__ = ["TensorLoader", "check_whole_number", "seeded_generator"]

Batch = TypeVar("Batch")

#: The entries of ``state_dict`` that ``load_state_dict`` reads.
_STATE_KEYS = ("epoch", "batch", "seed", "samples", "batch_size", "world")
_STATE_SCHEMA = record(
    dict.fromkeys(_STATE_KEYS, whole(0, 2**64)), {"joined": whole(0, 1), "parts": whole(0, 2**64)}, others=True
)


class TensorLoader(Generic[Batch]):
    """An iterable of batches: ``fetch(indices)`` makes each batch by one indexing operation.

    It replaces a ``DataLoader`` for samples in memory: without workers, without collating
    single samples, and without the global random state. The order of one epoch is

        order(seed, epoch) = randperm(population; generator seeded from both)[:samples]

    so it can be computed again at any time: a run that resumes in the middle of an epoch continues with
    exactly the remaining batches.

    Ranks share the work by taking every ``world``-th sample of that order:

    * for training (``shuffle=True``) as torch's ``DistributedSampler`` does: the order is repeated from its
      start (with ``drop_last``: cut) until every rank has the same number of samples;
    * for evaluation (``shuffle=False``) no sample is repeated, so metrics are exact. Ranks then differ
      by at most one sample, but never in their *number* of batches: Lightning evaluates through
      DDP too, which broadcasts the buffers of e.g. batch norm at every batch. Only a rank that would
      have fewer samples than batches gets one sample a second time.

    It has the members that Lightning uses: ``sampler.set_epoch`` at the start of each epoch, ``state_dict`` and
    ``load_state_dict`` for checkpoints, and ``len``. It is no ``DataLoader``, so Lightning replaces no sampler.

    Args:
        fetch: Makes a batch from a 1-d int64 tensor of indices into ``range(population)``.
        samples: Number of samples in an epoch, over all ranks.
        batch_size: Number of samples in a batch of one rank.
        shuffle: A new order in each epoch, for training; else ``range(samples)``, for evaluation.
        drop_last: Drop a last batch that is smaller than ``batch_size``.
        seed: Seed of the order.
        rank: Rank of this process, in ``range(world)``.
        world: Number of processes that share the samples.
        population: Number of samples to draw each epoch's samples from, without replacement (default: ``samples``).
        progress: Returns how many batches of this epoch the consumer has *finished*. The iterator only knows how
            many it has yielded, and a batch that an exception interrupted must come again after a resume.
        batches: Makes the batches of an epoch, one after another, from the indices of each (default: by ``fetch``).

    Raises:
        ConfigError: A size is not a whole number >= 1, or no batch would be left.
    """

    batch_sampler = None  # Lightning reads it from every loader that has a `sampler`

    def __init__(
        self,
        fetch: Callable[[Tensor], Batch],
        samples: int,
        batch_size: int,
        *,
        shuffle: bool,
        drop_last: bool = False,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        population: int | None = None,
        progress: Callable[[], int] | None = None,
        batches: Callable[[Sequence[Tensor]], Iterator[Batch]] | None = None,
    ) -> None:
        self.fetch = fetch
        self.samples = check_whole_number("data.train_samples", samples)
        self.batch_size = check_whole_number("data.batch_size", batch_size)
        self.world = check_whole_number("trainer.devices", world)
        self.seed = check_whole_number("data.seed", seed, least=0)
        if not 0 <= rank < world:
            raise ConfigError("trainer.devices", f"must be greater than the rank, {rank}", world)
        self.population = samples if population is None else population
        if self.population < samples:
            raise ConfigError(
                "data.train_samples", f"must be at most {self.population}, the number of samples", samples
            )
        self.shuffle, self.drop_last, self.rank = shuffle, drop_last, rank
        self.epoch = 0
        self._progress = progress
        self._batches = batches or partial(map, fetch)
        self._yielded = 0
        self._resume: dict[str, int] | None = None
        self._windows: Callable[[int], Sequence[int]] | None = None
        self._announce: Callable[[int], None] = lambda batches: None
        self._ends = [0]  # where batches are joined: the parts before each batch of the epoch, from ``_first`` on
        self._first = 0
        if len(self) == 0:
            share = f"{samples} samples" + (f" / {world} processes" if world > 1 else "")
            raise ConfigError(
                "data.drop_last", f"must be false, or data.batch_size ({batch_size}) at most {share}: "
                "else the only batch is dropped", drop_last,
            )  # fmt: skip

    def __len__(self) -> int:
        """Number of batches in an epoch: the same on every rank. Where they are joined, in this epoch."""
        return self._count_parts() if self._windows is None else self._first + len(self._ends) - 1

    def _count_parts(self) -> int:
        """Number of batches of ``batch_size`` in an epoch."""
        if self.drop_last:
            return self.samples // self.world // self.batch_size
        return -(-self.samples // (self.world * self.batch_size))

    def __iter__(self) -> Iterator[Batch]:
        # A generator runs no code before its first `next`: Lightning creates the iterator before it sets
        # the epoch, and creates some iterators only as a check.
        first = self._first_batch()
        for number, batch in enumerate(self._batches([*self._join_parts(first)]), start=first + 1):
            self._yielded = number
            yield batch

    def join_batches(self, windows: Callable[[int], Sequence[int]], announce: Callable[[int], None]) -> None:
        """Join the batches of each window to one, from the next iteration on; samples and order stay the same.

        Args:
            windows: returns, for a number of done batches of an epoch, the numbers of batches to join until its end.
            announce: is called with the number of joined batches of each epoch, when it begins.
        """
        self._windows, self._announce = windows, announce
        self._plan_windows(0, 0)

    def _plan_windows(self, first: int, parts: int) -> None:
        """Compute the windows of the rest of an epoch, after ``first`` joined batches, made of ``parts`` batches."""
        if self._windows is None:
            return
        self._first, self._ends = first, [parts, *(parts + done for done in accumulate(self._windows(parts)))]
        self._announce(len(self))

    def _join_parts(self, first: int) -> Iterator[Tensor]:
        """The indices of the batches from the given one on."""
        parts = self.batch_indices()
        if self._windows is None:
            yield from parts[first:]
            return
        for begin, end in pairwise(self._ends[first - self._first :]):
            yield torch.cat(parts[begin:end])

    def order(self) -> Tensor:
        """The order of this epoch's samples over all ranks: an int64 tensor of shape ``(samples,)``."""
        if not self.shuffle:
            return torch.arange(self.samples)
        order = torch.randperm(self.population, generator=seeded_generator(self.seed, self.epoch))
        return order[: self.samples]

    def batch_indices(self) -> tuple[Tensor, ...]:
        """This epoch's batches of this rank, each of ``batch_size`` indices but the last."""
        order, count = self.order(), self._count_parts()
        if self.shuffle:
            share = self.samples // self.world if self.drop_last else -(-self.samples // self.world)
            wrapped = order.repeat(-(-share * self.world // self.samples))
            own = wrapped[self.rank : share * self.world : self.world]
        else:
            own = order[self.rank :: self.world]
            if len(own) < count:
                own = torch.cat([own, order[[self.rank % self.samples]]])
        batch_indices = torch.split(own, self.batch_size)[:count]
        return batch_indices if len(batch_indices) == count else torch.tensor_split(own, count)

    @property
    def sampler(self) -> TensorLoader[Batch]:
        """This loader: Lightning calls ``sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order. Another epoch than the current one begins at its first batch."""
        if epoch != self.epoch:
            self.epoch, self._yielded = epoch, 0
            self._plan_windows(0, 0)
        elif self._windows is not None:
            self._announce(len(self))

    def state_dict(self) -> dict[str, int]:
        """The position in the data and the settings that it depends on: integers, the same on every rank."""
        finished = self._yielded if self._progress is None else min(self._yielded, self._progress())
        position = {"epoch": self.epoch, "batch": finished, **self._data_settings()}
        if self._windows is not None:
            position |= {"joined": 1, "parts": self._ends[max(0, finished - self._first)]}
        return position

    def pass_batches(self, count: int) -> None:
        """Note that ``count`` batches of this epoch were trained on, without an iteration over them."""
        self._yielded = count

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue the epoch of ``state_dict`` at its position, in the next iteration."""
        _STATE_SCHEMA.check("data", state_dict)
        self._resume = dict(state_dict)
        self.epoch, self._yielded = state_dict["epoch"], state_dict["batch"]
        self._plan_windows(state_dict["batch"], state_dict.get("parts", 0))

    def _data_settings(self) -> dict[str, int]:
        return {
            "seed": self.seed,
            "samples": self.samples,
            "batch_size": self.batch_size,
            "world": self.world,
        }

    def _first_batch(self) -> int:
        state, self._resume = self._resume, None  # used once: the following iteration begins at the first batch
        if state is None or state["epoch"] != self.epoch:
            return 0
        keys = {"samples": "data.train_samples", "world": "trainer.devices"}
        for name, current in self._data_settings().items():
            if state[name] != current:
                # Skipping `batch` batches of other sizes would repeat some samples and miss others.
                must = f"must stay {state[name]} to resume in the middle of an epoch"
                raise ConfigError(keys.get(name, f"data.{name}"), must, current)
        joined, joins = bool(state.get("joined")), self._windows is not None
        if joined != joins and state["batch"]:
            by = ("accumulation", "loader")
            raise ConfigError("batch.by", f"must stay {by[joined]} to resume in the middle of an epoch", by[joins])
        return state["batch"]


def seeded_generator(seed: int, *path: int) -> torch.Generator:
    """A random generator that depends on every number of ``(seed, *path)``.

    The numbers are hashed: with their sum, seed 0 in epoch 1 would equal seed 1 in epoch 0.
    """
    digest = hashlib.blake2b("/".join(map(str, (seed, *path))).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def check_whole_number(key: str, value: Any, *, least: int = 1) -> int:
    """``value``, if it is an int >= ``least``; ``True`` and ``8.0`` are refused.

    Raises:
        ConfigError: ``value`` is no such number.
    """
    whole(least).check(key, value)
    assert isinstance(value, int)
    return value

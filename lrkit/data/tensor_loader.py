"""Batches cut out of whole tensors, in an order that is a pure function of the seed and the epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from lrkit.base import option_rules
from lrkit.base.errors import ConfigError
from lrkit.base.schema import record, whole

__all__ = ["TensorLoader", "check_whole_number", "seeded_generator"]

Batch = TypeVar("Batch")

#: What ``state_dict`` says, as far as it is needed.
_NAMES = ("epoch", "batch", "seed", "samples", "batch_size", "world")
_STATE = record(dict.fromkeys(_NAMES, whole(0, 2**64)), others=True)


class TensorLoader(Generic[Batch]):
    """An iterable of whole batches: ``fetch(indices)`` makes each one by a single indexing.

    It stands in for a ``DataLoader`` whose samples already lie in memory: no workers, no collating of
    single samples, and no use of the global random state. The order of one epoch is

        order(seed, epoch) = randperm(population; generator seeded from both)[:samples]

    so it can be recomputed at any time: a run that resumes in the middle of an epoch continues with
    exactly the batches that were left.

    Ranks share the work by taking every ``world``-th sample of that order:

    * for training (``shuffle=True``) as torch's ``DistributedSampler``: the order is filled up by
      wrapping round (with ``drop_last``: cut short), so that every rank has equally many samples;
    * for evaluation (``shuffle=False``) nothing is repeated, so that metrics are exact. Ranks then differ
      by at most one sample, but never in their *number* of batches: Lightning runs evaluation through
      DDP too, which broadcasts the buffers of e.g. batch norm at every batch. Only a rank that would
      have fewer samples than batches sees one sample a second time.

    Lightning finds what it looks for: ``sampler.set_epoch`` at the start of each epoch, ``state_dict`` and
    ``load_state_dict`` in checkpoints, ``len``; and no ``DataLoader`` into which to put a sampler.

    Args:
        fetch: Makes a batch from a 1-d int64 tensor of indices into ``range(population)``.
        samples: Samples of one epoch, over all ranks.
        batch_size: Samples of one batch of one rank.
        shuffle: A new order in each epoch, for training; else ``range(samples)``, for evaluation.
        drop_last: Leave out a last batch that is smaller than ``batch_size``.
        seed: Where the order starts from.
        rank: This process, in ``range(world)``.
        world: How many processes share the samples.
        population: Draw each epoch's samples, without replacement, from this many (default: ``samples``).
        progress: How many batches of this epoch the consumer has *finished*. The iterator only knows how
            many it handed out, and a batch that an exception interrupted has to come again on resuming.

    Raises:
        ConfigError: A size is not a whole number >= 1, or no batch would be left.
    """

    batch_sampler = None  # Lightning asks every loader with a `sampler` for this one too

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
    ) -> None:
        self.fetch = fetch
        self.samples = check_whole_number("data.train_samples", samples)
        self.batch_size = check_whole_number("data.batch_size", batch_size)
        self.world = check_whole_number("trainer.devices", world)
        self.seed = check_whole_number("data.seed", seed, least=0)
        if not 0 <= rank < world:
            raise ConfigError("trainer.devices", f"must be more than the rank, {rank}", world)
        self.population = samples if population is None else population
        if self.population < samples:
            raise ConfigError("data.train_samples", f"must be at most {self.population}", samples)
        self.shuffle, self.drop_last, self.rank = shuffle, drop_last, rank
        self.epoch = 0
        self._progress = progress
        self._handed_out = 0
        self._resume: dict[str, int] | None = None
        if len(self) == 0:
            share = f"{samples} samples" + (f" / {world} processes" if world > 1 else "")
            raise ConfigError(
                "data.drop_last", f"must be false, or data.batch_size ({batch_size}) at most {share}: "
                "else the only batch is dropped", drop_last,
            )  # fmt: skip

    def __len__(self) -> int:
        """Batches of one epoch: the same number on every rank."""
        if self.drop_last:
            return self.samples // self.world // self.batch_size
        return -(-self.samples // (self.world * self.batch_size))

    def __iter__(self) -> Iterator[Batch]:
        # A generator runs nothing before its first `next`: Lightning makes the iterator before it says
        # which epoch it is, and makes some only to see whether it could.
        first = self._first()
        for number, indices in enumerate(self.chunks()[first:], start=first + 1):
            batch = self.fetch(indices)
            self._handed_out = number
            yield batch

    def order(self) -> Tensor:
        """This epoch's samples of all ranks, in order: an int64 tensor of shape ``(samples,)``."""
        if not self.shuffle:
            return torch.arange(self.samples)
        order = torch.randperm(self.population, generator=seeded_generator(self.seed, self.epoch))
        return order[: self.samples]

    def chunks(self) -> tuple[Tensor, ...]:
        """This epoch's batches of this rank, as ``len(self)`` tensors of indices."""
        order, count = self.order(), len(self)
        if self.shuffle:
            share = self.samples // self.world if self.drop_last else -(-self.samples // self.world)
            wrapped = order.repeat(-(-share * self.world // self.samples))
            mine = wrapped[self.rank : share * self.world : self.world]
        else:
            mine = order[self.rank :: self.world]
            if len(mine) < count:
                mine = torch.cat([mine, order[[self.rank % self.samples]]])
        chunks = torch.split(mine, self.batch_size)[:count]
        return chunks if len(chunks) == count else torch.tensor_split(mine, count)

    @property
    def sampler(self) -> TensorLoader[Batch]:
        """Itself: where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next iteration; going to another epoch forgets the place in this one."""
        if epoch != self.epoch:
            self.epoch, self._handed_out = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """The place in the data, and what it depends on: plain integers, the same on every rank."""
        done = self._handed_out if self._progress is None else min(self._handed_out, self._progress())
        return {"epoch": self.epoch, "batch": done, **self._identity()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """The next iteration, if it is of the same epoch, goes on where ``state_dict`` was taken."""
        _STATE(state_dict, "data")
        self._resume = dict(state_dict)
        self.epoch, self._handed_out = state_dict["epoch"], state_dict["batch"]

    def _identity(self) -> dict[str, int]:
        return {
            "seed": self.seed,
            "samples": self.samples,
            "batch_size": self.batch_size,
            "world": self.world,
        }

    def _first(self) -> int:
        state, self._resume = self._resume, None  # once: the iteration after it starts from the front
        if state is None or state["epoch"] != self.epoch:
            return 0
        keys = {"samples": "data.train_samples", "world": "trainer.devices"}
        for name, now in self._identity().items():
            if state[name] != now:
                # Skipping `batch` batches of another cut would silently repeat some samples and miss others.
                must = f"must stay {state[name]} to resume in the middle of an epoch"
                raise ConfigError(keys.get(name, f"data.{name}"), must, now)
        return state["batch"]


def seeded_generator(seed: int, *path: int) -> torch.Generator:
    """A random generator of its own for every ``(seed, *path)``.

    Hashed, not added up: with ``seed + epoch`` seed 0 in epoch 1 would be seed 1 in epoch 0.
    """
    digest = hashlib.blake2b("/".join(map(str, (seed, *path))).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def check_whole_number(key: str, value: Any, *, least: int = 1) -> int:
    """``value``, when it is a whole number >= ``least``: not ``True``, not ``8.0``.

    Raises:
        ConfigError: It is not.
    """
    option_rules.whole(least).check(key, value)
    assert isinstance(value, int)
    return value

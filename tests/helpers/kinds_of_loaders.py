"""Training data for plain Lightning, one class for each kind of data loader. These classes do not import lrkit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from plain_lightning import Data, Net, Points
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)  # fmt: skip


class Noisy(Dataset[Any]):
    """Augments each sample at random when it is loaded."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Any:
        sample = self.dataset[i]
        return {**sample, "features": sample["features"] + 0.1 * torch.randn(4) + 0.1 * float(np.random.rand())}


class Stream(IterableDataset[Any]):
    """Has no position."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        return iter(self.dataset[i] for i in torch.randperm(len(self.dataset)).tolist())

    def __len__(self) -> int:
        return len(self.dataset)


class Own(Sampler[int]):
    """A sampler in the usual style, with its own generator."""

    def __init__(self, n: int) -> None:
        self.n, self.rng = n, np.random.default_rng(5)

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        return iter(self.rng.permutation(self.n).tolist())


class ByEpoch(Sampler[int]):
    """A sampler whose order depends on the epoch of ``set_epoch``."""

    def __init__(self, n: int) -> None:
        self.n, self.epoch = n, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.n, generator=torch.Generator().manual_seed(self.epoch)).tolist())


class Ordered(IterableDataset[Any]):
    """Its order depends on its epoch; a loader sets the epoch and the batches that are done."""

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.epoch, self.done = dataset, 0, 0

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(len(self.dataset), generator=torch.Generator().manual_seed(self.epoch)).tolist()
        return iter(self.dataset[i] for i in order[8 * self.done :])

    def __len__(self) -> int:
        return len(self.dataset)


class Streaming(DataLoader[Any]):
    """In the style of streaming's loader: its state at the end of an epoch is that no batch is left."""

    def __init__(self, data: Any) -> None:
        super().__init__(Ordered(data), batch_size=8)
        self.epoch, self.done, self.given = -1, 0, False

    def _start(self) -> None:
        if not self.given:
            self.epoch, self.done = self.epoch + 1, 0
        self.given = False

    def __iter__(self) -> Any:
        self._start()
        vars(self.dataset).update(epoch=self.epoch, done=self.done)
        for batch in super().__iter__():
            self.done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.done, self.given = state["epoch"], state["done"], True


class Lit(Streaming):
    """In the style of litdata's: after its last batch the next epoch follows, if it notices that it was the last."""

    def _start(self) -> None:
        if not self.given:
            super()._start()

    def __iter__(self) -> Any:
        yield from super().__iter__()
        self.given = False

    def load_state_dict(self, state: dict[str, int]) -> None:
        super().load_state_dict(state)
        self.given = 0 < self.done < len(self)


class Unsized:
    """In the style of ``torchdata.nodes.Loader``: a position, and no length."""

    def __init__(self, data: Any) -> None:
        self.loader = Streaming(data)
        self.state_dict, self.load_state_dict = self.loader.state_dict, self.loader.load_state_dict

    def __iter__(self) -> Any:
        return iter(self.loader)


class Ending(DataLoader[Any]):
    """Has no batch in its third epoch."""

    epoch = 0

    def __iter__(self) -> Any:
        self.epoch += 1
        return super().__iter__() if self.epoch < 3 else iter(())


def _stateful(data: Any, workers: int) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(data, batch_size=8, shuffle=True, num_workers=workers)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


KINDS: dict[str, Callable[[Any, int], Any]] = {
    "shuffled": lambda data, n: DataLoader(data, batch_size=8, shuffle=True, num_workers=n),
    "in order": lambda data, n: DataLoader(data, batch_size=8, num_workers=n),
    "generator": lambda data, n: DataLoader(data, batch_size=8, shuffle=True, num_workers=n, generator=_seeded()),
    "sampler": lambda data, n: DataLoader(data, batch_size=8, num_workers=n, sampler=SubsetRandomSampler(range(50))),
    "replacement": lambda data, n: DataLoader(
        data, batch_size=8, num_workers=n, sampler=RandomSampler(data, True, 70, generator=_seeded())
    ),
    "weighted": lambda data, n: DataLoader(
        data, batch_size=8, num_workers=n, sampler=WeightedRandomSampler([1.0, 2.0] * 30, 60)
    ),
    "batch_sampler": lambda data, n: DataLoader(
        data, num_workers=n, batch_sampler=BatchSampler(RandomSampler(data), 8, drop_last=True)
    ),
    "own": lambda data, n: DataLoader(data, batch_size=8, num_workers=n, sampler=Own(len(data))),
    "by epoch": lambda data, n: DataLoader(data, batch_size=8, num_workers=n, sampler=ByEpoch(len(data))),
    "persistent": lambda data, n: DataLoader(
        data, batch_size=8, shuffle=True, num_workers=n, persistent_workers=bool(n)
    ),
    "noisy": lambda data, n: DataLoader(Noisy(data), batch_size=8, shuffle=True, num_workers=n),
    "stream": lambda data, n: DataLoader(Stream(data), batch_size=8, num_workers=n),
    "two": lambda data, n: [DataLoader(data, batch_size=8, shuffle=True, num_workers=n) for _ in range(2)],
    "stateful": _stateful,
    "streaming": lambda data, n: Streaming(data),
    "lit": lambda data, n: Lit(data),
    "unsized": lambda data, n: Unsized(data),
    "ending": lambda data, n: Ending(data, batch_size=8),
}  # fmt: skip


class Loaded(Data):
    """Points, by a loader of one of ``KINDS``."""

    def __init__(self, kind: str = "shuffled", workers: int = 0, size: int = 8) -> None:
        super().__init__(batch_size=size)
        self.kind, self.workers, self.size = kind, workers, size

    def setup(self, stage: str) -> None:
        self.train, self.val = Points(60), Points(20)

    def train_dataloader(self) -> Any:
        if self.size != 8:
            return DataLoader(self.train, batch_size=self.size, shuffle=True)
        return KINDS[self.kind](self.train, self.workers)


class Dropping(Net):
    """Draws random numbers in each step, and in hooks around the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.body.append(nn.Dropout(0.3))

    def loss(self, batch: Any) -> Tensor:
        parts = batch if isinstance(batch, list) else [batch]  # of several loaders
        return torch.stack([Net.loss(self, part) for part in parts]).sum()

    def on_train_start(self) -> None:
        torch.rand(3)

    def on_train_epoch_start(self) -> None:
        torch.rand(2)

    def on_train_epoch_end(self) -> None:
        torch.rand(1)

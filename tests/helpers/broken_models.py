"""Models and data with one typical mistake each; test_bad_input.py has lrkit's message for each mistake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lrkit.lightning.imports import LightningDataModule, LightningModule


class Nothing(nn.Module):
    """No parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Net(nn.Module):
    """A layer of 64 inputs, as the digits have, and 10 classes; unless told otherwise."""

    def __init__(self, inputs: int = 64, outputs: int = 10) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.flatten(1))
        return out


class Frozen(Net):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class Detached(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class Doubled(Net):
    def __init__(self) -> None:
        super().__init__()
        self.double()


class NoStep(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()


class Module(LightningModule):
    """A LightningModule whose loss can go wrong in several ways."""

    def __init__(self, loss: str = "") -> None:
        super().__init__()
        self.net, self.how = Net(), loss

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        if self.how == "late" and self.global_step == 1:
            raise ArithmeticError("no good\nany more")
        losses = F.cross_entropy(self.net(x), y, reduction="none")
        return losses if self.how == "vector" else 0.5 if self.how == "number" else losses.mean()


class Unreadable(Dataset[Any]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, i: int) -> Any:
        raise KeyError("no such sample")


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield torch.zeros(64), torch.tensor(1)


class Data(LightningDataModule):
    """Loaders of torch; of another kind than the network expects."""

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.kind = kind

    def setup(self, stage: str) -> None:
        if self.kind == "absent":
            raise FileNotFoundError("no file for me")

    def train_dataloader(self) -> Any:
        x, y = torch.zeros(64, 64), torch.zeros(64, dtype=torch.long)
        data: Dataset[Any] = {
            "narrow": TensorDataset(x[:, :5], y),
            "double": TensorDataset(x.double(), y),
            "labels": TensorDataset(x, y + 12),
            "alone": TensorDataset(x),
            "empty": TensorDataset(x[:0], y[:0]),
            "few": TensorDataset(x[:4], y[:4]),
            "stream": Endless(),
            "unreadable": Unreadable(),
        }.get(self.kind, TensorDataset(x, y))
        return None if self.kind == "none" else DataLoader(data, batch_size=8, drop_last=self.kind == "few")

"""LightningModules and LightningDataModules in the style of plain Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from lrkit.lightning.imports import Callback, LightningDataModule, LightningModule, Trainer


class Points(Dataset[dict[str, Tensor]]):
    def __init__(self, n: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(n, 4, generator=generator)
        self.y = (self.x.sum(1) > 0).long()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"features": self.x[i], "label": self.y[i]}


class Data(LightningDataModule):
    """Loaders of torch, batches that are dictionaries, no declared size."""

    def __init__(self, batch_size: int = 8, n: int = 60) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        self.train, self.val = Points(self.hparams["n"]), Points(20)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train, batch_size=self.hparams["batch_size"], shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val, batch_size=self.hparams["batch_size"])


class UnshuffledData(Data):
    """The batches of a step have the same samples, whatever the number of processes."""

    def train_dataloader(self) -> DataLoader[Any]:
        count, rank = self.trainer.world_size, self.trainer.global_rank  # type: ignore[union-attr]
        sampler = DistributedSampler(self.train, count, rank, shuffle=False)  # that of Lightning shuffles
        return DataLoader(self.train, batch_size=self.hparams["batch_size"], sampler=sampler)


class FixedData(Data):
    """The batch size is not an argument of the data module: only the loader has it."""

    def __init__(self) -> None:
        super().__init__(batch_size=12)


class OnlyTraining(Data):
    """No validation data."""

    val_dataloader = LightningDataModule.val_dataloader


class Net(LightningModule):
    """Own optimizer, own schedule, own metric names, hyper-parameters saved."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Sequential(nn.Linear(4, width), nn.ReLU())
        self.head = nn.Linear(width, 2)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self.head(self.body(batch["features"])), batch["label"])

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch), prog_bar=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=123.0)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class DictLoss(Net):
    """Returns a dictionary, and takes the optimizer step into its own hands."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Any:
        return {"loss": self.loss(batch)}

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        optimizer.step(closure=optimizer_closure)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step()


class Manual(Net):
    """Manual optimization, with the scheduler stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        loss = self.loss(batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.lr_schedulers().step()  # type: ignore[union-attr]
        self.log("train_loss", loss)


class Silent(LightningModule):
    """The least there can be: no validation, no logging, no optimizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.layer(batch["features"]), batch["label"])


class RankLoss(Net):
    """Logs a validation loss that differs between ranks, and forgets ``sync_dist``."""

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        # Rank 0 seems to improve for ever, rank 1 to get worse; the mean gets worse.
        sign = -1.0 if self.global_rank == 0 else 3.0
        self.log("val_loss", torch.tensor(sign * (1.0 + self.current_epoch)))


class RankTrainLoss(Net):
    """Its training loss is the rank plus the number of steps taken; the module logs none."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.loss(batch) * 0.0 + float(self.global_rank + self.global_step)


class UnitGradient(LightningModule):
    """The gradient of each batch is exactly 1 for any data; the module records the gradients at the optimizer step."""

    seen: ClassVar[list[float]] = []

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.weight.sum()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        assert self.weight.grad is not None
        self.seen.append(float(self.weight.grad))


class Scripted(Net):
    """The validation loss of each epoch is known beforehand: the best is that of the second."""

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val_loss", torch.tensor([3.0, 1.0, 2.0, 2.5][self.current_epoch]))


class Losses(Callback):
    """The loss of each batch of a real run."""

    seen: list[float]

    def __init__(self) -> None:
        Losses.seen = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        Losses.seen.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)


def fit(
    net: LightningModule, batches: int = 4, validate: bool = False, resume: Path | None = None, **options: Any
) -> Trainer:
    """Train with plain Lightning, on data of ones."""
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = Trainer(**{"max_epochs": 1, "accelerator": "cpu", **quiet, **options})
    ones: DataLoader[Any] = DataLoader(torch.ones(batches, 1))  # type: ignore[arg-type]
    trainer.fit(net, ones, ones if validate else None, ckpt_path=resume)
    return trainer

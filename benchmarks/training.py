"""The time of a training step: in a plain loop, in Lightning with and without logging, and in lrkit by default.

    python benchmarks/training.py [--steps 3000] [--rounds 5]

The network is so small (64 inputs, 128 hidden units, 10 classes, batches of 64) that the overhead is visible. One core,
AdamW (fused), cosine. The time is that from the first batch to the end of training, divided by the number of steps.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import TensorBoardLogger
from rows import Row, command, compared, in_turn, middle
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

SAMPLES, BATCH, FEATURES = 32_000, 64, 64


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, FEATURES, generator=generator)
    return x, torch.randint(0, 10, (SAMPLES,), generator=generator)


class Net(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, 10))


class Data(LightningDataModule):
    """The data loader of all ways except two."""

    loss = "cross_entropy"

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(*samples()), batch_size=BATCH, shuffle=True)


class Plain(LightningModule):
    def __init__(self, steps: int, logs: bool) -> None:
        super().__init__()
        self.net, self.steps, self.logs = Net(), steps, logs

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        if self.logs:
            self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3, fused=True)
        scheduler = CosineAnnealingLR(optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Clock(Callback):
    """Seconds per step of the last finished training."""

    taken = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begun = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Clock.taken = (time.perf_counter() - self.begun) / trainer.global_step


def by_hand(steps: int, slices: bool) -> float:
    x, y = samples()
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    scheduler = CosineAnnealingLR(optimizer, steps)
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)

    def batches() -> Any:
        if not slices:
            return loader
        order = torch.randperm(SAMPLES).split(BATCH)
        return ((x[chosen], y[chosen]) for chosen in order)

    begun, endless = time.perf_counter(), itertools.chain.from_iterable(batches() for _ in itertools.count())
    for inputs, classes in itertools.islice(endless, steps):
        optimizer.zero_grad()
        F.cross_entropy(net(inputs), classes).backward()
        optimizer.step()
        scheduler.step()
    return (time.perf_counter() - begun) / steps


def lightning(steps: int, logs: bool) -> float:
    with tempfile.TemporaryDirectory() as folder:
        callbacks: list[Callback] = [Clock(), *([LearningRateMonitor("step")] if logs else [])]
        Trainer(
            max_steps=steps, accelerator="cpu", logger=TensorBoardLogger(folder) if logs else False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks,
        ).fit(Plain(steps, logs), datamodule=Data())  # fmt: skip
    return Clock.taken


def lrkit(steps: int, *words: str) -> float:
    from lrkit.config.compose import compose
    from lrkit.training.run import run_training

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "data.npz")
        x, y = samples()
        parts = {f"x_{part}": x.numpy()[:count] for part, count in (("train", SAMPLES), ("val", 64), ("test", 64))}
        np.savez(file, **parts, **{name.replace("x", "y"): y.numpy()[: len(part)] for name, part in parts.items()})
        config = compose([
            *[word.format(file=file) for word in words], f"data.batch_size={BATCH}", f"trainer.max_steps={steps}",
            "trainer.max_epochs=-1", "model=custom", "model._target_=training.Net", "optimizer=adamw",
            "trainer.limit_val_batches=0", "trainer.accelerator=cpu", "+callbacks.clock._target_=training.Clock",
        ])  # fmt: skip
        run_training(config, Path(folder), quiet=True)
    import training  # lrkit uses the Clock of this module, not of __main__

    return float(training.Clock.taken)


def rows(steps: int = 3000, rounds: int = 5) -> list[Row]:
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    ours = ["data=custom", "data._target_=training.Data", f"data.train_samples={SAMPLES}"]
    in_memory = ["data=arrays", "data.path={file}"]
    taken = in_turn({
        "by hand": lambda: by_hand(steps, slices=False),
        "by hand on slices": lambda: by_hand(steps, slices=True),
        "Lightning": lambda: lightning(steps, logs=False),
        "Lightning with its logging": lambda: lightning(steps, logs=True),
        "lrkit, the same loader": lambda: lrkit(steps, *ours),
        "lrkit, its own data": lambda: lrkit(steps, *in_memory),
    }, rounds)  # fmt: skip
    ms = {name: f"{middle(each) * 1e3:.2f}" for name, each in taken.items()}

    def row(way: str, other: str, aim: float | None = None) -> Row:
        figures = f"ms: {ms[way]} and {ms[other]}"
        return compared(f"training step: {way}", other, taken[way], taken[other], aim, figures)

    same, own = "lrkit, the same loader", "lrkit, its own data"
    return [
        row(same, "Lightning with its logging", 1 / 1.5),
        row(same, "Lightning", 1.0),
        row(own, "Lightning with its logging", 1 / 2.5),
        row(own, "by hand on slices", 1.5),
        row("by hand", "Lightning"),
    ]


if __name__ == "__main__":
    command(__doc__, rows, steps=3000, rounds=5)

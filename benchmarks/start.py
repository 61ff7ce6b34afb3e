"""The waiting time for the command's help, for the plan, and for the first training step.

python benchmarks/start.py [--rounds 5]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from rows import Row, command, compared, in_turn, middle, seconds

HERE = Path(__file__).parent

#: The first step of plain Lightning, in a typical script: with data in memory, a logger and a schedule.
PLAIN = """
import warnings; warnings.simplefilter("ignore")
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

class Plain(LightningModule):
    def __init__(self):
        super().__init__()
        layers = torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
        self.net = torch.nn.Sequential(*layers)
    def training_step(self, batch, i):
        loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss
    def validation_step(self, batch, i):
        self.log("val/loss", torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1]))
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)}

class First(Callback):
    def on_train_batch_end(self, *_):
        import os; os._exit(0)

x, y = torch.randn(1500, 64), torch.randint(0, 10, (1500,))
loader = DataLoader(TensorDataset(x, y), batch_size=32)
callbacks = [First(), LearningRateMonitor("step"), ModelCheckpoint()]
Trainer(max_epochs=1, logger=TensorBoardLogger("."), callbacks=callbacks,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu").fit(Plain(), loader, loader)
"""


def rows(rounds: int = 5) -> list[Row]:
    lrkit = str(Path(sys.executable).parent / "lrkit")
    ways = {
        "import torch": [sys.executable, "-c", "import torch"],
        "lrkit --help": [lrkit, "--help"],
        "lrkit show": [lrkit, "show"],
        "plain Lightning": [sys.executable, "-c", PLAIN],
        "lrkit train": [lrkit, "train", "+callbacks.first._target_=first_step.First", "trainer.accelerator=cpu"],
    }
    taken = in_turn({name: partial(seconds, words, PYTHONPATH=str(HERE)) for name, words in ways.items()}, rounds)
    made = []
    for ours, theirs, aim in (
        ("lrkit --help", "import torch", 1.0),
        ("lrkit show", "import torch", 1.0),
        ("lrkit train", "plain Lightning", 1.1),
    ):
        what = f"{ours}, to the first step" if ours == "lrkit train" else ours
        figures = f"{middle(taken[ours]):.2f} s and {middle(taken[theirs]):.2f} s"
        made.append(compared(what, theirs, taken[ours], taken[theirs], aim, figures))
    return made


if __name__ == "__main__":
    command(__doc__, rows, rounds=5)

"""How long one waits: for the command's help and the plan, and for the first training step.

python benchmarks/start.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from rows import Row, against, in_turn, table

HERE = Path(__file__).parent

#: The first step of plain Lightning, with what a script of this kind has: its data in memory, a logger, a schedule.
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


def seconds(command: list[str]) -> float:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        taken = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{command} failed: {done.stderr[-2000:]}")
    return taken


def rows(rounds: int = 5) -> list[Row]:
    lrkit = [str(Path(sys.executable).parent / "lrkit")]
    first = ["+callbacks.first._target_=first_step.First", "trainer.accelerator=cpu"]
    ways = {
        "import torch": [sys.executable, "-c", "import torch"],
        "lrkit --help": [*lrkit, "--help"],
        "lrkit show": [*lrkit, "show"],
        "plain Lightning": [sys.executable, "-c", PLAIN],
        "lrkit train": [*lrkit, "train", *first],
    }
    taken = in_turn({name: partial(seconds, command) for name, command in ways.items()}, rounds)
    s = {name: f"{sorted(each)[len(each) // 2]:.2f} s" for name, each in taken.items()}
    pairs = [
        ("lrkit --help", "import torch", 1.0),
        ("lrkit show", "import torch", 1.0),
        ("lrkit train", "plain Lightning", 1.1),
    ]
    return [
        Row(f"{ours}{', to the first step' * (aim > 1)}", f"{theirs}{' likewise' * (aim > 1)}",
            *_ratio(taken[ours], taken[theirs], aim), figures=f"{s[ours]} and {s[theirs]}")
        for ours, theirs, aim in pairs
    ]  # fmt: skip


def _ratio(ours: list[float], theirs: list[float], aim: float) -> tuple[float, float, tuple[float, float]]:
    ratio, spread = against(ours, theirs)
    return ratio, aim, spread


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    print(table(rows(parser.parse_args().rounds)))

"""A script of plain Lightning: look at the plan, find the rate, train with it."""

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lrkit


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self.network(x), y)
        self.log("loss", loss)
        return loss


torch.manual_seed(0)
x = torch.randn(512, 8)
loader = DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=32, shuffle=True)
options = {"max_epochs": 4, "accelerator": "cpu"}
how = {"optimizer": "adamw", "schedule": {"name": "step", "every": "1ep", "gamma": 0.5}, "warmup": "linear"}

print(lrkit.plan(lr=0.01, steps=64, steps_per_epoch=16, **how))  # type: ignore[arg-type]

module = Classifier()
found = lrkit.find(module, loader, trainer=options, search={"repeats": 1}, quiet=True, **how)  # type: ignore[call-overload]
print(found.sentence())

lrkit.configure(module, lr=found.lr or 0.01, **how)  # type: ignore[arg-type]
trainer = Trainer(**options, logger=False, enable_checkpointing=False, enable_progress_bar=False)  # type: ignore[arg-type]
trainer.fit(module, loader)
print(f"loss {float(trainer.callback_metrics['loss']):.3f}")

"""A Hydra application with a module and data of its own; the learning rate comes from lrkit's groups."""

import hydra
import torch
from omegaconf import DictConfig
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lrkit


class Classifier(LightningModule):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self.network(x), y)
        self.log("loss", loss, prog_bar=True)
        return loss


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    loader = DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=32, shuffle=True)
    module = lrkit.from_config(cfg, module=Classifier(cfg.model.width))
    trainer = Trainer(max_epochs=cfg.epochs, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(module, loader)
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    print(f"loss {float(trainer.callback_metrics['loss']):.3f}, last learning rate {rate:.2g}")


if __name__ == "__main__":
    main()

"""Modules in the style of common starting points: Lightning's introduction, its template repository, nanoGPT.

They are written here after these sources, which are not packages. None of them imports lrkit.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from third_party_modules import L
from torch import Tensor, nn
from torchmetrics import MeanMetric, MinMetric


class AutoEncoder(L.LightningModule):  # type: ignore[misc]
    """Lightning's introduction."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3072, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 3072))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self._loss(batch, "train")

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._loss(batch, "val")

    def _loss(self, batch: list[Tensor], stage: str) -> Tensor:
        x = batch[0].flatten(1)
        loss = nn.functional.mse_loss(self.decoder(self.encoder(x)), x)
        self.log(f"{stage}_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Templated(L.LightningModule):  # type: ignore[misc]
    """lightning-hydra-template: the network and a partial optimizer are hyper-parameters; the metrics have state."""

    def __init__(self, net: nn.Module, optimizer: Any, scheduler: Any = None, compile: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.net = net
        self.criterion = nn.CrossEntropyLoss()
        self.train_loss, self.val_loss, self.best = MeanMetric(), MeanMetric(), MinMetric()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x.flatten(1))
        return found

    def on_train_start(self) -> None:
        self.val_loss.reset()
        self.best.reset()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss: Tensor = self.criterion(self(batch[0]), batch[1])
        self.train_loss(loss)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.val_loss(self.criterion(self(batch[0]), batch[1]))
        self.log("val/loss", self.val_loss, on_step=False, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        self.best(self.val_loss.compute())
        self.log("val/loss_best", self.best.compute(), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> Any:
        return {"optimizer": self.hparams["optimizer"](params=self.parameters())}


def templated() -> L.LightningModule:
    net = nn.Sequential(nn.Linear(3072, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    return Templated(net, functools.partial(torch.optim.Adam, lr=0.001))


class GAN(L.LightningModule):  # type: ignore[misc]
    """Lightning's example of manual optimization: two optimizers, each toggled for its half of the step."""

    def __init__(self, latent_dim: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = nn.Sequential(
            nn.Linear(latent_dim, 16), nn.BatchNorm1d(16), nn.LeakyReLU(0.2), nn.Linear(16, 3072), nn.Tanh()
        )
        self.discriminator = nn.Sequential(
            nn.Linear(3072, 16), nn.LeakyReLU(0.2), nn.Dropout(0.1), nn.Linear(16, 1), nn.Sigmoid()
        )

    def forward(self, z: Tensor) -> Tensor:
        found: Tensor = self.generator(z)
        return found

    def adversarial_loss(self, said: Tensor, label: float) -> Tensor:
        return nn.functional.binary_cross_entropy(said, torch.full_like(said, label))

    def training_step(self, batch: list[Tensor]) -> None:
        images = batch[0].flatten(1)
        optimizer_g, optimizer_d = self.optimizers()
        z = torch.randn(images.shape[0], self.hparams.latent_dim).type_as(images)

        self.toggle_optimizer(optimizer_g)
        g_loss = self.adversarial_loss(self.discriminator(self(z)), 1.0)
        self.log("g_loss", g_loss, prog_bar=True)
        self.manual_backward(g_loss)
        optimizer_g.step()
        optimizer_g.zero_grad()
        self.untoggle_optimizer(optimizer_g)

        self.toggle_optimizer(optimizer_d)
        real_loss = self.adversarial_loss(self.discriminator(images), 1.0)
        fake_loss = self.adversarial_loss(self.discriminator(self(z).detach()), 0.0)
        d_loss = (real_loss + fake_loss) / 2
        self.log("d_loss", d_loss, prog_bar=True)
        self.manual_backward(d_loss)
        optimizer_d.step()
        optimizer_d.zero_grad()
        self.untoggle_optimizer(optimizer_d)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        g = torch.optim.Adam(self.generator.parameters(), lr=0.0002, betas=(0.5, 0.999))
        d = torch.optim.Adam(self.discriminator.parameters(), lr=0.0002, betas=(0.5, 0.999))
        return [g, d], []


class TwoOutputs(nn.Module):
    """nanoGPT, minGPT: ``forward(tokens, targets=None)`` gives the logits, and a loss or None; the head is tied."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 16, 0.1, batch_first=True) for _ in range(2))
        self.lm_head = nn.Linear(16, 40, bias=False)
        self.lm_head.weight = self.embed.weight

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        logits = self.lm_head(x)
        if targets is None:
            return logits, None
        return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

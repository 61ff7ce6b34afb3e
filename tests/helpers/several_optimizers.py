"""Modules with several optimizers, in the style of plain Lightning."""

from __future__ import annotations

from typing import Any

import torch
from plain_lightning import Data
from torch import Tensor, nn
from torch.nn import functional as F

from lrkit.lightning.imports import LightningModule

__all__ = [
    "GAN", "WGAN", "ActorCritic", "Automatic", "Composed", "Data", "Detached", "Diverging", "Hasty", "Late", "Never",
    "OneScheduler", "Reversed", "Split", "Twice", "Unsaid",
]  # fmt: skip

Batch = Any


def features(batch: Batch) -> Tensor:
    x: Tensor = batch["features"] if isinstance(batch, dict) else batch[0]
    return x.flatten(1)


class GAN(LightningModule):
    """Lightning's own example in small: two networks, manual optimization, toggled optimizers."""

    def __init__(self, inputs: int = 4) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, inputs))
        self.discriminator = nn.Sequential(nn.Linear(inputs, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))

    def adversarial_loss(self, said: Tensor, real: float) -> Tensor:
        return F.binary_cross_entropy_with_logits(said, torch.full_like(said, real))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real = features(batch)
        optimizer_g, optimizer_d = self.optimizers()  # type: ignore[misc]
        z = torch.randn(len(real), 3)

        self.toggle_optimizer(optimizer_g)
        g_loss = self.adversarial_loss(self.discriminator(self.generator(z)), 1.0)
        self.log("g_loss", g_loss)
        self.manual_backward(g_loss)
        optimizer_g.step()
        optimizer_g.zero_grad()
        self.untoggle_optimizer(optimizer_g)

        self.toggle_optimizer(optimizer_d)
        fake = self.adversarial_loss(self.discriminator(self.generator(z).detach()), 0.0)
        d_loss = (self.adversarial_loss(self.discriminator(real), 1.0) + fake) / 2
        self.log("d_loss", d_loss)
        self.manual_backward(d_loss)
        optimizer_d.step()
        optimizer_d.zero_grad()
        self.untoggle_optimizer(optimizer_d)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_loss", self.discriminator(features(batch)).mean().abs())

    def configure_optimizers(self) -> Any:
        opt_g = torch.optim.Adam(self.generator.parameters(), lr=123.0)
        opt_d = torch.optim.Adam(self.discriminator.parameters(), lr=123.0)
        return [opt_g, opt_d], []


class Reversed(GAN):
    """Makes the networks in one order, and their optimizers in the other; steps schedulers by hand."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[misc]
        scheduler_d, scheduler_g = self.lr_schedulers()  # type: ignore[misc]
        assert optimizer_d.param_groups[0]["params"][0] is self.discriminator[0].weight
        for optimizer, loss in ((optimizer_d, self.discriminator), (optimizer_g, self.generator)):
            optimizer.zero_grad()
            self.manual_backward(loss(torch.ones(2, loss[0].in_features)).square().mean())
            optimizer.step()
        scheduler_d.step()
        scheduler_g.step()

    def configure_optimizers(self) -> Any:
        made = []
        for net in (self.discriminator, self.generator):
            optimizer = torch.optim.SGD(net.parameters(), lr=123.0)
            made.append({"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)})
        return made


class OneScheduler(GAN):
    """Only the discriminator has a scheduler, so that ``lr_schedulers()`` is one and no list."""

    def on_train_epoch_end(self) -> None:
        scheduler: Any = self.lr_schedulers()
        scheduler.step()
        assert scheduler.optimizer.param_groups[0]["params"][0] is self.discriminator[0].weight

    def configure_optimizers(self) -> Any:
        optimizers, _ = super().configure_optimizers()
        return optimizers, [torch.optim.lr_scheduler.StepLR(optimizers[1], 1)]


class WGAN(GAN):
    """The critic learns from each batch, the generator from every fifth."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimizer_g, optimizer_d = self.optimizers()  # type: ignore[misc]
        real = features(batch)
        z = torch.randn(len(real), 3)
        critic = self.discriminator(self.generator(z).detach()).mean() - self.discriminator(real).mean()
        optimizer_d.zero_grad()
        self.manual_backward(critic)
        optimizer_d.step()
        self.log("critic", critic)
        if batch_idx % 5 == 0:
            optimizer_g.zero_grad()
            self.manual_backward(-self.discriminator(self.generator(z)).mean())
            optimizer_g.step()


class Late(WGAN):
    """The generator learns from the fifth batch of each five."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        super().training_step(batch, batch_idx + 1)


class Twice(GAN):
    """The discriminator learns twice from each batch."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        super().training_step(batch, batch_idx)
        self.optimizers()[1].step()  # type: ignore[index]


class Hasty(GAN):
    """Its generator leaves out the first batch of each epoch."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.steps(batch, with_generator=batch_idx > 0)

    def steps(self, batch: Batch, with_generator: bool) -> None:
        for optimizer, net in zip(self.optimizers(), (self.generator, self.discriminator), strict=True):  # type: ignore[arg-type]
            if with_generator or net is self.discriminator:
                optimizer.zero_grad()
                self.manual_backward(net(torch.ones(2, net[0].in_features)).square().mean())
                optimizer.step()


class Never(Hasty):
    """Its generator takes no step."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.steps(batch, with_generator=False)


class Detached(Hasty):
    """The loss of its generator does not come from the generator."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.steps(batch, with_generator=False)
        self.optimizers()[0].step()  # type: ignore[index]


class Composed(GAN):
    """Its generator contains modules that are attributes of this module too, as in DGMR."""

    def __init__(self) -> None:
        super().__init__()
        parts, discriminator = self.generator, self.discriminator
        del self.generator, self.discriminator
        self.context, self.sampler = parts[0], parts[2]
        self.generator, self.discriminator = nn.Sequential(self.context, nn.ReLU(), self.sampler), discriminator


class ActorCritic(LightningModule):
    """A trunk that two heads share, which its own optimizers both step."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.trunk, self.actor, self.critic = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 1)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        actor, critic = self.optimizers()  # type: ignore[misc]
        hidden = torch.relu(self.trunk(features(batch)))
        loss = F.cross_entropy(self.actor(hidden), batch["label"]) + self.critic(hidden).square().mean()
        actor.zero_grad()
        critic.zero_grad()
        self.manual_backward(loss)
        actor.step()
        critic.step()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_loss", self.critic(torch.relu(self.trunk(features(batch)))).mean())

    def configure_optimizers(self) -> Any:
        shared = [*self.trunk.parameters()]
        return (
            torch.optim.RMSprop([*shared, *self.actor.parameters()], lr=123.0),
            torch.optim.Adam([*shared, *self.critic.parameters()], lr=123.0),
        )


class Unsaid(GAN):
    """Its optimizers cannot be found out beforehand."""

    def configure_optimizers(self) -> Any:
        raise RuntimeError("not here")


class Split(GAN):
    """Its networks have parts, and its ``configure_optimizers`` has side effects."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(3, 3)

    def configure_optimizers(self) -> Any:
        with torch.no_grad():
            self.generator[0].weight.fill_(7.0)
        self.embedding.requires_grad_(False)
        self.trace = torch.rand(1)
        self.register_buffer("later", torch.zeros(1))
        made = super().configure_optimizers()[0]
        made[0].add_param_group({"params": self.embedding.parameters()})
        return made


class Automatic(GAN):
    """Leaves its optimizer step to Lightning."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = True

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.discriminator(features(batch)).square().mean()


class Diverging(GAN):
    """The discriminator's loss is lost in the fourth batch."""

    def adversarial_loss(self, said: Tensor, real: float) -> Tensor:
        loss = super().adversarial_loss(said, real)
        return loss * float("nan") if self.trainer.fit_loop.total_batch_idx == 3 and real == 0.0 else loss

"""The training whose learning rate `lrkit find` searches; each short run creates it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from torch import Tensor

from lrkit.config import compose as configs
from lrkit.data.in_memory import loaders_of
from lrkit.lightning.imports import Callback, LightningDataModule, LightningModule, Trainer
from lrkit.planning.plan import Plan
from lrkit.training_objects.callbacks import callbacks_of
from lrkit.training_objects.data import data_of
from lrkit.training_objects.exact_plan import counted_plan
from lrkit.training_objects.module import module_of
from lrkit.training_objects.optimizers import optimizer_of

__all__ = ["ConfigTask", "TrainingTask"]


class TrainingTask(Protocol):
    """The training that a search starts for each short run.

    Each short run calls ``module`` for a new module, and ``release`` at its end.
    """

    @property
    def seed(self) -> int:
        """The seed of its random numbers."""

    @property
    def trainer(self) -> Mapping[str, Any]:
        """The options of the run's trainer."""

    @property
    def trust(self) -> tuple[str, ...]:
        """Packages whose classes the options may name."""

    @property
    def monitor(self) -> str:
        """The metric that decides which short run is the best; ``auto``: the validation loss."""

    @property
    def rules(self) -> Mapping[str, Any]:
        """The node ``param_groups``."""

    def optimizer(self) -> tuple[str, dict[str, Any]]:
        """The class path of the optimizer, and its options without the rate."""

    def module(self) -> LightningModule:
        """A new module for one short run."""

    def callbacks(self) -> list[Callback]:
        """The callbacks of the run."""

    def training_data(self) -> dict[str, Any]:
        """The arguments of ``Trainer.fit`` for the data."""

    def validation_data(self) -> dict[str, Any]:
        """The arguments of ``Trainer.validate`` for the data."""

    def plan(self, trainer: Trainer) -> Plan:
        """The plan of the whole run, by the batches that a short run's trainer has counted; its base rate is 1."""

    def with_seed(self, seed: int) -> Self:
        """The same training with another seed."""

    def release(self) -> None:
        """Restore the state that the data had before the short run."""


@dataclass(frozen=True)
class ConfigTask:
    """The training of a config.

    Args:
        config: a config of ``lrkit.config.compose``; its ``optimizer.lr`` is not used.
        data: its data module.
        weights: the initial weights; None: those of the module.
    """

    config: Mapping[str, Any]
    data: LightningDataModule
    weights: Mapping[str, Tensor] | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], weights: Mapping[str, Tensor] | None) -> ConfigTask:
        """The training of a config, with any rate: the plan of each short run has its own."""
        config = {**config, "optimizer": {**config["optimizer"], "lr": 1.0}, "allow_extreme_lr": True}
        return cls(config, data_of(config), weights)

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def trainer(self) -> Mapping[str, Any]:
        node = self.config["trainer"]
        return {**node, "accumulate_grad_batches": configs.accumulation(self.config, configs.replicas_of(node)[0])}

    @property
    def trust(self) -> tuple[str, ...]:
        return tuple(self.config.get("trust", ()))

    @property
    def monitor(self) -> str:
        return str(self.config["monitor"])

    @property
    def rules(self) -> Mapping[str, Any]:
        rules: Mapping[str, Any] = self.config["param_groups"]
        return rules

    def optimizer(self) -> tuple[str, dict[str, Any]]:
        return optimizer_of(self.config)

    def module(self) -> LightningModule:
        module = module_of(self.config, self.data)
        if self.weights is not None:
            module.load_state_dict(self.weights)
        return module

    def callbacks(self) -> list[Callback]:
        return callbacks_of(self.config)

    def training_data(self) -> dict[str, Any]:
        return {"datamodule": loaders_of(self.data)}

    def validation_data(self) -> dict[str, Any]:
        return self.training_data()

    def plan(self, trainer: Trainer) -> Plan:
        return counted_plan(self.config, trainer)

    def with_seed(self, seed: int) -> ConfigTask:
        if seed == self.seed:
            return self
        data = self.config["data"]
        if data.get("seed") == self.seed:  # the order of the data has the same seed
            data = {**data, "seed": seed}
        config = {**self.config, "seed": seed, "data": data}
        return replace(self, config=config, data=data_of(config))

    def release(self) -> None:
        self.data.trainer = None  # a data module that is used again must not keep a reference to this trainer

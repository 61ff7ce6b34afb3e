"""The module of a config: the user's LightningModule, or lrkit's own around the user's network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lrkit.base.errors import ConfigError
from lrkit.config import compose as configs
from lrkit.config import trusted_targets
from lrkit.data.in_memory import InMemoryData, ModuleLoaders
from lrkit.data.torch_datasets import Datasets
from lrkit.lightning.imports import PACKAGE, LightningDataModule, LightningModule, is_overridden
from lrkit.lightning.supervised import Supervised
from lrkit.schedules.batch_sizes import KEY as SCHEDULE
from lrkit.training_objects.data import accepted_arguments

__all__ = ["check_model_sizes", "check_test", "module_of", "notes_on"]


def module_of(
    config: Mapping[str, Any], data: LightningDataModule, module: LightningModule | None = None
) -> LightningModule:
    """The user's LightningModule, unchanged, or lrkit's own module around the user's network.

    ``module`` is the caller's own in place of the class that ``model`` names; it gets the same checks.
    """
    node = config["model"]
    model = _build_model(config, data) if module is None else module
    if isinstance(model, LightningModule):
        if type(model).training_step is LightningModule.training_step:
            raise ConfigError("model._target_", "must have a training_step", node["_target_"])
        if isinstance(data, ModuleLoaders) and not is_overridden("train_dataloader", model):
            must = f"needs a model with its own loaders, and {type(model).__name__} has no train_dataloader"
            raise ConfigError("data=module", must)
        if not model.automatic_optimization:
            _check_manual_optimization(config, type(model).__name__)
        return model
    for name in ("training_step", "configure_optimizers"):
        if hasattr(model, name):  # as a network its own loss would not be trained
            must = f"has a {name}, but is not a LightningModule of {PACKAGE}: inherit from it, or remove {name}"
            raise ConfigError("model._target_", must, node["_target_"])
    if isinstance(data, ModuleLoaders):
        raise ConfigError(
            "data=module", "needs a LightningModule with its own loaders, and the model is a plain network"
        )
    return _build_supervised(model, config["data"], data)


def _build_model(config: Mapping[str, Any], data: LightningDataModule) -> nn.Module:
    """The object of the node ``model``, with ``inputs`` and ``outputs`` of the data where they are auto."""
    node = dict(config["model"])
    is_custom = check_model_sizes(config)
    if any(node.get(name) == "auto" for name in ("inputs", "outputs")):
        data.prepare_data()
        data.setup("fit")
        for name in ("inputs", "outputs"):
            if node.get(name) == "auto":
                if not hasattr(data, name):
                    if is_custom:
                        raise ConfigError(f"model.{name}", _OWN_SIZES)
                    raise ConfigError(
                        f"model.{name}", f"must be set: {type(data).__name__} has no attribute {name}", "auto"
                    )
                node[name] = getattr(data, name)
    model = configs.build(node, "model", config.get("trust", ()))
    if not isinstance(model, nn.Module):  # of a class method, which does not say what it builds
        raise ConfigError("model._target_", f"must build a torch.nn.Module, and it built a {type(model).__name__}")
    return model


_OWN_SIZES = "is for lrkit's own networks: set model=custom too for another network"


def check_model_sizes(config: Mapping[str, Any]) -> bool:
    """Whether the network is not one of lrkit's; one that does not take sizes that are auto is refused."""
    node = config["model"]
    cls = trusted_targets.resolve_class(node.get(trusted_targets.TARGET), "model._target_", config.get("trust", ()))
    is_custom = not str(cls.__module__).startswith("lrkit.")
    for name in ("inputs", "outputs"):
        if node.get(name) == "auto" and is_custom and not accepted_arguments(cls) & {name, "kwargs"}:
            raise ConfigError(f"model.{name}", _OWN_SIZES)
    return is_custom


def _build_supervised(model: nn.Module, node: Mapping[str, Any], data: LightningDataModule) -> Supervised:
    """lrkit's module around a network, with the targets of the config and the data."""
    accepted = accepted_arguments(type(data))
    configured = {name: node.get(name) for name in ("targets", "class_axis") if name not in accepted}
    loss: str | None = getattr(data, "loss", None)
    if configured.get("targets") is not None:
        losses = {"classes": "cross_entropy", "numbers": "mse"}
        if configured["targets"] not in losses:
            raise ConfigError("data.targets", "must be classes or numbers, or null", configured["targets"])
        loss = losses[configured["targets"]]
    outputs = getattr(data, "outputs", None)
    classes = outputs if loss == "cross_entropy" and type(outputs) is int else None
    usual = getattr(data, "class_axis", None)
    return Supervised(model, loss, configured.get("class_axis"), usual_axis=usual, classes=classes)


def _check_manual_optimization(config: Mapping[str, Any], name: str) -> None:
    """Refuse options that Lightning applies only with automatic optimization."""
    trainer, effective = config["trainer"], config["batch"].get("effective")
    own = f"is for automatic optimization, and {name} uses manual optimization"
    if (schedule := config["batch"].get("schedule")) is not None:
        raise ConfigError(SCHEDULE, f"{own}: accumulate in the module", schedule)
    accumulates = (trainer.get("accumulate_grad_batches") or 1) > 1
    if accumulates or (effective is not None and configs.accumulation(config, configs.replicas_of(trainer)[0]) > 1):
        key, value = ("batch.effective", effective) if not accumulates else (
            "trainer.accumulate_grad_batches", trainer["accumulate_grad_batches"]
        )  # fmt: skip
        raise ConfigError(key, f"{own}: accumulate in the module, and set horizon.steps to its number of steps", value)
    if trainer.get("gradient_clip_val"):
        must = f"{own}: call self.clip_gradients(optimizer, gradient_clip_val=...) there"
        raise ConfigError("trainer.gradient_clip_val", must, trainer["gradient_clip_val"])


def check_test(config: Mapping[str, Any], module: LightningModule, data: LightningDataModule) -> None:
    """Refuse ``test=true`` before training, where there is nothing to test with.

    Raises:
        ConfigError: the module has no ``test_step``, or neither it nor the data has test samples.
    """
    if not config["test"]:
        return
    if not is_overridden("test_step", module):
        raise ConfigError("test", f"needs a test_step, and {type(module).__name__} has none", True)
    loaded = module if isinstance(data, ModuleLoaders) else data
    if not is_overridden("test_dataloader", loaded):
        raise ConfigError("test", f"needs a test_dataloader, and {type(loaded).__name__} has none", True)
    if isinstance(data, Datasets):
        data.check_test()


def notes_on(module: LightningModule, data: LightningDataModule) -> list[str]:
    """Lines for the plan: the methods of the user's module that are not used, and the notes of the data."""
    name, notes = type(module).__name__, []
    if type(module).configure_optimizers is not LightningModule.configure_optimizers:
        notes.append(f"{name}.configure_optimizers is replaced by this plan")
    if not isinstance(data, ModuleLoaders) and is_overridden("train_dataloader", module):
        notes.append(f"{name}.train_dataloader is not used, because data is set; data=module uses it")
    return [*notes, *(data.notes if isinstance(data, InMemoryData) else ())]

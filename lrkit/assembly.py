"""From the nodes of a config to the objects that train: data, module, callbacks, trainer; and the exact plan."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lrkit import config as configs
from lrkit import trusted
from lrkit.data import InMemoryData
from lrkit.errors import ConfigError
from lrkit.lean import Unprofiled
from lrkit.lightning import (
    PACKAGE,
    Callback,
    GradientAccumulationScheduler,
    LightningDataModule,
    LightningModule,
    MisconfigurationException,
    Trainer,
    __version__,
)
from lrkit.module import Supervised
from lrkit.plan import Plan

__all__ = [
    "callbacks_of",
    "counted_plan",
    "data_of",
    "exact_plan",
    "hush_lightning",
    "module_of",
    "notes_on",
    "optimizer_of",
    "trainer_of",
    "why_unfused",
]

#: The releases of Lightning whose loop ``lrkit.leanloop`` was compared with.
LEAN_UNDER = ("2.6.0", "2.6.1", "2.6.4", "2.6.5", "2.6.6")


def exact_plan(config: Mapping[str, Any], trainer: Trainer, declared: Plan | None, notes: list[str]) -> Plan:
    """The plan by what the trainer found, which must be what was declared, and what the trainer will do."""
    plan = counted_plan(config, trainer, notes)
    steps = trainer.estimated_stepping_batches
    finite = steps != float("inf") and steps > 0
    if finite and plan.horizon.steps != steps:
        raise ConfigError(
            "horizon.steps", f"must be what the run will take, {int(steps)} optimizer steps", plan.horizon.steps
        )
    if declared is not None and declared.horizon != plan.horizon:
        was, now = declared.horizon, plan.horizon
        raise ConfigError(
            "data.train_samples",
            f"does not match the data: {was.steps} steps ({was.steps_per_epoch} an epoch) were planned,"
            f" {now.steps} ({now.steps_per_epoch}) are there",
            config["data"].get("train_samples"),
        )
    return plan


def counted_plan(config: Mapping[str, Any], trainer: Trainer, notes: Sequence[str] = ()) -> Plan:
    """The plan of ``config`` by what the trainer, its own or another's, found: batches, devices, accumulation."""
    try:
        if trainer.train_dataloader is None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Total length of .* is zero")  # which is refused here
                trainer.fit_loop.setup_data()
    except MisconfigurationException as error:
        raise _refused(error, config["trainer"]) from error
    except TypeError as error:
        if "invalid dataloader" not in str(error):
            raise
        raise ConfigError("data", f"was refused by Lightning: {error}") from error
    batches = trainer.num_training_batches
    counted = None if batches == float("inf") else int(batches)
    if counted == 0:
        raise ConfigError("data", "has no batch to train on: it is empty, or drop_last leaves nothing of it")
    known = {**config, "data": {**config["data"], "batch_size": _batch_size(config, trainer)}}
    return configs.plan(known, world=trainer.world_size, batches=counted, notes=notes)


def _batch_size(config: Mapping[str, Any], trainer: Trainer) -> int | None:
    """Samples in a batch of one device: as configured, or as the loader of a foreign data module has it."""
    configured = config["data"].get("batch_size")
    if configured is not None:
        return int(configured)
    found = getattr(trainer.train_dataloader, "batch_size", None)
    return found if isinstance(found, int) else None


def data_of(config: Mapping[str, Any]) -> LightningDataModule | None:
    """The data module; None where the module of the model has loaders of its own (``data=module``).

    What only lrkit needs to know of a foreign one is not passed on to it.
    """
    node = config["data"]
    trust = config.get("trust", ())
    if node.get(trusted.TARGET) is None:
        return None
    made = trusted.resolve(node.get("_target_"), "data._target_", trust)
    accepted = _check_custom("data", made, node)
    for_lrkit = {"batch_size", "train_samples", "drop_last", "targets"} - accepted
    unset = {name for name in ("batch_size", "train_samples", "targets") if node.get(name) is None}
    data = configs.build({k: v for k, v in node.items() if k not in for_lrkit | unset}, "data", trust)
    assert isinstance(data, LightningDataModule)
    return data


def _check_custom(group: str, made: Any, node: Mapping[str, Any]) -> frozenset[str]:
    """The names that a class accepts; an error for one of the user's own among the keys of an option of lrkit's."""
    try:
        parameters = inspect.signature(made).parameters
    except (TypeError, ValueError):  # refused when it is built
        return frozenset()
    accepted, anything = frozenset(parameters), any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    theirs = not str(made.__module__).startswith("lrkit.")
    left = {"data": ("seed", "drop_last"), "model": ("inputs", "outputs")}[group]
    if theirs and not anything and any(node.get(name) is not None and name not in accepted for name in left):
        must = f"must be custom for a class of yours, which takes no other keys than its own: add {group}=custom"
        raise ConfigError(group, must, node[trusted.TARGET])
    return accepted


def module_of(config: Mapping[str, Any], data: LightningDataModule | None) -> LightningModule:
    """The user's LightningModule as it is, or lrkit's own around their network."""
    node, trust = dict(config["model"]), config.get("trust", ())
    made = trusted.resolve(node.get(trusted.TARGET), "model._target_", trust)
    accepted = _check_custom("model", made, node)
    axis = node.pop("class_axis", None) if "class_axis" not in accepted else None
    if any(node.get(name) == "auto" for name in ("inputs", "outputs")):
        if data is not None:
            data.prepare_data()
            data.setup("fit")
        for name in ("inputs", "outputs"):
            if node.get(name) == "auto":
                if not hasattr(data, name):
                    said = "data=module" if data is None else type(data).__name__
                    raise ConfigError(f"model.{name}", f"must be set: {said} does not say it", "auto")
                node[name] = getattr(data, name)
    model = configs.build(node, "model", trust)
    if isinstance(model, LightningModule):
        if type(model).training_step is LightningModule.training_step:
            raise ConfigError("model._target_", "must have a training_step", node["_target_"])
        if data is None and type(model).train_dataloader is LightningModule.train_dataloader:
            must = "must have a train_dataloader for data=module, which takes the module's own loaders"
            raise ConfigError("model._target_", must, node["_target_"])
        if axis is not None:
            must = "must be null for a LightningModule, which has a loss of its own"
            raise ConfigError("model.class_axis", must, axis)
        return model
    for name in ("training_step", "configure_optimizers"):
        if hasattr(model, name):  # never to be taken for a mere network: its own loss would not be trained
            must = f"has a {name}, but is not a LightningModule of {PACKAGE}: inherit from that, or remove {name}"
            raise ConfigError("model._target_", must, node["_target_"])
    assert isinstance(model, nn.Module)
    if data is None:
        must = "must be something else for a plain network: only a LightningModule can have loaders of its own"
        raise ConfigError("data", must, "module")
    loss = _loss(config["data"], data)
    classes = getattr(data, "outputs", None) if loss == "cross_entropy" else None
    return Supervised(model, loss, axis, classes if isinstance(classes, int) else None)


def _loss(node: Mapping[str, Any], data: LightningDataModule) -> str | None:
    """The loss for targets: as the config says it, or the data; None where neither does."""
    said = None if "targets" in inspect.signature(type(data)).parameters else node.get("targets")
    if said not in (None, "classes", "numbers"):
        raise ConfigError("data.targets", "must be classes or numbers, or null", said)
    loss: str | None = getattr(data, "loss", None)
    return loss if said is None else {"classes": "cross_entropy", "numbers": "mse"}[said]


def notes_on(module: LightningModule, data: LightningDataModule | None) -> list[str]:
    """What is not done as the user's own code has it, or was concluded from their data: lines for the plan."""
    name, notes = type(module).__name__, []
    if type(module).configure_optimizers is not LightningModule.configure_optimizers:
        notes.append(f"{name}.configure_optimizers is replaced by this plan")
    if data is not None and type(module).train_dataloader is not LightningModule.train_dataloader:
        notes.append(f"{name}.train_dataloader is not used, for there is other data; data=module uses it")
    return [*notes, *(data.notes if isinstance(data, InMemoryData) else ())]


def callbacks_of(config: Mapping[str, Any]) -> list[Callback]:
    """The user's own callbacks."""
    callbacks: list[Callback] = []
    for name, node in config["callbacks"].items():
        callback = configs.build(node, f"callbacks.{name}", config.get("trust", ()))
        if isinstance(callback, GradientAccumulationScheduler):
            raise ConfigError(
                f"callbacks.{name}", "changes accumulation during the run, so no step count can be planned:"
                " use trainer.accumulate_grad_batches", "GradientAccumulationScheduler"
            )  # fmt: skip
        assert isinstance(callback, Callback)
        callbacks.append(callback)
    return callbacks


def optimizer_of(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The class path of the optimizer, and its options but the rate."""
    node = config["optimizer"]
    return str(node["_target_"]), {name: value for name, value in node.items() if name not in ("_target_", "lr")}


def trainer_of(options: Mapping[str, Any], **own: Any) -> Trainer:
    """A trainer by the node ``trainer``, and what lrkit adds to it; refusals are named by their key."""
    lean = {"profiler": Unprofiled()} if options.get("profiler") is None else {}
    try:
        trainer = Trainer(**{**options, **lean, **own})
    except (MisconfigurationException, ImportError, ValueError, TypeError, RuntimeError) as error:
        raise _refused(error, options) from error
    if lean and PACKAGE == "pytorch_lightning" and __version__ in LEAN_UNDER:
        from lrkit import leanloop  # it is made of what is private to Lightning, and may be gone tomorrow

        leanloop.install(trainer)
    return trainer


def _refused(error: Exception, trainer: Mapping[str, Any]) -> ConfigError:
    """What Lightning refused, under the key that its message speaks of."""
    text = str(error).splitlines()[0].rstrip(".")
    if "limit_train_batches" in text:
        return ConfigError("trainer.limit_train_batches", "leaves none of the batches", trainer["limit_train_batches"])
    named = [name for name in trainer if name in text]
    return ConfigError(f"trainer.{named[0]}" if len(named) == 1 else "trainer", f"was refused by Lightning: {text}")


def why_unfused(trainer: Mapping[str, Any]) -> str | None:
    if trainer.get("gradient_clip_val") and str(trainer.get("precision")) in ("16", "16-mixed"):
        return "Lightning does not clip gradients of a fused optimizer under 16-mixed"
    return None


def hush_lightning() -> None:
    """Keep Lightning's announcements off the screen; its warnings stay."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "The number of training batches .* is smaller than the logging interval",  # lrkit sets the interval itself
        r".*isinstance\(treespec, LeafSpec\)",  # between Lightning and torch
        "Checkpoint directory .* exists and is not empty",  # it belongs to the run that is gone on with
        "The dirpath has changed",  # it does, when a run branches off
    ):
        warnings.filterwarnings("ignore", message)

"""Builds the objects of a training from a config: data, module, callbacks, trainer; and the exact plan."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from lrkit.base.errors import ConfigError
from lrkit.base.metric_names import higher_is_better
from lrkit.config import compose as configs
from lrkit.config import declared_steps, trusted_targets
from lrkit.config.callback_conflicts import find_conflict
from lrkit.data.count_checks import check_declared_counts, check_evaluation_shares
from lrkit.data.in_memory import InMemoryData, ModuleLoaders
from lrkit.data.torch_datasets import Datasets
from lrkit.lightning.accumulation_windows import count_steps
from lrkit.lightning.imports import (
    PACKAGE,
    Callback,
    LightningDataModule,
    LightningModule,
    MisconfigurationException,
    Trainer,
    is_overridden,
)
from lrkit.lightning.module import TrackSetup, clipping_needs_unfused
from lrkit.lightning.replicas import count_replicas
from lrkit.lightning.sharding import check_sharding
from lrkit.lightning.step_count_check import uses_manual_optimization
from lrkit.lightning.supervised import Supervised
from lrkit.lightning.trainer_objects import check_trainer, name_key, trainer_of
from lrkit.optim import factory
from lrkit.planning import optimizer_tracks
from lrkit.planning.plan import Plan
from lrkit.schedules.batch_sizes import KEY as SCHEDULE
from lrkit.schedules.durations import Duration

__all__ = [
    "callbacks_of",
    "check_model_sizes",
    "check_shards",
    "check_test",
    "check_trainer",
    "counted_plan",
    "data_node",
    "data_of",
    "exact_plan",
    "module_of",
    "notes_on",
    "optimizer_of",
    "silence_lightning",
    "tracks_of",
    "trainer_of",
    "why_unfused",
]


def exact_plan(config: Mapping[str, Any], trainer: Trainer, declared: Plan | None, notes: list[str]) -> Plan:
    """The plan with the trainer's counts of batches.

    Raises:
        ConfigError: it differs from the declared plan, or from the number of steps that the trainer will take.
    """
    declared_keys = [name for name in ("steps", "steps_per_epoch") if config["horizon"].get(name) is not None]
    if declared_keys and not config[optimizer_tracks.KEY] and uses_manual_optimization(trainer.lightning_module):
        return _plan_of_declared_steps(config, trainer, notes)
    plan = counted_plan(config, trainer, notes)
    check_declared_counts(config, trainer)
    steps, stop = count_steps(trainer, plan.horizon), plan.horizon.stop_after
    finite = steps != float("inf") and steps > 0
    if finite and stop is not None and config["horizon"].get("steps") is not None:  # of it a part is taken here
        if stop > steps:
            must = f"must be at most {int(steps)}, the number of optimizer steps that the trainer takes"
            raise ConfigError("horizon.stop_after", must, stop)
    elif finite and plan.horizon.steps != steps:
        raise declared_steps.refuse(int(steps), plan.horizon.steps)
    if declared is not None and declared.horizon != plan.horizon:
        planned, counted = declared.horizon, plan.horizon
        epochs = planned.steps_after_epochs(1), counted.steps_after_epochs(1)
        raise ConfigError(
            "data.train_samples",
            f"does not match the data: the plan has {planned.steps} steps ({epochs[0]} an epoch),"
            f" the data have {counted.steps} ({epochs[1]})",
            config["data"].get("train_samples"),
        )
    return plan


def _plan_of_declared_steps(config: Mapping[str, Any], trainer: Trainer, notes: Sequence[str]) -> Plan:
    """The plan of a module with manual optimization, by the declared number of steps, divided among the epochs."""
    horizon, epochs = config["horizon"], config["trainer"].get("max_epochs") or -1
    if horizon.get("steps_per_epoch") is not None or epochs < 1 or config["batch"].get("schedule") is not None:
        return counted_plan(config, trainer, notes)
    if isinstance(horizon["steps"], str) and Duration.parse(horizon["steps"], "horizon.steps").unit == "epochs":
        must = f"must be set: horizon.steps is {horizon['steps']}, and the module decides how many steps an epoch has"
        raise ConfigError("horizon.steps_per_epoch", must)
    steps = counted_plan(config, trainer, notes).horizon.require("steps", "horizon.steps")
    per_epoch, rest = divmod(steps, epochs)
    plan, other = (
        counted_plan({**config, "horizon": {**horizon, "steps_per_epoch": number}}, trainer, notes)
        for number in (max(per_epoch, 1), per_epoch + 1)
    )
    curves = [(each.curve, each.momentum, each.decay_curve, each.group_curves) for each in (plan, other)]
    if rest and curves[0] != curves[1]:
        must = f"must be set: a length is in epochs, and {steps} steps do not divide by {epochs} epochs"
        raise ConfigError("horizon.steps_per_epoch", must)
    return plan


def counted_plan(config: Mapping[str, Any], trainer: Trainer, notes: Sequence[str] = ()) -> Plan:
    """The plan of ``config`` with the counts of a trainer, which may be another one: batches, devices, accumulation."""
    try:
        if trainer.train_dataloader is None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Total length of .* is zero")  # it is refused here
                trainer.fit_loop.setup_data()
    except MisconfigurationException as error:
        raise name_key(error, config["trainer"]) from error
    except TypeError as error:
        if "invalid dataloader" not in str(error):
            raise
        raise ConfigError("data", f"was refused by Lightning: {error}") from error
    batches = trainer.num_training_batches
    counted = None if batches == float("inf") else int(batches)
    if counted == 0:
        raise ConfigError("data", "must have a batch to train on: it is empty, or drop_last drops its only batch")
    check_evaluation_shares(config, trainer)
    known = {**config, "data": {**config["data"], "batch_size": _batch_size(config, trainer)}}
    return configs.plan(known, world=count_replicas(trainer), batches=counted, notes=notes)


def _batch_size(config: Mapping[str, Any], trainer: Trainer) -> int | None:
    """The number of samples in a batch of one device: of the config, or of the loader of the user's data module."""
    configured = config["data"].get("batch_size")
    if configured is not None:
        return int(configured)
    found = getattr(trainer.train_dataloader, "batch_size", None)
    return found if isinstance(found, int) else None


def data_of(config: Mapping[str, Any]) -> LightningDataModule:
    """The data module of a config."""
    data = configs.build(data_node(config), "data", config.get("trust", ()))
    assert isinstance(data, LightningDataModule)
    return data


def data_node(config: Mapping[str, Any]) -> dict[str, Any]:
    """The node ``data`` for its class. Options that only lrkit reads are not passed to a class of the user."""
    node = config["data"]
    trust = config.get("trust", ())
    cls = trusted_targets.resolve_class(node.get("_target_"), "data._target_", trust)
    for_lrkit = {"batch_size", "train_samples", "drop_last", "targets", "class_axis"} - _accepted_arguments(cls)
    unset = {name for name in ("batch_size", "train_samples", "targets", "class_axis") if node.get(name) is None}
    return {k: v for k, v in node.items() if k not in for_lrkit | unset}


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
        if node.get(name) == "auto" and is_custom and not _accepted_arguments(cls) & {name, "kwargs"}:
            raise ConfigError(f"model.{name}", _OWN_SIZES)
    return is_custom


def _build_supervised(model: nn.Module, node: Mapping[str, Any], data: LightningDataModule) -> Supervised:
    """lrkit's module around a network, with the targets of the config and the data."""
    accepted = _accepted_arguments(type(data))
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


def notes_on(module: LightningModule, data: LightningDataModule) -> list[str]:
    """Lines for the plan: the methods of the user's module that are not used, and the notes of the data."""
    name, notes = type(module).__name__, []
    if type(module).configure_optimizers is not LightningModule.configure_optimizers:
        notes.append(f"{name}.configure_optimizers is replaced by this plan")
    if not isinstance(data, ModuleLoaders) and is_overridden("train_dataloader", module):
        notes.append(f"{name}.train_dataloader is not used, because data is set; data=module uses it")
    return [*notes, *(data.notes if isinstance(data, InMemoryData) else ())]


def _accepted_arguments(cls: Any) -> frozenset[str]:
    """The names of the arguments of a class or a function."""
    try:
        return frozenset(inspect.signature(cls).parameters)
    except (TypeError, ValueError):  # building it will raise an error
        return frozenset()


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


def callbacks_of(config: Mapping[str, Any], folder: Path | None = None) -> list[Callback]:
    """The user's own callbacks, with values in place of auto; ``folder`` is the run's, for their files."""
    callbacks: list[Callback] = []
    for name, node in config["callbacks"].items():
        callback = configs.build(
            {**node, **_complete_callback(node, folder)}, f"callbacks.{name}", config.get("trust", ())
        )
        if (why := find_conflict(type(callback))) is not None:
            raise ConfigError(f"callbacks.{name}", why, type(callback).__name__)
        assert isinstance(callback, Callback)
        callbacks.append(callback)
    return callbacks


def _complete_callback(node: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """The options of Lightning's callbacks that are auto. A metric that is auto is known after a validation."""
    own: dict[str, Any] = {}
    if str(node.get("_target_")).rpartition(".")[2] in ("EarlyStopping", "ModelCheckpoint"):
        if node.get("mode") == "auto":
            own["mode"] = "max" if higher_is_better(str(node.get("monitor"))) else "min"
        if node.get("dirpath") == "auto":
            own["dirpath"] = None if folder is None else str(folder / "checkpoints")
    return own


def optimizer_of(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The class path of the optimizer, and its options without the rate."""
    node = config["optimizer"]
    return str(node["_target_"]), {name: value for name, value in node.items() if name not in ("_target_", "lr")}


def tracks_of(config: Mapping[str, Any]) -> list[TrackSetup]:
    """The setup of each of several optimizers; empty for a run with one."""
    setups = []
    for track in optimizer_tracks.parse_tracks(config[optimizer_tracks.KEY]):
        own = track.config(config)
        target, options = optimizer_of(own)
        with track.naming():
            factory.check_optimizer(target, options)
        setups.append(TrackSetup(track, target, options, own["param_groups"]))
    return setups


def check_shards(config: Mapping[str, Any]) -> None:
    """Refuse optimizers and checkpoints that the strategy of a config, if it divides the parameters, does not allow."""
    tracks = optimizer_tracks.parse_tracks(config[optimizer_tracks.KEY])
    nodes = {f"{each.key}.optimizer": each.config(config)["optimizer"] for each in tracks}
    targets = {key: str(node["_target_"]) for key, node in (nodes or {"optimizer": config["optimizer"]}).items()}
    check_sharding(config["trainer"], targets, config.get("trust", ()))


def why_unfused(trainer: Mapping[str, Any]) -> str | None:
    """Why a run must not use a fused optimizer, by the options of its trainer."""
    return clipping_needs_unfused(trainer.get("gradient_clip_val"), trainer.get("precision"))


def silence_lightning() -> None:
    """Silence Lightning's info messages; its warnings stay."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(f"{PACKAGE}.profilers").setLevel(logging.INFO)  # the report of a profiler of the config
    for message in (
        "The number of training batches .* is smaller than the logging interval",  # lrkit sets the interval itself
        r".*isinstance\(treespec, LeafSpec\)",  # between Lightning and torch
        "Checkpoint directory .* exists and is not empty",  # in a resumed run it does
        "Experiment logs directory .* exists and is not empty",  # of CSVLogger: the run's folder, and its own file
        "The dirpath has changed",  # in a run that branches off it does
    ):
        warnings.filterwarnings("ignore", message)

"""From the nodes of a config to the objects that train: data, module, callbacks, trainer; and the exact plan."""

from __future__ import annotations

import inspect
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from lrkit.base.errors import ConfigError
from lrkit.base.launcher import detect_launch
from lrkit.config import compose as configs
from lrkit.config import instantiate, trusted_targets
from lrkit.config.callback_conflicts import conflict_of
from lrkit.data.in_memory import InMemoryData, ModuleLoaders
from lrkit.lightning.callback_list import NoProfiler
from lrkit.lightning.classes import (
    PACKAGE,
    Callback,
    ClusterEnvironment,
    KubeflowEnvironment,
    LightningDataModule,
    LightningEnvironment,
    LightningModule,
    MisconfigurationException,
    MPIEnvironment,
    Strategy,
    Trainer,
    is_overridden,
)
from lrkit.lightning.module import TrackSetup, clipping_needs_unfused
from lrkit.lightning.replicas import count_replicas
from lrkit.lightning.step_count import uses_manual_optimization
from lrkit.lightning.supervised import Supervised
from lrkit.optim import factory
from lrkit.planning import tracks
from lrkit.planning.plan import Plan

__all__ = [
    "callbacks_of",
    "check_trainer",
    "counted_plan",
    "data_of",
    "exact_plan",
    "hush_lightning",
    "module_of",
    "notes_on",
    "optimizer_of",
    "tracks_of",
    "trainer_of",
    "use_objects",
    "why_unfused",
]


def exact_plan(config: Mapping[str, Any], trainer: Trainer, declared: Plan | None, notes: list[str]) -> Plan:
    """The plan by what the trainer found, which must be what was declared, and what the trainer will do."""
    said = [name for name in ("steps", "steps_per_epoch") if config["horizon"].get(name) is not None]
    if said and not config[tracks.KEY] and uses_manual_optimization(trainer.lightning_module):
        return _said_plan(config, trainer, notes)
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


def _said_plan(config: Mapping[str, Any], trainer: Trainer, notes: Sequence[str]) -> Plan:
    """The plan of a module that steps when it likes, in as many steps as were said: an epoch has its share of them."""
    horizon, epochs = config["horizon"], config["trainer"].get("max_epochs") or -1
    if horizon.get("steps_per_epoch") is not None or epochs < 1:
        return counted_plan(config, trainer, notes)
    each, left = divmod(horizon["steps"], epochs)
    plan, other = (
        counted_plan({**config, "horizon": {**horizon, "steps_per_epoch": number}}, trainer, notes)
        for number in (max(each, 1), each + 1)
    )
    if left and (plan.curve, plan.momentum, plan.decay_curve) != (other.curve, other.momentum, other.decay_curve):
        must = f"must be set, for a length is in epochs, and {horizon['steps']} steps do not divide by {epochs} epochs"
        raise ConfigError("horizon.steps_per_epoch", must)
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
    return configs.plan(known, world=count_replicas(trainer), batches=counted, notes=notes)


def _batch_size(config: Mapping[str, Any], trainer: Trainer) -> int | None:
    """Samples in a batch of one device: as configured, or as the loader of a foreign data module has it."""
    configured = config["data"].get("batch_size")
    if configured is not None:
        return int(configured)
    found = getattr(trainer.train_dataloader, "batch_size", None)
    return found if isinstance(found, int) else None


_given: dict[str, Any] = {}  # objects of the caller's


@contextmanager
def use_objects(module: LightningModule | None, data: LightningDataModule | None) -> Iterator[None]:
    """Within it, ``module_of`` and ``data_of`` return these objects, where they are not None."""
    before = dict(_given)
    _given.update({name: each for name, each in (("module", module), ("data", data)) if each is not None})
    try:
        yield
    finally:
        _given.clear()
        _given.update(before)


def data_of(config: Mapping[str, Any]) -> LightningDataModule:
    """The data module; what only lrkit needs to know of a foreign one is not passed on to it."""
    if "data" in _given:
        given: LightningDataModule = _given["data"]
        return given
    node = config["data"]
    trust = config.get("trust", ())
    made = trusted_targets.resolve_class(node.get("_target_"), "data._target_", trust)
    for_lrkit = {"batch_size", "train_samples", "drop_last", "targets", "class_axis"} - _accepted(made)
    unset = {name for name in ("batch_size", "train_samples", "targets", "class_axis") if node.get(name) is None}
    data = configs.build({k: v for k, v in node.items() if k not in for_lrkit | unset}, "data", trust)
    assert isinstance(data, LightningDataModule)
    return data


def module_of(config: Mapping[str, Any], data: LightningDataModule) -> LightningModule:
    """The user's LightningModule as it is, or lrkit's own around their network."""
    node = config["model"]
    model = _given["module"] if "module" in _given else _built_model(config, data)
    if isinstance(model, LightningModule):
        if type(model).training_step is LightningModule.training_step:
            raise ConfigError("model._target_", "must have a training_step", node["_target_"])
        if isinstance(data, ModuleLoaders) and not is_overridden("train_dataloader", model):
            must = f"needs a model with loaders of its own, and {type(model).__name__} has no train_dataloader"
            raise ConfigError("data=module", must)
        if not model.automatic_optimization:
            _check_left_to_the_module(config, type(model).__name__)
        return model
    for name in ("training_step", "configure_optimizers"):
        if hasattr(model, name):  # never to be taken for a mere network: its own loss would not be trained
            must = f"has a {name}, but is not a LightningModule of {PACKAGE}: inherit from that, or remove {name}"
            raise ConfigError("model._target_", must, node["_target_"])
    assert isinstance(model, nn.Module)
    if isinstance(data, ModuleLoaders):
        raise ConfigError("data=module", "needs a model with loaders of its own, and a plain network has none")
    return _supervised(model, config["data"], data)


def _built_model(config: Mapping[str, Any], data: LightningDataModule) -> Any:
    """What the node ``model`` describes, with the sizes that the data say where it leaves them to them."""
    node = dict(config["model"])
    made = trusted_targets.resolve_class(node.get(trusted_targets.TARGET), "model._target_", config.get("trust", ()))
    theirs = not str(made.__module__).startswith("lrkit.")
    alien = "is for lrkit's own networks: with one of yours say model=custom too"
    for name in ("inputs", "outputs"):
        if node.get(name) == "auto" and theirs and not _accepted(made) & {name, "kwargs"}:
            raise ConfigError(f"model.{name}", alien)  # before any data is read
    if any(node.get(name) == "auto" for name in ("inputs", "outputs")):
        data.prepare_data()
        data.setup("fit")
        for name in ("inputs", "outputs"):
            if node.get(name) == "auto":
                if not hasattr(data, name):
                    if theirs:
                        raise ConfigError(f"model.{name}", alien)
                    raise ConfigError(f"model.{name}", f"must be set: {type(data).__name__} does not say it", "auto")
                node[name] = getattr(data, name)
    return configs.build(node, "model", config.get("trust", ()))


def _supervised(model: nn.Module, node: Mapping[str, Any], data: LightningDataModule) -> Supervised:
    """lrkit's module around a network, by what the config and the data say of the targets."""
    theirs = _accepted(type(data))
    said = {name: node.get(name) for name in ("targets", "class_axis") if name not in theirs}
    loss: str | None = getattr(data, "loss", None)
    if said.get("targets") is not None:
        losses = {"classes": "cross_entropy", "numbers": "mse"}
        if said["targets"] not in losses:
            raise ConfigError("data.targets", "must be classes or numbers, or null", said["targets"])
        loss = losses[said["targets"]]
    outputs = getattr(data, "outputs", None)
    classes = outputs if loss == "cross_entropy" and type(outputs) is int else None
    usual = getattr(data, "class_axis", None)
    return Supervised(model, loss, said.get("class_axis"), usual_axis=usual, classes=classes)


def notes_on(module: LightningModule, data: LightningDataModule) -> list[str]:
    """What is not done as the user's own code has it, or was concluded from their data: lines for the plan."""
    name, notes = type(module).__name__, []
    if type(module).configure_optimizers is not LightningModule.configure_optimizers:
        notes.append(f"{name}.configure_optimizers is replaced by this plan")
    if not isinstance(data, ModuleLoaders) and is_overridden("train_dataloader", module):
        notes.append(f"{name}.train_dataloader is not used, for there is other data; data=module uses it")
    return [*notes, *(data.notes if isinstance(data, InMemoryData) else ())]


def _accepted(made: Any) -> frozenset[str]:
    """The names of the arguments that a class or a function takes."""
    try:
        return frozenset(inspect.signature(made).parameters)
    except (TypeError, ValueError):  # it will be refused when it is built
        return frozenset()


def _check_left_to_the_module(config: Mapping[str, Any], name: str) -> None:
    """Refuse what Lightning does only where it takes the optimizer step itself."""
    trainer, effective = config["trainer"], config["batch"].get("effective")
    own = f"is for modules whose steps Lightning takes, and {name} takes its own (manual optimization)"
    accumulates = (trainer.get("accumulate_grad_batches") or 1) > 1
    if accumulates or (effective is not None and configs.accumulation(config, configs.replicas_of(trainer)[0]) > 1):
        key, value = ("batch.effective", effective) if not accumulates else (
            "trainer.accumulate_grad_batches", trainer["accumulate_grad_batches"]
        )  # fmt: skip
        raise ConfigError(key, f"{own}: accumulate there, and say how many steps that makes by horizon.steps", value)
    if trainer.get("gradient_clip_val"):
        must = f"{own}: it has self.clip_gradients(optimizer, gradient_clip_val=...)"
        raise ConfigError("trainer.gradient_clip_val", must, trainer["gradient_clip_val"])


def callbacks_of(config: Mapping[str, Any]) -> list[Callback]:
    """The user's own callbacks."""
    callbacks: list[Callback] = []
    for name, node in config["callbacks"].items():
        callback = configs.build(node, f"callbacks.{name}", config.get("trust", ()))
        if (why := conflict_of(type(callback))) is not None:
            raise ConfigError(f"callbacks.{name}", why, type(callback).__name__)
        assert isinstance(callback, Callback)
        callbacks.append(callback)
    return callbacks


def optimizer_of(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The class path of the optimizer, and its options but the rate."""
    node = config["optimizer"]
    return str(node["_target_"]), {name: value for name, value in node.items() if name not in ("_target_", "lr")}


def tracks_of(config: Mapping[str, Any]) -> list[TrackSetup]:
    """What each of several optimizers needs; empty for a run with one."""
    wirings = []
    for track in tracks.parse_tracks(config[tracks.KEY]):
        own = track.config(config)
        target, options = optimizer_of(own)
        with track.naming():
            factory.check_optimizer(target, options)
        wirings.append(TrackSetup(track, target, options, own["param_groups"]))
    return wirings


def check_trainer(config: Mapping[str, Any]) -> None:
    """Refuse what the node ``trainer`` names and lrkit does not build, before there is data."""
    for key, node in _objects(config["trainer"]):
        instantiate.check(node, key, config.get("trust", ()))


#: Options for which Lightning has a default and takes no null.
_NEVER_NULL = ("max_steps", "overfit_batches", "reload_dataloaders_every_n_epochs")


def _objects(trainer: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of the node ``trainer``, by their keys."""
    for name in ("strategy", "plugins", "profiler"):
        value = trainer.get(name)
        for i, node in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(node, Mapping):
                yield f"trainer.{name}[{i}]" if isinstance(value, list) else f"trainer.{name}", node


def trainer_of(options: Mapping[str, Any], trust: Sequence[str] = (), **own: Any) -> Trainer:
    """A trainer by the node ``trainer``, and what lrkit adds to it; refusals are named by their key."""
    unset = {name for name in _NEVER_NULL if options.get(name) is None}
    options = {name: value for name, value in options.items() if name not in unset}
    built: dict[str, Any] = {key: configs.build(node, key, trust) for key, node in _objects(options)}
    plugins = options.get("plugins") or []
    plugins = [built.get(f"trainer.plugins[{i}]", each) for i, each in enumerate(plugins)] if isinstance(
        plugins, list) else [built.get("trainer.plugins", plugins)]  # fmt: skip
    objects = {name: built[f"trainer.{name}"] for name in ("strategy", "profiler") if f"trainer.{name}" in built}
    if not any(isinstance(each, ClusterEnvironment) for each in plugins):
        plugins += _environment(objects.get("strategy"))
    unprofiled = {"profiler": NoProfiler()} if options.get("profiler") is None else {}
    try:
        trainer = Trainer(**{**options, **objects, **unprofiled, **own, "plugins": plugins or None})
    except (MisconfigurationException, ImportError, ValueError, TypeError, RuntimeError) as error:
        raise _refused(error, options) from error
    launcher = trainer.strategy.launcher
    if launcher is not None and hasattr(launcher, "_start_method"):  # a notebook's default, or a strategy of the user's
        must = "must start its processes anew, not as copies of this one: use trainer.strategy=ddp in a script"
        raise ConfigError("trainer.strategy", must, launcher._start_method)
    return trainer


def _environment(strategy: Strategy | None) -> list[ClusterEnvironment]:
    """Who has started the processes, where Lightning would not see it, or would take an allocation for a launch."""
    if getattr(strategy, "cluster_environment", None) is not None:
        return []
    launch = detect_launch()
    if launch is not None and launch.by == "Kubeflow":
        return [KubeflowEnvironment()]
    if launch is not None and launch.by == "mpirun":
        return [MPIEnvironment()]
    if (launch is None or launch.by == "a launcher") and "SLURM_NTASKS" in os.environ:
        return [LightningEnvironment()]
    return []


def _refused(error: Exception, trainer: Mapping[str, Any]) -> ConfigError:
    """What Lightning refused, under the key that its message speaks of."""
    text = str(error).splitlines()[0].rstrip(".")
    if "limit_train_batches" in text:
        return ConfigError("trainer.limit_train_batches", "leaves none of the batches", trainer["limit_train_batches"])
    named = [name for word in re.findall(r"\w+", text) for name in trainer if name == word]
    # A sentence about two keys begins with the one that is wrong.
    return ConfigError(f"trainer.{named[0]}" if named else "trainer", f"was refused by Lightning: {text}")


def why_unfused(trainer: Mapping[str, Any]) -> str | None:
    """Why a run must not use a fused optimizer, by the options of its trainer."""
    return clipping_needs_unfused(trainer.get("gradient_clip_val"), trainer.get("precision"))


def hush_lightning() -> None:
    """Keep Lightning's announcements off the screen; its warnings stay."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(f"{PACKAGE}.profilers").setLevel(logging.INFO)  # a report that was asked for
    for message in (
        "The number of training batches .* is smaller than the logging interval",  # lrkit sets the interval itself
        r".*isinstance\(treespec, LeafSpec\)",  # between Lightning and torch
        "Checkpoint directory .* exists and is not empty",  # it belongs to the run that is gone on with
        "The dirpath has changed",  # it does, when a run branches off
    ):
        warnings.filterwarnings("ignore", message)

"""Builds the trainer and the objects that its node names; an error of Lightning names the key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.launcher_environment import detect_launch
from lrkit.config import instantiate, trainer_options
from lrkit.lightning.callback_list import NoProfiler
from lrkit.lightning.imports import (
    AcceleratorRegistry,
    ClusterEnvironment,
    KubeflowEnvironment,
    LightningEnvironment,
    MisconfigurationException,
    MPIEnvironment,
    Strategy,
    StrategyRegistry,
    Trainer,
)
from lrkit.lightning.matmul_precision import MatmulPrecision
from lrkit.lightning.sharding import check_sharding, with_one_file

__all__ = ["check_trainer", "is_about_batches", "name_key", "trainer_of"]


def check_trainer(config: Mapping[str, Any]) -> None:
    """Refuse what is wrong in the node ``trainer``, before data is read.

    Raises:
        ConfigError: an optimizer or checkpoints that a sharding strategy does not allow, a name that is not registered
            with Lightning, or an object that lrkit does not build.
    """
    if "optimizer" in config:  # a search by a caller's module has none, and refuses several processes
        check_sharding(config)
    names = {
        "accelerator": AcceleratorRegistry.available_accelerators(),
        "strategy": StrategyRegistry.available_strategies(),
    }
    trainer_options.check_registered(config["trainer"], names)
    for key, node in _find_objects(config["trainer"]):
        instantiate.check(node, key, config.get("trust", ()))


#: Options for which Lightning has a default and accepts no null.
_NEVER_NULL = ("max_steps", "overfit_batches", "reload_dataloaders_every_n_epochs")


def _find_objects(trainer: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of the node ``trainer``, by their keys."""
    for name in ("strategy", "plugins", "profiler"):
        value = trainer.get(name)
        for i, node in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(node, Mapping):
                yield f"trainer.{name}[{i}]" if isinstance(value, list) else f"trainer.{name}", node


def trainer_of(options: Mapping[str, Any], trust: Sequence[str] = (), **own: Any) -> Trainer:
    """A trainer with the options of the node ``trainer`` and of lrkit.

    Raises:
        ConfigError: Lightning refuses an option; the error names its key.
    """
    unset = {name for name in _NEVER_NULL if options.get(name) is None}
    options = {name: value for name, value in options.items() if name not in unset}
    if (precision := options.pop("matmul_precision", None)) is not None:  # an option of torch, not of the trainer
        own["callbacks"] = [*own.get("callbacks", ()), MatmulPrecision(precision)]
    if isinstance(options.get("strategy"), Mapping):
        options["strategy"] = with_one_file(options["strategy"], trust)
    built: dict[str, Any] = {key: instantiate.build(node, key, trust) for key, node in _find_objects(options)}
    plugins = options.get("plugins") or []
    plugins = [built.get(f"trainer.plugins[{i}]", each) for i, each in enumerate(plugins)] if isinstance(
        plugins, list) else [built.get("trainer.plugins", plugins)]  # fmt: skip
    objects = {name: built[f"trainer.{name}"] for name in ("strategy", "profiler") if f"trainer.{name}" in built}
    if not any(isinstance(each, ClusterEnvironment) for each in plugins):
        plugins += _choose_environment(objects.get("strategy"))
    # With barebones Lightning refuses any profiler.
    has_none = options.get("profiler") is None and not options.get("barebones")
    unprofiled = {"profiler": NoProfiler()} if has_none else {}
    try:
        trainer = Trainer(**{**options, **objects, **unprofiled, **own, "plugins": plugins or None})
    except (MisconfigurationException, ImportError, ValueError, TypeError, RuntimeError) as error:
        raise name_key(error, options) from error
    method = getattr(trainer.strategy.launcher, "_start_method", None)
    if method is not None:  # the default of a notebook, or a strategy of the user
        must = "must start its processes anew, not as copies of this one: use trainer.strategy=ddp in a script"
        raise ConfigError("trainer.strategy", must, method)
    return trainer


def _choose_environment(strategy: Strategy | None) -> list[ClusterEnvironment]:
    """The cluster environment, if Lightning would not detect it, or would take an allocation of SLURM for a launch."""
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


def is_about_batches(error: Exception) -> bool:
    """Whether an error of Lightning says that a limit leaves no batch, or cannot be applied to the data."""
    return str(error).startswith(("You requested to check", "When using an `IterableDataset`"))


def name_key(error: Exception, trainer: Mapping[str, Any]) -> ConfigError:
    """The ConfigError for an error of Lightning, with the key that its message names."""
    text = str(error).splitlines()[0].rstrip(".")
    if (limit := re.search(r"\blimit_(train|val|test)_batches\b", text)) and is_about_batches(error):
        name = "overfit_batches" if limit[1] != "test" and trainer.get("overfit_batches") else limit[0]
        must = "must leave at least one batch"
        if "IterableDataset" in text:
            must = "must be a number of batches, or null: a share needs data of a known length"
        return ConfigError(f"trainer.{name}", must, trainer.get(name))
    if text.startswith("No supported") and "backend" in text:
        return ConfigError("trainer.accelerator", "must be one that this machine has", trainer.get("accelerator"))
    named = [name for word in re.findall(r"\w+", text) for name in trainer if name == word]
    # A message about two keys begins with the wrong one.
    return ConfigError(f"trainer.{named[0]}" if named else "trainer", f"was refused by Lightning: {text}")

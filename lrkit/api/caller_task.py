"""The training of a module and data that the caller owns: each short run uses copies, and changes neither of them."""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from lrkit.api.arguments import RunParts
from lrkit.api.lightning_module import WithPlanCallbacks
from lrkit.base.errors import ConfigError
from lrkit.checkpoint.random_state import capture_global, capture_own, restore_global, restore_own
from lrkit.config import trainer_options
from lrkit.config.shipped_options import read_option
from lrkit.lightning.imports import Callback, LightningDataModule, LightningModule, Trainer, is_overridden
from lrkit.lightning.replicas import count_replicas
from lrkit.lightning.silenced_messages import silence_lightning
from lrkit.lightning.trainer_objects import check_trainer, trainer_of
from lrkit.lr_finder.short_run import OF_THE_RUN
from lrkit.planning.plan import Plan
from lrkit.schedules.horizon import LoaderSize, horizon_of

__all__ = ["CallerData", "CallerTask", "check_one_process", "read_trainer", "restoring_process_state"]

#: The environment variables in which Lightning stores the seed, and from which it reads it later.
_SEEDS = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
_LOGGERS = ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric")
_SEARCH_DEPTH = 4  # levels of attributes below a loader in which the search for generators looks


class CallerData:
    """The caller's loaders or data module. ``release`` restores their state after each use.

    Args:
        module: the module; its own loaders are used if no other argument gives data.
        train, val, datamodule: as for ``Trainer.fit``.
        batch_size: samples in a batch, if the loader has no ``batch_size``.
        tokens: tokens in a sample.

    Raises:
        ConfigError: no training data, or both a data module and loaders.
    """

    def __init__(
        self,
        module: Any,
        train: Any,
        val: Any,
        datamodule: LightningDataModule | None,
        batch_size: int | None,
        tokens: int | None = None,
    ) -> None:
        if isinstance(train, LightningDataModule) and datamodule is None:
            train, datamodule = None, train
        if datamodule is not None and (train is not None or val is not None):
            raise ConfigError("datamodule", "must be None beside train_dataloaders and val_dataloaders")
        if train is None and datamodule is None and not is_overridden("train_dataloader", module):
            raise ConfigError("train_dataloaders", f"must be given: {type(module).__name__} has no train_dataloader")
        self.train, self.val, self.datamodule, self.batch_size = train, val, datamodule, batch_size
        self.tokens = tokens
        self._used: LightningDataModule | None = None
        self._owners = dict(_list_state_owners({"train": train, "val": val, "datamodule": datamodule}, _SEARCH_DEPTH))
        self._random = capture_own(self._owners)
        self._plain = {name: _copy_plain_attributes(owner) for name, owner in self._owners.items()}

    def training(self) -> dict[str, Any]:
        """Return the arguments of ``Trainer.fit``, with a copy of the data module: ``setup`` changes only the copy."""
        if self.datamodule is None:
            return {"train_dataloaders": self.train, "val_dataloaders": self.val}
        self._used = copy.copy(self.datamodule)
        return {"datamodule": self._used}

    def validation(self) -> dict[str, Any]:
        """Return the arguments of ``Trainer.validate``, with the same copy."""
        return {"dataloaders": self.val} if self.datamodule is None else {"datamodule": self._used}

    def release(self) -> None:
        """Restore the generators, counters and iterators of the loaders."""
        self._used = None
        restore_own(self._owners, self._random)
        for name, owner in self._owners.items():
            for attribute, value in self._plain[name].items():
                if vars(owner).get(attribute) is not value:
                    vars(owner)[attribute] = value


@dataclass(frozen=True)
class CallerTask:
    """A training of the caller's objects (see ``lrkit.lr_finder.training_task.TrainingTask``).

    Args:
        original: the module; it is copied for each short run.
        data: the caller's loaders or data module.
        parts: the arguments of the plan; its base rate has no effect.
        trainer: the options of the run's trainer.
        user_callbacks: the callbacks of the run's trainer; each short run has copies.
        monitor: the metric that decides which short run is the best.
        seed: the seed of the random numbers.
    """

    original: LightningModule
    data: CallerData
    parts: RunParts
    trainer: Mapping[str, Any]
    user_callbacks: Sequence[Callback]
    monitor: str
    seed: int
    trust: tuple[str, ...] = ()

    @property
    def rules(self) -> Mapping[str, Any]:
        return self.parts.rules()

    def optimizer(self) -> tuple[str, dict[str, Any]]:
        return self.parts.target()

    def module(self) -> LightningModule:
        try:
            module = copy.deepcopy(self.original)
        except Exception as error:  # of any class: it comes from the part of the module that cannot be copied
            raise ConfigError("module", f"must be one that copy.deepcopy can copy: {error}") from error
        present = module.configure_callbacks
        original = present.original if isinstance(present, WithPlanCallbacks) else present

        def configure_callbacks() -> list[Callback]:
            made = original()
            listed = made if isinstance(made, Sequence) else [made]
            return [callback for callback in listed if not isinstance(callback, OF_THE_RUN)]

        module.configure_callbacks = configure_callbacks  # type: ignore[method-assign]
        return module

    def callbacks(self) -> list[Callback]:
        return [copy.deepcopy(each) for each in self.user_callbacks if not isinstance(each, OF_THE_RUN)]

    def training_data(self) -> dict[str, Any]:
        return self.data.training()

    def validation_data(self) -> dict[str, Any]:
        return self.data.validation()

    def plan(self, trainer: Trainer) -> Plan:
        if trainer.train_dataloader is None:
            trainer.fit_loop.setup_data()
        batches, size = trainer.num_training_batches, self.data.batch_size
        if batches == 0:
            raise ConfigError("train_dataloaders", "has no batch to train on: it is empty, or drop_last leaves none")
        if size is None:
            size = getattr(trainer.train_dataloader, "batch_size", None)
        counted = None if batches == float("inf") else int(batches)
        tokens = None if self.data.tokens is None else (self.data.tokens, "tokens_per_sample")
        loader = LoaderSize(None, size, tokens_per_sample=tokens)
        return self.parts.plan(horizon_of(loader, self.trainer, world=count_replicas(trainer), batches=counted))

    def with_seed(self, seed: int) -> CallerTask:
        return replace(self, seed=seed)

    def release(self) -> None:
        self.data.release()


def read_trainer(given: Mapping[str, Any] | None) -> tuple[dict[str, Any], list[Callback]]:
    """Return the options of a trainer, checked like the node ``trainer`` of the command, and its callbacks.

    Accelerators and strategies that the caller has registered with Lightning are accepted.

    Raises:
        ConfigError: an unknown option or name, a value out of range, or no length of the run.
    """
    options = dict(given or {})
    callbacks = options.pop("callbacks", None) or []
    for name in ("logger", "default_root_dir"):
        options.pop(name, None)  # a search logs nothing
    if options.get("max_epochs") is None and options.get("max_steps", -1) == -1:
        raise ConfigError("trainer", "must set the length of the run: trainer={'max_epochs': 20}", given)
    shipped = read_option("trainer", "default", "trainer")
    plain = {name: value for name, value in options.items() if _is_plain(value)}
    for name in plain:
        if name not in shipped:
            raise ConfigError(f"trainer.{name}", "is not a known option of Lightning's Trainer")
    trainer_options.check({**shipped, **plain}, has_packages=True)
    check_trainer({"trainer": plain})
    return {**shipped, "max_epochs": None, **options}, callbacks if isinstance(callbacks, list) else [callbacks]


def check_one_process(options: Mapping[str, Any]) -> None:
    """Refuse several processes: the caller's objects exist only in this one.

    Raises:
        ConfigError: the trainer starts more than one process.
    """
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    world = trainer_of({**options, **quiet}, logger=False).world_size
    if world > 1:
        raise ConfigError("trainer.devices", "must be 1: the copies of the module are trained in this process", world)


@contextmanager
def restoring_process_state() -> Iterator[None]:
    """Within this context Lightning prints nothing; at its end the global random numbers, seeds and log levels are
    restored.
    """
    random, seeds = capture_global(), {name: os.environ.get(name) for name in _SEEDS}
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        with warnings.catch_warnings():
            silence_lightning()
            warnings.filterwarnings("ignore", ".*does not have many workers")
            yield
    finally:
        restore_global(random)
        for name, value in seeds.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _list_state_owners(things: Mapping[str, Any], deep: int) -> Iterator[tuple[str, Any]]:
    """Yield the objects in ``things`` that may have generators and counters: loaders, samplers, datasets."""
    from torch import Tensor, nn

    for name, thing in things.items():
        if isinstance(thing, list | tuple | dict):
            inner = thing if isinstance(thing, dict) else dict(enumerate(thing))
            yield from _list_state_owners({f"{name}.{key}": each for key, each in list(inner.items())[:32]}, deep - 1)
        elif deep > 0 and hasattr(thing, "__dict__") and not isinstance(thing, type | nn.Module | Tensor | Trainer):
            yield name, thing
            yield from _list_state_owners({f"{name}.{key}": each for key, each in list(vars(thing).items())}, deep - 1)


def _copy_plain_attributes(owner: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(owner).items() if value is None or isinstance(value, int | float | str)}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | dict)

"""Strategies that divide the parameters among the processes: which optimizers and checkpoints they allow.

    ModelParallelStrategy (FSDP2)   a tensor of torch that knows its parts (``DTensor``): most optimizers train it
    FSDPStrategy, DeepSpeed         a flat part of the tensors: an optimizer that needs whole tensors would be wrong

A checkpoint in a folder, with a file of each process, describes its parts by a pickle. lrkit executes nothing from a
checkpoint, so it could not resume such a run, and refuses it before the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.config import trusted_targets
from lrkit.config.trusted_targets import TARGET
from lrkit.lightning.imports import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    Strategy,
    StrategyRegistry,
    Trainer,
)
from lrkit.planning.optimizer_tracks import KEY as TRACKS
from lrkit.planning.optimizer_tracks import parse_tracks
from lrkit.planning.optimizer_traits import option_name, refuses_shards, traits_of, uses_whole_tensors

__all__ = ["check_sharding", "is_sharded", "prepare_restoring", "with_one_file"]

#: The strategies that divide the parameters.
_SHARDING = (ModelParallelStrategy, FSDPStrategy, DeepSpeedStrategy)
_KEY = "trainer.strategy"
_FILES = "save_distributed_checkpoint"


def is_sharded(trainer: Trainer) -> bool:
    """Whether each process has only its own part of the gradients."""
    return isinstance(trainer.strategy, _SHARDING)


def check_sharding(config: Mapping[str, Any]) -> None:
    """Refuse optimizers and checkpoints that the strategy of a config, if it divides the parameters, does not allow.

    Raises:
        ConfigError: an optimizer that cannot train parts of tensors, or checkpoints that could not be resumed.
    """
    trainer = config["trainer"]
    cls, node = _find_class(trainer.get("strategy"), config.get("trust", ())), trainer.get("strategy")
    options: Mapping[str, Any] = node if isinstance(node, Mapping) else {}
    if cls is None or not issubclass(cls, _SHARDING):
        return
    saves = trainer.get("enable_checkpointing", True) and not trainer.get("fast_dev_run")
    tracks = parse_tracks(config[TRACKS])
    nodes = {f"{track.key}.optimizer": track.config(config)["optimizer"] for track in tracks}
    for key, optimizer in (nodes or {"optimizer": config["optimizer"]}).items():
        _check_optimizer(key, str(optimizer["_target_"]), cls, saves=saves)
    if not saves:
        return
    why = "a folder of shards cannot be resumed, because lrkit executes no pickle"
    if issubclass(cls, DeepSpeedStrategy):
        must = f"must not be DeepSpeed with checkpoints: {why}; use FSDP, or trainer.enable_checkpointing=false"
        raise ConfigError(_KEY, must, node if isinstance(node, str) else cls.__name__)
    if issubclass(cls, ModelParallelStrategy) and options.get(_FILES):
        must = f"must be false with checkpoints: {why}"
        raise ConfigError(f"{_KEY}.{_FILES}", must, options[_FILES])
    if issubclass(cls, FSDPStrategy) and options.get("state_dict_type", "full") != "full":
        must = f"must be full with checkpoints: {why}"
        raise ConfigError(f"{_KEY}.state_dict_type", must, options["state_dict_type"])


def with_one_file(node: Mapping[str, Any], trust: Sequence[str] = ()) -> Mapping[str, Any]:
    """Return the node of a strategy, whose checkpoints are one file unless the user chose otherwise."""
    cls = _find_class(node, trust)
    if cls is None or not issubclass(cls, ModelParallelStrategy) or _FILES in node:
        return node
    return {**node, _FILES: False}


def prepare_restoring(trainer: Trainer, saved: Sequence[Mapping[str, Any]]) -> None:
    """Let a trainer with sharded parameters restore optimizers without a state, such as SGD without momentum.

    torch fails on a state that has only groups.

    Args:
        trainer: a trainer that resumes.
        saved: the states of the optimizers in the checkpoint.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, ModelParallelStrategy) or any(state["state"] for state in saved):
        return
    load = strategy.load_checkpoint

    def load_checkpoint(*args: Any, **kwargs: Any) -> Any:
        optimizers, strategy.optimizers = strategy.optimizers, []
        try:
            content = load(*args, **kwargs)
        finally:
            strategy.optimizers = optimizers
        for optimizer, state in zip(optimizers, saved, strict=False):
            optimizer.load_state_dict(dict(state))
        return content

    strategy.load_checkpoint = load_checkpoint  # type: ignore[method-assign]


def _find_class(strategy: Any, trust: Sequence[str]) -> type[Strategy] | None:
    """Return the class of a strategy, by its name or its node; None for Lightning's choice."""
    if isinstance(strategy, Mapping):
        return trusted_targets.resolve_class(strategy.get(TARGET), f"{_KEY}.{TARGET}", trust)
    known: type[Strategy] | None = StrategyRegistry[strategy]["strategy"] if strategy in StrategyRegistry else None
    return known


def _check_optimizer(key: str, target: str, cls: type[Strategy], *, saves: bool) -> None:
    name, kind, known = target.rpartition(".")[2], cls.__name__, traits_of(target)
    if saves and known is not None and known.schedule_free:
        why = f"checkpoints have both weights of {name}, and a process has a part of them"
    elif issubclass(cls, ModelParallelStrategy):
        why = f"the step of {name} fails on sharded parameters" if refuses_shards(target) else ""
    else:
        parts = "and each process has a flat part of them"
        why = f"{name} computes with whole tensors, {parts}" if uses_whole_tensors(target) else ""
    if why:
        must = f"must not be {option_name(target)} with trainer.strategy={kind}: {why}; adamw trains them"
        raise ConfigError(key, must, target)

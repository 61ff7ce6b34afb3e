"""The number of processes of a config, and the number of batches in an optimizer step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.validation import is_whole
from lrkit.config import (
    trainer_options,
)
from lrkit.config.trainer_options import check_count

__all__ = ["accumulation", "replicas_of", "world_of"]


def world_of(trainer: Mapping[str, Any]) -> tuple[int, bool]:
    """Return devices x nodes, and whether ``auto`` was assumed to be one device."""
    devices, nodes = trainer.get("devices"), trainer.get("num_nodes") or 1
    if isinstance(devices, str) and devices not in ("auto", "-1"):
        devices = [d for d in devices.split(",") if d.strip()] if "," in devices else _read_whole(devices)
    if devices in ("auto", "-1", -1, None):
        return nodes, True
    count = len(devices) if isinstance(devices, list) else devices
    if not is_whole(count, 1):
        raise ConfigError("trainer.devices", "must be a number >= 1, a list of devices, or auto", devices)
    return count * nodes, False


def replicas_of(trainer: Mapping[str, Any]) -> tuple[int, bool]:
    """Return the number of processes with batches of their own, and whether ``auto`` was assumed to be one device.

    With tensor parallelism, the processes that share a model get the same batches.
    """
    world, assumed = world_of(trainer)
    strategy = trainer.get("strategy")
    if not isinstance(strategy, Mapping) or not str(strategy.get("_target_")).endswith(".ModelParallelStrategy"):
        return world, assumed
    nodes = trainer.get("num_nodes") or 1
    sizes = {"data_parallel_size": nodes, "tensor_parallel_size": world // nodes}
    for name in sizes:
        if strategy.get(name, "auto") != "auto":
            trainer_options.check_count(f"trainer.strategy.{name}", strategy[name])
            sizes[name] = strategy[name]
    data, tensor = sizes.values()
    if data * tensor != world and not assumed:
        must = (
            f"x tensor_parallel_size ({tensor}) must be {world}, the number of processes: trainer.devices x num_nodes"
        )
        raise ConfigError("trainer.strategy.data_parallel_size", must, data)
    return data, assumed


def accumulation(config: Mapping[str, Any], world: int) -> int:
    """Return the number of batches in an optimizer step: the set number, or the number for ``batch.effective``.

    With ``batch.schedule`` it is 1: the plan has the number for each step.
    """
    written, effective = config["trainer"].get("accumulate_grad_batches") or 1, config["batch"].get("effective")
    if effective is None:
        return int(written)
    check_count("batch.effective", effective)
    size = config["data"].get("batch_size")
    if written != 1:
        raise ConfigError("batch.effective", f"and trainer.accumulate_grad_batches={written} both set accumulation")
    if size is None:
        raise ConfigError("batch.effective", "needs data.batch_size, which is not set")
    if effective % (size * world):
        product = f"{size * world} = data.batch_size {size} x {world} device(s)"
        raise ConfigError("batch.effective", f"must be a multiple of {product}", effective)
    return int(effective // (size * world))


def _read_whole(text: str) -> Any:
    return int(text) if text.strip().isdigit() else text

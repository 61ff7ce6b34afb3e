"""What a run refuses before it reads data, checked without a run: classes, keys, packages, files and devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrkit.config import instantiate, trusted_targets
from lrkit.config.declared_steps import check_declared_steps
from lrkit.config.server_loggers import check_installed
from lrkit.data.in_memory import InMemoryData
from lrkit.lightning.silenced_messages import silence_lightning
from lrkit.lightning.trainer_objects import check_trainer, trainer_of
from lrkit.optim import factory
from lrkit.training_objects.callbacks import callbacks_of
from lrkit.training_objects.data import data_node, data_of
from lrkit.training_objects.module import check_model_sizes
from lrkit.training_objects.optimizers import optimizer_of, tracks_of

__all__ = ["check_run"]


def check_run(config: Mapping[str, Any]) -> None:
    """Refuse a config whose run would be refused before its data is read. No network is built, and no folder made.

    Raises:
        ConfigError: naming the key, as the run itself would.
    """
    silence_lightning()
    trust = config.get("trust", ())
    if not tracks_of(config):
        factory.check_optimizer(*optimizer_of(config))
    check_declared_steps(config)
    check_trainer(config)
    cls = trusted_targets.resolve_class(config["data"].get("_target_"), "data._target_", trust)
    if issubclass(cls, InMemoryData):
        data = data_of(config)
        assert isinstance(data, InMemoryData)
        data.check_source()
    else:  # its constructor may read data
        instantiate.check(data_node(config), "data", trust)
    check_model_sizes(config)
    instantiate.check(config["model"], "model", trust)
    callbacks_of(config)
    check_installed(config["logger"])
    for name, node in config["logger"].items():
        instantiate.check(node, f"logger.{name}", trust)
    # Refuses devices that this machine does not have, and options that Lightning refuses.
    trainer_of({**config["trainer"], "enable_progress_bar": False}, trust, callbacks=[], logger=False)

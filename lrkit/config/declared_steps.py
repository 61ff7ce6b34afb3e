"""A length of the run that contradicts the trainer: refused from the config alone, where that has both lengths."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.config.compose import check
from lrkit.planning.optimizer_tracks import KEY

__all__ = ["check_declared_steps", "steps_error"]


def steps_error(taken: int, declared: int | None) -> ConfigError:
    """Return the error for ``horizon.steps`` where the trainer takes another number of steps."""
    must = f"must be {taken}, the number of optimizer steps of the run"
    if declared is not None:
        must += f"; trainer.max_epochs=null trainer.max_steps={declared} takes {declared}"
    return ConfigError("horizon.steps", must, declared)


def check_declared_steps(config: Mapping[str, Any]) -> None:
    """Refuse another ``horizon.steps`` than the trainer takes, before data is read.

    lrkit's own networks step after each window of batches. A LightningModule may decide itself when to step, so its
    steps are compared only when it has been built.

    Raises:
        ConfigError: for ``horizon.steps``.
    """
    horizon, data = config["horizon"], config["data"]
    own = str(config["model"].get("_target_")).startswith("lrkit.models.") and not config[KEY]
    others = [horizon.get(name) for name in ("stop_after", "steps_per_epoch")]
    if horizon.get("steps") is None or not own or data.get("train_samples") is None or others != [None, None]:
        return
    declared, counted = check(config), None
    with suppress(ConfigError):  # a curve that does not fit into the other number of steps
        counted = check({**config, "horizon": {**horizon, "steps": None}})
    if declared is not None and counted is not None and declared.horizon.steps != counted.horizon.steps:
        raise steps_error(counted.horizon.require("steps", "horizon.steps"), declared.horizon.steps)

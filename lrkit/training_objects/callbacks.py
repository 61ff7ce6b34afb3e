"""The user's own callbacks of a config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.metric_names import higher_is_better
from lrkit.base.run_files import CHECKPOINTS
from lrkit.config import compose as configs
from lrkit.config.callback_conflicts import find_conflict
from lrkit.lightning.imports import Callback

__all__ = ["callbacks_of"]


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
            own["dirpath"] = None if folder is None else str(folder / CHECKPOINTS)
    return own

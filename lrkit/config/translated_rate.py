"""``optimizer.lr=from:RUN``: the base rate of a finished run, translated to the schedule and length of this config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.files import read_json
from lrkit.base.moved_classes import with_current_paths
from lrkit.base.run_files import METRICS, PLAN
from lrkit.config.plan_of_config import plan
from lrkit.planning.plan import Plan
from lrkit.planning.plan_schema import checked
from lrkit.planning.rate_translation import translate

__all__ = ["FROM", "load_plan", "with_translated_rate"]

#: What ``optimizer.lr`` begins with where the rate of a run is translated.
FROM = "from:"


def with_translated_rate(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config with a number in place of ``optimizer.lr=from:RUN``; ``find`` keeps interval and origin.

    Raises:
        ConfigError: the run cannot be read, or its rate says nothing about this config.
    """
    written = config["optimizer"].get("lr")
    if not isinstance(written, str) or not written.startswith(FROM):
        return config
    path = written.removeprefix(FROM).strip()
    source = load_plan(path, "optimizer.lr")
    target = plan({**config, "optimizer": {**config["optimizer"], "lr": source.base_lr}})
    try:
        found = translate(source, target)
    except ConfigError as error:
        why = f"{error.key} {error.must}"
        raise ConfigError("optimizer.lr", f"cannot be translated: {why}", written) from None
    origin = f"from {path}: {found.known:g} x {found.factor:.3g}, 90 %"
    return {
        **config,
        "optimizer": {**config["optimizer"], "lr": found.lr},
        "find": {**config["find"], "interval": [found.low, found.high], "origin": origin[:1000]},
    }


def load_plan(path: str, key: str) -> Plan:
    """Return the saved plan of a finished run.

    Args:
        path: the folder of the run.
        key: named in errors.

    Raises:
        ConfigError: there is no run, its plan cannot be read, or it diverged.
    """
    try:
        file = Path(path) / PLAN
        there = file.is_file()
    except (OSError, ValueError):  # too long, or with a null character
        there = False
    if not path or not there:
        raise ConfigError(key, "must name the folder of one run, which has a plan.json", path)
    plain = read_json(file)
    try:
        source = checked(with_current_paths(plain))
    except ConfigError as error:
        raise ConfigError(key, f"must name a run with a plan: {str(error).rstrip('.')}", path) from None
    metrics = read_json(file.parent / METRICS)
    if isinstance(metrics, Mapping) and metrics.get("status") == "diverged":
        raise ConfigError(key, "must name a run that did not diverge: its rate is too large", path)
    return source

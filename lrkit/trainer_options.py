"""The node ``trainer``: what each of Lightning's options may be, checked before Lightning is loaded.

Lightning itself takes many a value that it then does not use, such as ``min_steps=-3`` or ``deterministic=maybe``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from lrkit.errors import ConfigError

__all__ = ["check", "check_count"]

Rule = tuple[str, Callable[[Any], bool]]


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_part(value: Any, least: int = 1) -> bool:
    """A number of batches, or a share of them."""
    share = isinstance(value, float) and (0 < value <= 1 or (least == 0 and value == 0))
    return share or _is_whole(value, least)


def _is_duration(value: Any) -> bool:
    """``DD:HH:MM:SS``, or a group of days, hours, minutes, seconds; longer than 0."""
    if isinstance(value, Mapping):
        units = {"days", "hours", "minutes", "seconds", "weeks", "milliseconds", "microseconds"}
        counts = [*value.values()]
        return set(value) <= units and all(_is_number(each) and each >= 0 for each in counts) and any(counts)
    return isinstance(value, str) and re.fullmatch(r"\d+(:\d{1,2}){3}", value) is not None and value.strip("0:") != ""


def _starts_anew(strategy: Any) -> bool:
    """Whether a strategy starts its processes anew. What lrkit puts into a module cannot be copied into another one."""
    how = strategy.get("start_method", "") if isinstance(strategy, Mapping) else strategy
    return not any(word in str(how) for word in ("spawn", "fork", "notebook"))


_PART: Rule = ("must be a number of batches >= 1, or a share of them in (0, 1]", _is_part)
_PART_OR_NONE: Rule = ("must be a number of batches, or a share of them in [0, 1]", lambda x: _is_part(x, 0))
_COUNT: Rule = ("must be a whole number >= 1", lambda x: _is_whole(x, 1))
_LEAST: Rule = ("must be a whole number >= 0", lambda x: _is_whole(x, 0))
_END: Rule = (_COUNT[0], lambda x: _is_whole(x, 1) or x == -1)  # -1: no limit
_SWITCH: Rule = ("must be true or false", lambda x: isinstance(x, bool))

#: Of each option; null is always allowed, and is Lightning's default.
_RULES: dict[str, Rule] = {
    "max_epochs": _END,
    "max_steps": _END,
    "min_epochs": _LEAST,
    "min_steps": _LEAST,
    "max_time": ("must be days:hours:minutes:seconds, such as 00:12:00:00, and longer than 0", _is_duration),
    "num_nodes": _COUNT,
    "strategy": ("must start its processes anew, not as copies of this one: use trainer.strategy=ddp", _starts_anew),
    "accumulate_grad_batches": _COUNT,
    "log_every_n_steps": _COUNT,
    "check_val_every_n_epoch": _COUNT,
    "reload_dataloaders_every_n_epochs": _LEAST,
    "num_sanity_val_steps": ("must be a whole number >= 0, or -1 for all", lambda x: _is_whole(x, -1)),
    "limit_train_batches": _PART,
    "limit_val_batches": _PART_OR_NONE,
    "limit_test_batches": _PART_OR_NONE,
    "limit_predict_batches": _PART_OR_NONE,
    "overfit_batches": _PART_OR_NONE,
    "val_check_interval": _PART,
    "gradient_clip_val": ("must be a number >= 0, or null", lambda x: _is_number(x) and x >= 0),
    "gradient_clip_algorithm": ("must be norm or value", lambda x: x in ("norm", "value")),
    "deterministic": ("must be true, false or warn", lambda x: isinstance(x, bool) or x == "warn"),
    "fast_dev_run": ("must be true, false or a number of batches", lambda x: isinstance(x, bool) or _is_whole(x, 0)),
    "enable_progress_bar": ("must be true, false or null", _SWITCH[1]),
    **dict.fromkeys(
        ("benchmark", "enable_checkpointing", "enable_model_summary", "enable_autolog_hparams",
         "inference_mode", "use_distributed_sampler", "detect_anomaly", "barebones", "sync_batchnorm"),
        _SWITCH,
    ),
}  # fmt: skip


def check(trainer: Mapping[str, Any]) -> None:
    """Refuse what an option cannot be.

    Raises:
        ConfigError: naming the key.
    """
    for name, (must, holds) in _RULES.items():
        value = trainer.get(name)
        if value is not None and not holds(value):
            raise ConfigError(f"trainer.{name}", must, value)
    if all(trainer.get(name) in (None, -1) for name in ("max_epochs", "max_steps", "max_time")):
        raise ConfigError("trainer.max_epochs", "or trainer.max_steps must be set: a run needs an end")
    for unit in ("epochs", "steps"):
        least, most = trainer.get(f"min_{unit}"), trainer.get(f"max_{unit}")
        if least and most not in (None, -1) and least > most:
            raise ConfigError(f"trainer.min_{unit}", f"must be at most trainer.max_{unit}, which is {most}", least)


def check_count(key: str, value: Any) -> None:
    """Refuse what is no whole number of at least 1."""
    must, holds = _COUNT
    if not holds(value):
        raise ConfigError(key, must, value)

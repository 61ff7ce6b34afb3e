"""The node ``trainer``: the values of Lightning's options, checked before Lightning is imported.

Lightning itself accepts values without an effect, such as ``min_steps=-3`` or ``deterministic=maybe``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lrkit.base.errors import ConfigError
from lrkit.base.validation import FLAG, Rule, is_list, is_number, is_whole, one_of, whole

if TYPE_CHECKING:
    from lrkit.schedules.horizon import Horizon

__all__ = [
    "ACCELERATORS",
    "PRECISIONS",
    "PROFILERS",
    "STRATEGIES",
    "check",
    "check_count",
    "check_horizon",
    "check_registered",
    "words_for_barebones",
]

#: Lightning's own names, recorded here because its import takes seconds.
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
PRECISIONS = ("16-true", "16-mixed", "bf16-true", "bf16-mixed", "32-true", "64-true", "transformer-engine",
              "transformer-engine-float16", "16", "32", "64", "bf16")  # fmt: skip
PROFILERS = ("simple", "advanced", "pytorch", "xla")
STRATEGIES = (
    "auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true", "fsdp", "fsdp_cpu_offload",
    "deepspeed", "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_2_offload", "deepspeed_stage_3",
    "deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme", "single_device", "single_tpu", "single_xla", "xla",
    "xla_debug",
)  # fmt: skip


def _is_part(value: Any, least: int = 1) -> bool:
    """Return whether a value is a number of batches, or a share of them."""
    share = isinstance(value, float) and (0 < value <= 1 or (least == 0 and value == 0))
    return share or is_whole(value, least)


def _is_duration(value: Any) -> bool:
    """Return whether a value is a time > 0: ``DD:HH:MM:SS``, or a group of days, hours, minutes, seconds."""
    units = ("days", "hours", "minutes", "seconds", "weeks", "milliseconds", "microseconds")
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}(:\d{1,2}){3}", value):
        value = dict(zip(units, map(int, value.split(":")), strict=False))
    if not isinstance(value, Mapping) or not set(value) <= {*units}:
        return False
    if not all(is_number(each) and 0 <= each < math.inf for each in value.values()):
        return False
    try:
        return timedelta(**value) > timedelta()
    except OverflowError:
        return False


def _is_devices(value: Any) -> bool:
    """Return whether a value is a number of devices, a list of devices, or a name for all devices."""
    if is_list(value):
        return len(value) > 0 and all(is_whole(each, 0) for each in value) and len({*value}) == len(value)
    if isinstance(value, str):
        text = value.replace(" ", "")
        return text in ("auto", "-1") or bool(
            re.fullmatch(r"0*[1-9]\d{0,5}|\d{1,6}(,\d{1,6})*,?", text) and text != "0"
        )
    return is_whole(value, 1) or value == -1


def _starts_new_processes(strategy: Any) -> bool:
    """Return whether a strategy starts new processes. lrkit's changes of a module cannot be copied by fork or spawn."""
    how = strategy.get("start_method", "") if isinstance(strategy, Mapping) else strategy
    return not any(word in str(how) for word in ("spawn", "fork", "notebook"))


def _make_name_rule(names: tuple[str, ...], what: str) -> Rule:
    """Return the rule for one of Lightning's names, or an object."""
    must = f"must be one of {', '.join(names)}, or {what} by {_TARGET}"
    return Rule(must, lambda value: value in names if isinstance(value, str) else _is_object(value))


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) and _TARGET in value


_TARGET = "_target_"
_PART = Rule("must be a number of batches >= 1, or a share of them in (0, 1]", _is_part)
_PART_OR_NONE = Rule("must be a number of batches, or a share of them in [0, 1]", lambda x: _is_part(x, 0))
_COUNT, _LEAST = whole(1), whole(0)
_END = Rule(_COUNT.must, lambda x: is_whole(x, 1) or x == -1)  # -1: no limit
_BITS = (16, 32, 64)
_PLUGINS = "must be a plugin by _target_, or a list of plugins"

#: Option -> its rules; null, Lightning's default, is always accepted.
_RULES: dict[str, tuple[Rule, ...]] = {
    "max_epochs": (_END,),
    "max_steps": (_END,),
    "min_epochs": (_LEAST,),
    "min_steps": (_LEAST,),
    "max_time": (Rule("must be days:hours:minutes:seconds, such as 00:12:00:00, and longer than 0", _is_duration),),
    "accelerator": (one_of(*ACCELERATORS),),
    "devices": (Rule("must be a number >= 1, a list of devices, or auto", _is_devices),),
    "num_nodes": (_COUNT,),
    "strategy": (
        Rule("must start new processes, not copies of this one: use trainer.strategy=ddp", _starts_new_processes),
        _make_name_rule(STRATEGIES, "a strategy"),
    ),
    "precision": (
        Rule(f"must be one of {', '.join(PRECISIONS)}", lambda x: x in PRECISIONS or (is_whole(x, 1) and x in _BITS)),
    ),
    "profiler": (_make_name_rule(PROFILERS, "a profiler"),),
    "plugins": (Rule(_PLUGINS, lambda x: all(map(_is_object, x)) if is_list(x) else _is_object(x)),),
    "accumulate_grad_batches": (_COUNT,),
    "log_every_n_steps": (_COUNT,),
    "check_val_every_n_epoch": (_COUNT,),
    "reload_dataloaders_every_n_epochs": (_LEAST,),
    "num_sanity_val_steps": (Rule("must be a whole number >= 0, or -1 for all", lambda x: is_whole(x, -1)),),
    "limit_train_batches": (_PART,),
    "limit_val_batches": (_PART_OR_NONE,),
    "limit_test_batches": (_PART_OR_NONE,),
    "limit_predict_batches": (Rule("must be null: lrkit does not predict", lambda x: x is None),),
    "overfit_batches": (_PART_OR_NONE,),
    "val_check_interval": (_PART,),
    "gradient_clip_val": (Rule("must be a number >= 0, or null", lambda x: is_number(x) and x >= 0),),
    "matmul_precision": (one_of("highest", "high", "medium"),),
    "gradient_clip_algorithm": (one_of("norm", "value"),),
    "deterministic": (Rule("must be true, false or warn", lambda x: isinstance(x, bool) or x == "warn"),),
    "fast_dev_run": (
        Rule("must be true, false or a number of batches", lambda x: isinstance(x, bool) or is_whole(x, 0)),
    ),
    "enable_progress_bar": (Rule("must be true, false or null", FLAG.holds),),
    **dict.fromkeys(
        ("benchmark", "enable_checkpointing", "enable_model_summary", "enable_autolog_hparams",
         "inference_mode", "use_distributed_sampler", "detect_anomaly", "barebones", "sync_batchnorm"),
        (FLAG,),
    ),
}  # fmt: skip

#: Options whose last rule lists the names of Lightning; other packages can register more names.
_REGISTERED = ("accelerator", "strategy")


def check(trainer: Mapping[str, Any], *, has_packages: bool = False) -> None:
    """Refuse invalid values, and options that contradict each other.

    Args:
        trainer: the node.
        has_packages: whether the run imports packages of the user. They may register accelerators and strategies
            with Lightning, so any name is accepted here; ``check_registered`` refuses an unknown name later.

    Raises:
        ConfigError: with the key of the option.
    """
    for name, rules in _RULES.items():
        value = trainer.get(name)
        if value is None:
            continue
        known_later = has_packages and name in _REGISTERED and isinstance(value, str)
        for rule in rules[:-1] if known_later else rules:
            rule.check(f"trainer.{name}", value)
    devices = trainer.get("devices")
    if trainer.get("accelerator") == "cpu" and (
        is_list(devices) or "," in str(devices) or str(devices).strip() == "-1"
    ):
        raise ConfigError("trainer.devices", "must be a number >= 1, or auto, with trainer.accelerator=cpu", devices)
    if trainer.get("gradient_clip_algorithm") is not None and not trainer.get("gradient_clip_val"):
        must = "needs trainer.gradient_clip_val: it has no effect alone"
        raise ConfigError("trainer.gradient_clip_algorithm", must, trainer["gradient_clip_algorithm"])
    if all(trainer.get(name) in (None, -1) for name in ("max_epochs", "max_steps", "max_time")):
        raise ConfigError("trainer.max_epochs", "or trainer.max_steps must be set: a run needs an end")
    for unit in ("epochs", "steps"):
        least, most = trainer.get(f"min_{unit}"), trainer.get(f"max_{unit}")
        if least and most not in (None, -1) and least > most:
            raise ConfigError(f"trainer.min_{unit}", f"must be at most trainer.max_{unit}, which is {most}", least)


def words_for_barebones(trainer: Mapping[str, Any]) -> list[str]:
    """Return the words that switch off what Lightning's ``barebones`` does not allow.

    >>> words_for_barebones({"enable_checkpointing": True, "num_sanity_val_steps": 0, "log_every_n_steps": 50})
    ['trainer.enable_checkpointing=false', 'trainer.log_every_n_steps=null']
    """
    table: dict[str, tuple[str, bool]] = {
        "enable_checkpointing": ("false", trainer.get("enable_checkpointing", True) is not False),
        "num_sanity_val_steps": ("0", trainer.get("num_sanity_val_steps") not in (None, 0)),
        "log_every_n_steps": ("null", trainer.get("log_every_n_steps") is not None),
        **{name: ("false", bool(trainer.get(name))) for name in _NOT_BAREBONES},
        "profiler": ("null", trainer.get("profiler") is not None),
    }
    return [f"trainer.{name}={off}" for name, (off, is_on) in table.items() if is_on]


_NOT_BAREBONES = ("enable_progress_bar", "enable_model_summary", "fast_dev_run", "detect_anomaly")


def check_registered(trainer: Mapping[str, Any], registered: Mapping[str, Collection[str]]) -> None:
    """Refuse an unknown accelerator or strategy, after the import of the user's packages.

    Args:
        trainer: the node.
        registered: the names in Lightning's registries, by option.

    Raises:
        ConfigError: the name is neither Lightning's own nor in the registry.
    """
    for name in _REGISTERED:
        value = trainer.get(name)
        if isinstance(value, str) and value not in registered[name]:
            _RULES[name][-1].check(f"trainer.{name}", value)


def check_horizon(trainer: Mapping[str, Any], steps: int | None, horizon: Horizon) -> None:
    """Refuse another ``horizon.steps`` than ``trainer.max_steps``, except with ``horizon.stop_after``.

    Args:
        trainer: the node.
        steps: ``horizon.steps`` in optimizer steps; None where it is not set.
        horizon: the resolved horizon.

    Raises:
        ConfigError: the two lengths differ, or an option of the trainer forbids such an early stop.
    """
    most, endless = trainer.get("max_steps"), trainer.get("max_epochs") in (None, -1)
    most = None if most == -1 else most
    if horizon.stop_after is not None:
        _check_stop(trainer, horizon.stop_after, most, horizon)
    elif steps is not None and most is not None and steps != most and (steps > most or endless):
        must = f"must be trainer.max_steps, {most}, or null"
        if steps > most:
            must += f"; the first {most} steps of a run of {steps} are horizon.stop_after={most}"
        raise ConfigError("horizon.steps", must, steps)


def _check_stop(trainer: Mapping[str, Any], stop: int, most: int | None, horizon: Horizon) -> None:
    """Refuse options of the trainer that contradict ``horizon.stop_after``."""
    key = "horizon.stop_after"
    if most is not None and stop > most:
        raise ConfigError(key, f"must be at most trainer.max_steps, {most}", stop)
    epochs = horizon.steps_after_epochs(trainer.get("min_epochs") or 0)
    for name, least in (("min_steps", trainer.get("min_steps") or 0), ("min_epochs", epochs or 0)):
        if least > stop:
            raise ConfigError(key, f"must be at least trainer.{name}, {least} optimizer steps", stop)


def check_count(key: str, value: Any) -> None:
    """Refuse a value that is not a whole number >= 1."""
    _COUNT.check(key, value)

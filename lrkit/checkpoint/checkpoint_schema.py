"""The schema of a checkpoint, checked before a run is resumed from it: an untrusted file may contain any plain data.

It covers lrkit's own part (plan, step, random numbers, data position), the states of lrkit's callbacks and schedulers,
and the structure, the counts and the paths in the parts of Lightning and of the optimizers. ``state_dict`` is compared
with the model later. ``lrkit.checkpoint.untrusted_file`` limits the size of a file before.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from lrkit.base.errors import ConfigError
from lrkit.base.files import parse_json
from lrkit.base.moved_classes import with_current_paths
from lrkit.base.validation import (
    FLAG,
    PLAIN_DATA,
    Rule,
    check_by,
    either,
    listed,
    mapping,
    number,
    optional,
    record,
    text,
    value_error,
    whole,
)
from lrkit.callbacks.weight_averaging import AVERAGED_WEIGHTS
from lrkit.checkpoint.module_modes import KEY as MODULE_MODES
from lrkit.lightning.evaluation_weights import TRAINING_WEIGHTS
from lrkit.planning.plan_schema import checked

__all__ = ["check_content", "check_optimizers"]

_LONGEST_PLAN = 2**26  # characters
_DEVICES = 4096


def check_content(content: Any) -> dict[str, Any]:
    """Check the content of a checkpoint, and return its plan as JSON.

    Args:
        content: the content of the file.

    Raises:
        ConfigError: with the key of the value that differs from the format of lrkit.
    """
    record({"lrkit": record({"plan": text(_LONGEST_PLAN)}, others=True)}, others=True).check("checkpoint", content)
    try:
        plan = with_current_paths(parse_json(content["lrkit"]["plan"]))
    except (ValueError, RecursionError) as error:
        raise ConfigError("lrkit.plan", f"must be JSON: {error}") from None
    checked(plan, "lrkit.plan")
    for key, schema in _CONTENT.items():
        if key not in content:
            raise ConfigError(key, "must be there")
        schema.check(key, content[key])
    for key, schema in _OPTIONAL.items():
        if key in content:
            schema.check(key, content[key])
    tracks, given = list(plan.get("tracks", {})), list(content["lrkit"].get("tracks", {}))
    if sorted(tracks) != sorted(given):
        raise ConfigError("lrkit.tracks", f"must be those of the plan: {', '.join(tracks) or 'none'}", ", ".join(given))
    if "loops" not in content or "fit_loop" not in content["loops"]:
        raise ConfigError("loops.fit_loop", "must be there")
    return dict(plan)


def check_optimizers(states: Sequence[Mapping[str, Any]], optimizers: Sequence[Optimizer]) -> None:
    """Refuse saved states that do not fit the optimizers: torch would fail only at the first step.

    Raises:
        ConfigError: other groups, other parameters, or averages with another shape than their parameter.
    """
    if len(states) != len(optimizers):
        raise ConfigError("optimizer_states", f"must be of {len(optimizers)} optimizers", len(states))
    for i, (state, optimizer) in enumerate(zip(states, optimizers, strict=True)):
        key = f"optimizer_states[{i}]"
        saved, groups = state["param_groups"], optimizer.param_groups
        had, has = ([len(group["params"]) for group in each] for each in (saved, groups))
        if had[: len(has)] != has:
            # The user's code creates groups that were added during the run; otherwise torch refuses the state.
            raise ConfigError(f"{key}.param_groups", f"must have groups of {has} parameters", had)
        for j, (before, now) in enumerate(zip(saved, groups, strict=False)):
            _check_options(before, now, f"{key}.param_groups[{j}]")
        names = [name for group in saved for name in group["params"]]
        parameters = [parameter for group in groups for parameter in group["params"]]
        shapes = {name: parameter.shape for name, parameter in zip(names, parameters, strict=False)}
        for name, values in state["state"].items():
            for what, value in values.items():
                at = f"{key}.state.{name}.{what}"
                if what == "step":
                    either(_scalar, number(0)).check(at, value)
                if what not in _SAME_SHAPE or name not in shapes or value is None:
                    continue
                _tensor.check(at, value)
                if value.shape != shapes[name] or value.layout != torch.strided:
                    raise value_error(at, f"must have the shape of its parameter, {tuple(shapes[name])}", value)


def _check_options(before: Mapping[str, Any], now: Mapping[str, Any], key: str) -> None:
    """Refuse options of a group whose type differs from that of the optimizer's options."""
    for name, value in now.items():
        if name in ("params", "name"):
            continue
        kind = _classify_option(value)
        if name not in before:
            if kind in (float, tuple):  # a flag of a later version of torch has a default
                raise ConfigError(f"{key}.{name}", "must be there")
        elif kind is float:
            either(_scalar, number()).check(f"{key}.{name}", before[name])
        elif kind is tuple:
            listed(either(_scalar, number()), len(value), len(value)).check(f"{key}.{name}", before[name])
        elif kind is bool and before[name] is not None:
            FLAG.check(f"{key}.{name}", before[name])


def _classify_option(value: Any) -> type | None:
    """Return float for a number, bool for a flag, tuple for several numbers; None for an option that is not checked."""
    if isinstance(value, bool):
        return bool
    if isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1):
        return float
    several = isinstance(value, tuple) and value and all(_classify_option(each) is float for each in value)
    return tuple if several else None


#: State of optimizers with the shape of the parameter. Other states are not checked: factored averages are smaller.
_SAME_SHAPE = {
    "momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "square_avg", "grad_avg", "acc_delta",
    "sum", "prev", "step_size", "ax", "z", "exp_avg_diff",
}  # fmt: skip


@check_by
def _bytes(key: str, value: Any) -> None:
    if not isinstance(value, Tensor) or value.dtype != torch.uint8 or value.dim() != 1 or value.numel() > 2**16:
        raise value_error(key, "must be a short tensor of bytes", value)


@check_by
def _torch_state(key: str, value: Any) -> None:
    _bytes.check(key, value)
    try:
        torch.Generator().set_state(value)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(key, f"must be a state of torch's random number generator: {error}") from None


@check_by
def _numpy_state(key: str, value: Any) -> None:
    listed(PLAIN_DATA, 5, 5).check(key, value)
    name, keys, position, has_gauss, gauss = value
    listed(whole(0, 2**32 - 1), 624, 624).check(f"{key}[1]", keys)
    whole(0, 624).check(f"{key}[2]", position)
    whole(0, 1).check(f"{key}[3]", has_gauss)
    number().check(f"{key}[4]", gauss)
    try:
        np.random.RandomState().set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    except (TypeError, ValueError) as error:
        raise ConfigError(key, f"must be a state of numpy's random number generator: {error}") from None


@check_by
def _python_state(key: str, value: Any) -> None:
    listed(PLAIN_DATA, 3, 3).check(key, value)
    version, inner, gauss = value
    listed(whole(0, 2**32 - 1), 625, 625).check(f"{key}[1]", inner)
    whole(0, 624).check(f"{key}[1][624]", inner[-1])
    optional(number()).check(f"{key}[2]", gauss)
    try:
        random.Random().setstate((version, tuple(inner), gauss))
    except (TypeError, ValueError) as error:
        raise ConfigError(key, f"must be a state of Python's random number generator: {error}") from None


@check_by
def _own_generator(key: str, value: Any) -> None:
    """The generator of a sampler or a dataset: its type and its state."""
    listed(_any, 2, 2).check(key, value)
    kind, state = value
    kinds = {"torch": _bytes, "numpy": _numpy_state, "python": _python_state, "numpy.Generator": text()}
    if not isinstance(kind, str) or kind not in kinds:
        raise value_error(f"{key}[0]", f"must be one of {', '.join(kinds)}", kind)
    kinds[kind].check(f"{key}[1]", state)


@check_by
def _any(key: str, value: Any) -> None:
    """A value of the user's code, which is not checked."""


@check_by
def _tensor(key: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise value_error(key, "must be a tensor", value)


@check_by
def _callbacks(key: str, value: Any) -> None:
    mapping(_callback).check(key, value)
    _callback.check(key, value)  # the state of an lrkit callback that the user added is not nested


@check_by
def _counts(key: str, value: Any) -> None:
    """Lightning's counts, at any depth: integers >= 0."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            at = f"{key}.{name}"
            if name in ("total", "current"):
                mapping(whole(), 10).check(at, inner)
            elif name == "_batches_that_stepped":
                whole().check(at, inner)
            elif name == "is_last_batch":
                FLAG.check(at, inner)
            elif name != "state_dict":
                _counts.check(at, inner)


def _make_path_rule(within: str) -> Rule:
    """Return the rule for a path of a checkpoint: Lightning removes the file when a better checkpoint is saved.

    Args:
        within: the folder of the callback; the path may be remote only if this folder is remote.
    """
    where = within.partition("://")[0] + "://" if "://" in within else None

    def check(key: str, value: Any) -> None:
        text(10_000).check(key, value)
        elsewhere = "://" in value and (where is None or not value.startswith(where))
        if elsewhere or ".." in value.replace("\\", "/").split("/"):
            raise ConfigError(key, "must be a whole path of this machine", value)

    return check_by(check)


@check_by
def _callback(key: str, value: Any) -> None:
    """The state of a ``ModelCheckpoint``, recognised by its keys, or of a callback of lrkit. Others are not checked."""
    if isinstance(value, Mapping):
        optional(text(10_000)).check(f"{key}.dirpath", value.get("dirpath"))
        path = _make_path_rule(value.get("dirpath") or "")
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            optional(path).check(f"{key}.{name}", value.get(name))
        if "best_model_path" in value and "best_k_models" in value:
            mapping(_any).check(f"{key}.best_k_models", value["best_k_models"])
            for each in value["best_k_models"]:
                path.check(f"{key}.best_k_models", each)
            for name in ("best_model_score", "current_score", "kth_value"):
                optional(either(_scalar, number(finite=False))).check(f"{key}.{name}", value.get(name))
        if {"wait_count", "best_score"} <= value.keys():
            record({"wait_count": whole(), "best_score": _scalar}, others=True).check(key, value)
        for name, schema in _OURS.items():
            if name in value:
                schema.check(f"{key}.{name}", value[name])


@check_by
def _scalar(key: str, value: Any) -> None:
    _tensor.check(key, value)
    if value.numel() != 1 or value.is_complex() or value.layout != torch.strided:
        raise value_error(key, "must be one number", value)


_measured = number(finite=False)
_numbers = listed(_measured)


@check_by
def _trace(key: str, value: Any) -> None:
    _TRACE.check(key, value)
    columns = {key: [value["losses"], value["rates"], value["steps"]], f"{key}.validated": value["validated"]}
    for at, lists in columns.items():
        if len({len(each) for each in lists}) > 1:
            raise ConfigError(at, "must have lists of one length", [len(each) for each in lists])


_TRACE = record({
    "first": optional(_measured), "losses": _numbers, "rates": _numbers, "steps": listed(whole()),
    "size": whole(1), "sum": optional(listed(_measured, 2, 2)), "lost": FLAG, "validated": listed(_numbers, 2, 2),
})  # fmt: skip
#: The states of lrkit's own callbacks, by their keys in the checkpoint.
_OURS: dict[str, Rule] = {
    "StepCount": record({"left_out": whole()}),
    "AccumulationWindows": record({"start": whole(), "size": whole()}),
    "Trace": _trace,
    "TrainLoss": record({"sum": _measured, "samples": whole(1)}),
    "DivergenceWatch": record({
        "levels": record({
            "recent": listed(number(), 10**6), "began": optional(number()), "middle": number(), "spread": number(0),
            "seen": whole(),
        }),
        "above": whole(), "in_a_row": whole(), "skipped": whole(),
    }),
    "NoiseScale": record({
        "square": _measured, "noise": _measured, "looks": whole(), "logs": listed(_measured, 2, 2), "last": PLAIN_DATA,
    }),
    "Results": record(
        {"at_best": mapping(_measured), "best_step": optional(whole()), "best_epoch": optional(whole())},
        {"own_best": mapping(listed(_measured, 2, 2))},
    ),
}  # fmt: skip

_RNG = record({"torch": _torch_state, "cuda": listed(_bytes, _DEVICES), "numpy": _numpy_state, "python": _python_state})
_GENERATORS = mapping(_own_generator, 1000)
_STATE = record({"rng": _RNG, "own": _GENERATORS})
_LRKIT = record(
    {
        "plan": text(_LONGEST_PLAN),
        "step": whole(),
        "monitor": optional(text(1000)),
        "rng": _RNG,
        "data": _any,
        "mid_epoch": FLAG,
    },
    {
        "tracks": mapping(whole(), 1000),
        "generators": _GENERATORS,
        "epoch_begin": optional(record({"before": _STATE, "first": _STATE, "fresh": FLAG})),
        "loader": optional(listed(optional(whole()), 3, 3)),
        "reloaded": optional(whole(-1)),
    },
)
_SCHEDULER = record(
    {
        "applied": whole(),
        "gain": number(0),
        "plateau": record({"best": optional(number()), "bad": whole(), "waiting": whole(), "gain": number(0)}),
        "joined": mapping(listed(number(), 3, 2), 100_000),
    },
    {"reduction": record({"gain": number(0), "since": whole(), "over": whole(), "times": whole()})},
)


@check_by
def _parameter_states(key: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise value_error(key, "must be a mapping", value)
    for name, state in value.items():
        either(whole(), text()).check(key, name)
        if not isinstance(state, Mapping):
            raise value_error(f"{key}.{name}", "must be a mapping", state)


_PARAMETERS = listed(either(whole(), text()))
_OPTIMIZER = record(
    {"state": _parameter_states, "param_groups": listed(record({"params": _PARAMETERS}, others=True), 100_000, 1)},
    others=True,
)

#: The required keys of a checkpoint. Other keys are not checked.
_CONTENT: dict[str, Rule] = {
    "lrkit": _LRKIT,
    "epoch": whole(),
    "global_step": whole(),
    "state_dict": mapping(_any),
    "optimizer_states": listed(_OPTIMIZER, 1000, 1),
    "lr_schedulers": listed(_SCHEDULER, 1000, 1),
    "loops": _counts,
    "callbacks": _callbacks,
}

_NAMES = listed(text())
#: The optional keys of a checkpoint.
_OPTIONAL: dict[str, Rule] = {
    MODULE_MODES: record({
        "eval": _NAMES, "frozen": _NAMES, "attributes": mapping(mapping(optional(either(FLAG, number(finite=False))))),
        "unknown": _NAMES,
    }),
    TRAINING_WEIGHTS: mapping(_tensor),
    AVERAGED_WEIGHTS: record({"average": mapping(_tensor), "raw": mapping(_tensor), "updates": whole()}),
}  # fmt: skip

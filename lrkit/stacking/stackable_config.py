"""The conditions under which a training can be a member of a stack, by its config. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lrkit.config.optimizer_options import SIGNATURES

__all__ = ["FREE", "OPTIMIZER_OPTIONS", "why_not_stackable", "without_free_keys"]

#: Class path of an optimizer with a stacked form -> the options that this form has.
OPTIMIZER_OPTIONS: dict[str, tuple[str, ...]] = {
    "torch.optim.SGD": ("momentum", "dampening", "nesterov", "weight_decay"),
    "torch.optim.Adam": ("betas", "eps", "amsgrad", "weight_decay"),
    "torch.optim.AdamW": ("betas", "eps", "amsgrad", "weight_decay"),
    "torch.optim.RMSprop": ("alpha", "eps", "momentum", "centered", "weight_decay"),
    "torch.optim.Adagrad": ("lr_decay", "initial_accumulator_value", "eps", "weight_decay"),
}

#: The keys in which the members of a stack may differ: each of them changes only the plan or the seed.
FREE = (
    "optimizer.lr", "optimizer.weight_decay", "schedule", "warmup", "cooldown", "coschedule", "batch_scaling",
    "weight_decay_rule", "seed", "data.seed", "allow_extreme_lr",
)  # fmt: skip

_MODELS = ("Linear", "Mlp", "Cnn1d", "Cnn2d", "CharTransformer")
#: The datasets whose samples are tensors in memory, and the same for each seed.
_DATA = ("lrkit.data.Digits", "lrkit.data.Mnist1d", "lrkit.data.Text", "lrkit.data.Idx", "lrkit.data.Arrays")

#: The options of the trainer that a stack has, with any value. Others must have the value that changes nothing.
_TRAINER = (
    "max_epochs", "max_steps", "accelerator", "gradient_clip_val", "gradient_clip_algorithm", "limit_train_batches",
    "limit_val_batches", "limit_test_batches", "check_val_every_n_epoch", "num_sanity_val_steps", "log_every_n_steps",
    "enable_progress_bar", "enable_model_summary", "enable_autolog_hparams", "inference_mode",
    "use_distributed_sampler", "enable_checkpointing", "matmul_precision", "benchmark", "deterministic",
)  # fmt: skip
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "devices": (1, "1"), "num_nodes": (1,), "strategy": ("auto",), "precision": (None, 32, "32", "32-true"),
    "accumulate_grad_batches": (1, None), "overfit_batches": (0, 0.0), "reload_dataloaders_every_n_epochs": (0,),
    "fast_dev_run": (False,), "min_epochs": (None, 0), "min_steps": (None, 0),
}  # fmt: skip

_Rule = Callable[[Any], bool]
#: Key -> whether a value fits, and the reason why another one does not.
_RULES: dict[str, tuple[_Rule, str]] = {
    "optimizer.lr": (lambda lr: not isinstance(lr, str), "the rate is searched"),
    "optimizers": (lambda node: not node, "several optimizers"),
    "plateau": (lambda node: not node, "feedback of a metric on the rate"),
    "guard": (lambda node: not node or node.get("policy") == "stop", "a guard that skips or repeats steps"),
    "callbacks": (lambda node: not node, "callbacks"),
    "compile": (lambda value: not value, "a network compiled by itself"),
    "batch.effective": (lambda value: value is None, "accumulation"),
    "batch.schedule": (lambda value: value is None, "a batch that grows"),
    "resume.path": (lambda value: value is None, "a checkpoint"),
    "horizon.stop_after": (lambda value: value is None, "a stop before the end of the schedule"),
    "model.dropout": (lambda value: not value, "dropout, whose random numbers depend on the order of the jobs"),
}


def why_not_stackable(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the key that keeps a training out of a stack, with the reason; None if it can be a member.

    Args:
        config: a resolved config of ``lrkit.config.compose``.
    """
    model, data, target = (str(config[node].get("_target_")) for node in ("model", "data", "optimizer"))
    if model not in {f"lrkit.models.{name}" for name in _MODELS}:
        return "model", f"{model} is not one of lrkit's networks"
    if data not in _DATA:
        return "data", f"{data} is not one of lrkit's datasets in memory"
    if target not in OPTIMIZER_OPTIONS:
        return "optimizer", f"{target} has no stacked form"
    for name, default in SIGNATURES[target].items():
        if name not in OPTIMIZER_OPTIONS[target] and config["optimizer"].get(name, default) not in (default, None):
            return f"optimizer.{name}", "the stacked form does not have this option"
    for key, (fits, why) in _RULES.items():
        if not fits(_find(config, key)):
            return key, why
    return _check_trainer(config["trainer"])


def _check_trainer(trainer: Mapping[str, Any]) -> tuple[str, str] | None:
    for name, value in trainer.items():
        accepted = _NEUTRAL.get(name, (None, False))
        if name not in _TRAINER and value not in accepted:
            return f"trainer.{name}", "the loop of a stack does not have this option"
    return None


def without_free_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without the keys in which the members of a stack may differ.

    >>> without_free_keys({"seed": 1, "optimizer": {"lr": 0.1, "momentum": 0.9}})
    {'optimizer': {'momentum': 0.9}}
    """
    kept = {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}
    for key in FREE:
        node, _, name = key.rpartition(".")
        (kept.get(node, {}) if node else kept).pop(name, None)
    return kept


def _find(config: Mapping[str, Any], key: str) -> Any:
    node, _, name = key.rpartition(".")
    within = config.get(node) if node else config
    return within.get(name) if isinstance(within, Mapping) else None

"""Checks of a composed config: its keys, and the values that no object checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.lightning_package import LIGHTNING
from lrkit.base.validation import FLAG, PLAIN_DATA, one_of, optional, record, text, whole
from lrkit.config import batch_options, node_options, resume_options, timeout, trainer_options, trusted_targets
from lrkit.config.callback_conflicts import find_conflict_of_path
from lrkit.config.find_options import Search
from lrkit.config.near_names import nearest_key, suggest_name
from lrkit.config.overrides import default_choices, leaf_paths
from lrkit.config.plan_objects import check_guard_keys
from lrkit.config.race_options import RaceOptions
from lrkit.config.shipped_options import read_shipped_file
from lrkit.config.trainer_options import check_count
from lrkit.config.unknown_keys import keys_of_options
from lrkit.planning import optimizer_tracks

__all__ = ["check_keys", "check_values", "top_keys"]

_SEED = whole(0, 2**32 - 1)
_AVERAGE = "lrkit.callbacks.weight_averaging.AveragedWeights"
_CHECKPOINTS = tuple(f"{package}.callbacks.ModelCheckpoint" for package in LIGHTNING)
#: The options of ``torch.compile`` that a config can have.
_COMPILE = record({}, {
    "mode": optional(one_of("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")),
    "backend": text(), "dynamic": optional(FLAG), "fullgraph": FLAG, "options": optional(PLAIN_DATA),
})  # fmt: skip


def check_values(config: Mapping[str, Any]) -> None:
    """Refuse invalid values, with the checks that do not need a plan."""
    trusted_targets.check(config)
    for name in (
        "data",
        "model",
        "optimizer",
        "trainer",
        "horizon",
        "batch",
        "batch_scaling",
        "weight_decay_rule",
        "callbacks",
        "logger",
        "find",
        "sweep",
        optimizer_tracks.KEY,
    ):
        if not isinstance(config.get(name), Mapping):
            raise ConfigError(name, "must be a group of keys", config.get(name))
    _check_run(config)
    _check_data_and_callbacks(config)
    _check_trainer_and_guard(config)


def _check_run(config: Mapping[str, Any]) -> None:
    """Check the keys at the top, and those of the groups of the run."""
    Search.of(config["find"])
    RaceOptions.of(config["sweep"])
    if config["jobs"] != "auto":
        check_count("jobs", config["jobs"])
    timeout.seconds(config.get("timeout"))
    one_of("continue", "stop").check("on_error", config["on_error"])
    one_of("off", "auto", "on").check("stack", config["stack"])
    FLAG.check("test", config["test"])
    _check_compile(config.get("compile", False))
    if config[optimizer_tracks.KEY]:
        optimizer_tracks.parse_tracks(config[optimizer_tracks.KEY])
        optimizer_tracks.refuse_combinations(config)
    batch_options.check(config)
    resume_options.check(config)
    _SEED.check("seed", config["seed"])
    if not isinstance(config["monitor"], str):
        raise ConfigError("monitor", "must be the name of a metric, or auto", config["monitor"])
    FLAG.check("allow_extreme_lr", config["allow_extreme_lr"])


def _check_compile(value: Any) -> None:
    """Check the key ``compile``: a flag, or the options of ``torch.compile``."""
    if isinstance(value, bool):
        return
    if not isinstance(value, Mapping):
        raise ConfigError("compile", "must be true, false, or options of torch.compile, {mode: max-autotune}", value)
    _COMPILE.check("compile", dict(value))
    if value.get("mode") is not None and value.get("options") is not None:
        raise ConfigError("compile", "must have mode or options, and not both: torch refuses them together", value)


def _check_data_and_callbacks(config: Mapping[str, Any]) -> None:
    """Check the nodes that may name the user's own classes: of their keys, lrkit knows only those that it reads."""
    data = config["data"]
    for name in ("batch_size", "train_samples"):
        if data.get(name) is not None:
            check_count(f"data.{name}", data[name])
    for name in ("data", "model"):
        node_options.check(name, config[name], suggest_name)
    for group in ("callbacks", "logger"):
        for name, node in config[group].items():
            if not isinstance(node, Mapping) or "_target_" not in node:
                raise ConfigError(f"{group}.{name}._target_", "must be set")
    for name, node in config["callbacks"].items():
        target = str(node["_target_"])
        if (why := find_conflict_of_path(target)) is not None:
            raise ConfigError(f"callbacks.{name}", why, target.rpartition(".")[2])
        if target in _CHECKPOINTS and config["trainer"].get("enable_checkpointing") is False:
            raise ConfigError(f"callbacks.{name}", "and trainer.enable_checkpointing=false cannot be used together")
    averages = [name for name, node in config["callbacks"].items() if node["_target_"] == _AVERAGE]
    if len(averages) > 1:
        must = f"must be the only average: a run has one, and callbacks.{averages[1]} is another"
        raise ConfigError(f"callbacks.{averages[0]}", must)


def _check_trainer_and_guard(config: Mapping[str, Any]) -> None:
    """Check the trainer, and the options that need a validation or another policy of the guard."""
    trainer = config["trainer"]
    packages = {str(name).partition(".")[0] for name in config.get("trust", ())}
    trainer_options.check(trainer, has_packages=bool(packages - {"lrkit", "torch", "lightning", "pytorch_lightning"}))
    if trainer.get("fast_dev_run") and config["horizon"].get("stop_after") is not None:
        must = "and trainer.fast_dev_run cannot be used together: both set the length of the run"
        raise ConfigError("horizon.stop_after", must)
    if trainer.get("limit_val_batches") == 0 and config["monitor"].startswith("val"):
        raise ConfigError("monitor", "needs a validation, and trainer.limit_val_batches is 0", config["monitor"])
    if trainer.get("barebones"):
        _check_barebones(config)
    if config["test"] and trainer.get("limit_test_batches") == 0:
        raise ConfigError("test", "and trainer.limit_test_batches=0 cannot be used together: nothing would be tested")
    check_guard_keys(config["guard"] or {})
    monitor = (config["plateau"] or {}).get("monitor")
    if trainer.get("limit_val_batches") == 0 and str(monitor).startswith("val"):
        raise ConfigError("plateau.monitor", "needs a validation, and trainer.limit_val_batches is 0", monitor)


def _check_barebones(config: Mapping[str, Any]) -> None:
    """Refuse what Lightning refuses under ``barebones``, with all words to type; and what needs a logged metric."""
    words = trainer_options.words_for_barebones(config["trainer"])
    if words := [*words, *(["logger=none"] if config["logger"] else [])]:
        raise ConfigError("trainer.barebones", f"measures the speed alone, and needs {' '.join(words)}", True)
    for key, said in (("plateau", bool(config["plateau"])), ("monitor", config["monitor"] != "auto")):
        if said:
            raise ConfigError(key, "and trainer.barebones cannot be used together: no metric is logged")


def check_keys(config: Mapping[str, Any]) -> None:
    """Refuse unknown keys, also those from ``+`` or from a file."""
    sections = {
        "trainer": read_shipped_file("trainer/default.yaml"),
        "batch_scaling": read_shipped_file("batch_scaling/linear.yaml"),
        "weight_decay_rule": read_shipped_file("weight_decay_rule/timescale.yaml"),
        "batch": read_shipped_file("train.yaml")["batch"],
        "horizon": read_shipped_file("train.yaml")["horizon"],
        "resume": read_shipped_file("train.yaml")["resume"],
        "find": read_shipped_file("train.yaml")["find"],
        "sweep": read_shipped_file("train.yaml")["sweep"],
    }
    for name in config:
        if name not in top_keys():
            there = [key for key in leaf_paths(config) if key.partition(".")[0] in top_keys()]
            raise ConfigError(name, f"is not a key. {nearest_key(name, there, keys_of_options())}")
    for name in {*sections, *default_choices(), "coschedule", optimizer_tracks.KEY}:
        if not isinstance(config[name], Mapping):
            first = next(iter(sections.get(name, ())), None)
            example = "" if first is None else f", such as {name}.{first}"
            raise ConfigError(name, f"must be a group of keys{example}", config[name])
    for section, known in sections.items():
        for name in config[section]:
            if name not in known:
                key = f"{section}.{name}"
                raise ConfigError(key, f"is not a key. {nearest_key(key, [f'{section}.{each}' for each in known])}")


def top_keys() -> set[str]:
    return {*read_shipped_file("train.yaml"), *default_choices()} - {"defaults", "hydra"}

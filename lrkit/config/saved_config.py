"""The config of a resumed run: the saved config of the run, with the overrides of the command line on top.

What is typed is applied as Hydra would apply it, only to other defaults: a key takes its new value, ``+`` adds and
``~`` removes, and an option that is chosen for a group takes the place of the whole group. A saved config may be a
untrusted one: it is data, and what it may name is checked as if it stood in a file.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lrkit.base.errors import ConfigError
from lrkit.base.files import read_json
from lrkit.base.validation import PLAIN_DATA
from lrkit.config.overrides import is_group, leaf_paths
from lrkit.config.shipped_options import schedule_defaults
from lrkit.config.trusted_targets import TARGET
from lrkit.config.unknown_keys import unknown_key
from lrkit.planning.plan_schema import SAVED

__all__ = [
    "config_beside",
    "rebase_overrides",
    "remember_config",
    "resume_path_in",
    "run_folder",
    "with_found_interval",
]

#: Configs that were read out of checkpoints, by the path that was typed: reading those takes torch.
_READ: dict[str, Mapping[str, Any]] = {}


def resume_path_in(parsed: Sequence[Override]) -> str | None:
    """The checkpoint or run folder that a command line resumes."""
    for override in parsed:
        if override.key_or_group == "resume.path" and not override.is_sweep_override() and override.value() is not None:
            return str(override.value())
    return None


def run_folder(path: str) -> Path | None:
    """The folder of the run that a path belongs to: itself, or the one that the checkpoint lies in."""
    place = Path(path)
    try:
        return next((folder for folder in (place, place.parent.parent) if (folder / "plan.json").is_file()), None)
    except (OSError, ValueError) as error:  # no path at all: too long, or with a null character
        why = getattr(error, "strerror", None) or error
        raise ConfigError("resume.path", f"must be a path that can be read ({why})", path) from None


def remember_config(path: str, config: Mapping[str, Any]) -> None:
    """Keep the config that was read out of a checkpoint which lies in no run's folder."""
    _READ[path] = config


def config_beside(path: str) -> dict[str, Any] | None:
    """The config of a run, from its folder; None if the folder has no readable config."""
    folder = run_folder(path)
    plan = None if folder is None else read_json(folder / "plan.json")
    config = plan.get("config") if isinstance(plan, dict) else None
    if not isinstance(config, dict) or not config:
        config = _READ.get(path)
    if config is None:
        return None
    try:
        SAVED.check("config", config)
        PLAIN_DATA.check("config", config)
    except ConfigError as error:
        raise ConfigError(
            "resume.path", f"must hold a config as lrkit writes it, and {str(error).rstrip('.')}"
        ) from None
    if any("${" in text for text in _find_texts(config)):
        raise ConfigError("resume.path", "must hold a config without interpolations, as every saved run has", path)
    return dict(config)


def rebase_overrides(base: Mapping[str, Any], parsed: Sequence[Override]) -> Any:
    """The saved config ``base`` with the overrides applied, still to be resolved. Needs Hydra to be initialised.

    Raises:
        ConfigError: an override names a key that is not there.
    """
    reference = _compose_plain([])
    config = _complete_config(base, reference)
    choices = [o for o in parsed if _chooses_option(o)]
    chosen = _compose_plain([str(o.input_line) for o in choices])
    replaced = []
    for override in choices:
        path = override.package or override.key_or_group
        if path.partition(".")[0] not in config:
            continue  # such as an experiment, which sets keys in many groups
        replaced.append(path)
        node = _read_path(chosen, path)
        if node is not None:
            _set_path(config, path, node)
        elif override.type == OverrideType.DEL:
            _remove_path(config, path)
    for path, value in _find_differences(reference, chosen):
        if not any(path == each or path.startswith(f"{each}.") for each in replaced):
            _set_path(config, path, value)
    values = [o for o in parsed if not _chooses_option(o) and not o.is_hydra_override()]
    keys = {o.key_or_group for o in values}
    if "seed" in keys and "data.seed" not in keys and _follows_seed(base):
        _set_path(config, "data.seed", "${seed}")
    made = OmegaConf.create(config)
    for override in values:
        _apply_override(made, override, chosen)
    return made


def with_found_interval(config: dict[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the interval in which the saved run's rate was found, as long as it is that rate."""
    found, rates = base.get("find"), [c["optimizer"].get("lr") for c in (config, base) if "optimizer" in c]
    interval = found.get("interval") if isinstance(found, Mapping) else None
    plain = isinstance(interval, list) and len(interval) == 2 and all(isinstance(x, int | float) for x in interval)
    if not plain or len(rates) < 2 or rates[0] != rates[1]:
        return config
    return {**config, "find": {**config["find"], "interval": interval}}


def _compose_plain(overrides: list[str]) -> dict[str, Any]:
    made: Any = OmegaConf.to_container(hydra.compose("train", overrides=overrides))
    return {str(key): value for key, value in made.items()}


def _chooses_option(override: Override) -> bool:
    """Whether an override chooses an option of a group."""
    if override.is_hydra_override() or override.key_or_group == "trust":
        return False
    return override.package is not None or is_group(override.key_or_group)


def _complete_config(base: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    """The saved config with the keys of a later lrkit, without its ``trust`` and ``resume``."""
    config = {**copy.deepcopy(dict(reference)), **copy.deepcopy(dict(base))}
    for section in ("trainer", "batch", "horizon", "find"):
        if isinstance(config[section], dict):
            config[section] = {**reference[section], **config[section]}
    config["find"].pop("interval", None)  # the result of a search is not a key to set
    return {**config, "trust": [], "resume": copy.deepcopy(reference["resume"])}


def _follows_seed(base: Mapping[str, Any]) -> bool:
    data = base.get("data")
    return isinstance(data, Mapping) and "seed" in data and data["seed"] == base.get("seed")


def _apply_override(config: Any, override: Override, reference: Mapping[str, Any]) -> None:
    key, value = override.key_or_group, override.value()
    there = _is_there(config, key)
    try:
        if override.type == OverrideType.DEL:
            if there:
                _remove_from(config, key)
            elif _read_path(reference, key) is None:  # else it was removed in the run's own command, too
                raise unknown_key(key, list(leaf_paths(OmegaConf.to_container(config))))
        elif override.type == OverrideType.CHANGE and not there and not _is_schedule_option(config, key):
            raise unknown_key(key, list(leaf_paths(OmegaConf.to_container(config))))
        else:
            OmegaConf.update(config, key, value, merge=True, force_add=True)
    except OmegaConfBaseException as error:
        raise ConfigError(key, f"cannot be set: {str(error).splitlines()[0].rstrip('.')}", value) from None


def _is_there(config: Any, key: str) -> bool:
    above, _, name = key.rpartition(".")
    node = OmegaConf.select(config, above) if above else config
    return OmegaConf.is_dict(node) and name in node.keys()  # noqa: SIM118 -- `in` says no where a value is missing


def _is_schedule_option(config: Any, key: str) -> bool:
    """Whether a key is an option of a schedule, which the config of a run by an older lrkit need not have."""
    above, _, name = key.rpartition(".")
    node: Any = OmegaConf.select(config, above) if above else None
    return OmegaConf.is_dict(node) and name in schedule_defaults(node.get(TARGET))


def _remove_from(config: Any, key: str) -> None:
    above, _, name = key.rpartition(".")
    node = OmegaConf.select(config, above) if above else config
    del node[name]


def _find_differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The changes by chosen options: path -> value; a whole node if its class differs."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)) or old.get(TARGET) != new.get(TARGET):
        if old != new:
            yield path, new
        return
    for name, value in new.items():
        yield from _find_differences(old.get(name), value, f"{path}.{name}" if path else str(name))


def _read_path(config: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(config, Mapping) or name not in config:
            return None
        config = config[name]
    return config


def _set_path(config: dict[str, Any], path: str, value: Any) -> None:
    *above, name = path.split(".")
    for each in above:
        if not isinstance(config.get(each), dict):
            config[each] = {}
        config = config[each]
    config[name] = copy.deepcopy(value)


def _remove_path(config: dict[str, Any], path: str) -> None:
    *above, name = path.split(".")
    node = _read_path(config, ".".join(above)) if above else config
    if isinstance(node, dict):
        node.pop(name, None)


def _find_texts(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield str(key)
            yield from _find_texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _find_texts(value)
    elif isinstance(node, str):
        yield node

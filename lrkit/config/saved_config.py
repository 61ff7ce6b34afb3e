"""A saved config, of a resumed run or of ``--config``, changed by the overrides of the command line.

The overrides act as in Hydra, but on the saved values in place of the defaults: a key gets its new value, ``+`` adds a
key, ``~`` removes one, and a chosen option replaces the whole group. A saved config may be untrusted: it is read as
data, and the classes in it are checked like those of a file.
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
from lrkit.base.run_files import PLAN
from lrkit.base.validation import PLAIN_DATA
from lrkit.config.overrides import is_group, leaf_paths
from lrkit.config.shipped_options import schedule_defaults
from lrkit.config.trusted_targets import TARGET
from lrkit.config.unknown_keys import unknown_key
from lrkit.planning.plan_schema import SAVED

__all__ = [
    "find_resume_path",
    "find_run_folder",
    "read_saved_config",
    "rebase_overrides",
    "remember_config",
    "with_found_interval",
]

#: Configs from checkpoints, by the path of the command line. Reading a checkpoint needs torch, so it is done once.
_READ: dict[str, Mapping[str, Any]] = {}


def find_resume_path(parsed: Sequence[Override]) -> str | None:
    """Return the checkpoint or run folder that a command line resumes; None for a new run."""
    for override in parsed:
        if override.key_or_group == "resume.path" and not override.is_sweep_override() and override.value() is not None:
            return str(override.value())
    return None


def find_run_folder(path: str) -> Path | None:
    """Return the run folder of a path: the folder itself, or the run folder of the checkpoint; None if it has none."""
    place = Path(path)
    try:
        return next((folder for folder in (place, place.parent.parent) if (folder / PLAN).is_file()), None)
    except (OSError, ValueError) as error:  # not a path: too long, or with a null character
        why = getattr(error, "strerror", None) or error
        raise ConfigError("resume.path", f"must be a path that can be read ({why})", path) from None


def remember_config(path: str, config: Mapping[str, Any]) -> None:
    """Keep the config of a checkpoint that is not in a run's folder."""
    _READ[path] = config


def read_saved_config(path: str) -> dict[str, Any] | None:
    """Return the config of a run, from its folder; None if the folder has no readable config."""
    folder = find_run_folder(path)
    plan = None if folder is None else read_json(folder / PLAN)
    config = plan.get("config") if isinstance(plan, dict) else None
    if not isinstance(config, dict) or not config:
        config = _READ.get(path)
    if config is None:
        return None
    try:
        SAVED.check("config", config)
        PLAIN_DATA.check("config", config)
    except ConfigError as error:
        raise ConfigError("resume.path", f"must contain a config of lrkit; in it, {str(error).rstrip('.')}") from None
    if any("${" in text for text in _find_texts(config)):
        raise ConfigError("resume.path", "must contain a config without interpolations, like every run of lrkit", path)
    return dict(config)


def rebase_overrides(base: Mapping[str, Any], parsed: Sequence[Override]) -> Any:
    """Return the saved config ``base`` with the overrides applied, not resolved yet. Hydra must be initialised.

    Raises:
        ConfigError: an override of an unknown key.
    """
    reference = _compose_plain([])
    config = _complete_config(base, reference)
    choices = [o for o in parsed if _chooses_option(o)]
    chosen = _compose_plain([str(o.input_line) for o in choices])
    replaced = []
    for override in choices:
        path = override.package or override.key_or_group
        if path.partition(".")[0] not in config:
            continue  # an option that sets keys in many groups, such as an experiment
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
    """Return the config with the interval and the origin of the saved run's rate, if the rate has not changed."""
    found, rates = base.get("find"), [c["optimizer"].get("lr") for c in (config, base) if "optimizer" in c]
    interval = found.get("interval") if isinstance(found, Mapping) else None
    plain = isinstance(interval, list) and len(interval) == 2 and all(isinstance(x, int | float) for x in interval)
    if not plain or len(rates) < 2 or rates[0] != rates[1]:
        return config
    origin = found.get("origin") if isinstance(found, Mapping) else None
    kept = {"interval": interval, **({"origin": origin} if isinstance(origin, str) else {})}
    return {**config, "find": {**config["find"], **kept}}


def _compose_plain(overrides: list[str]) -> dict[str, Any]:
    made: Any = OmegaConf.to_container(hydra.compose("train", overrides=overrides))
    return {str(key): value for key, value in made.items()}


def _chooses_option(override: Override) -> bool:
    """Return whether an override chooses an option of a group."""
    if override.is_hydra_override() or override.key_or_group == "trust":
        return False
    return override.package is not None or is_group(override.key_or_group)


def _complete_config(base: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    """Return the saved config with the keys of later versions of lrkit, without its ``trust`` and ``resume``."""
    config = {**copy.deepcopy(dict(reference)), **copy.deepcopy(dict(base))}
    for section in ("trainer", "batch", "horizon", "find"):
        if isinstance(config[section], dict):
            config[section] = {**reference[section], **config[section]}
    for section, known in reference.items():  # an option without its class: the default one
        node = config[section]
        if isinstance(node, dict) and node and isinstance(known, dict) and TARGET in known and TARGET not in node:
            config[section] = {**known, **node}
    for name in ("interval", "origin"):  # the result of a search is not a key to set
        config["find"].pop(name, None)
    return {**config, "trust": [], "resume": copy.deepcopy(reference["resume"])}


def _follows_seed(base: Mapping[str, Any]) -> bool:
    data = base.get("data")
    return isinstance(data, Mapping) and "seed" in data and data["seed"] == base.get("seed")


def _apply_override(config: Any, override: Override, reference: Mapping[str, Any]) -> None:
    key, value = override.key_or_group, override.value()
    there = _has_key(config, key)
    try:
        if override.type == OverrideType.DEL:
            if there:
                _remove_from(config, key)
            elif (
                _read_path(reference, key) is None
            ):  # a key of the defaults may have been removed by the run's own command
                raise unknown_key(key, list(leaf_paths(OmegaConf.to_container(config))))
        elif override.type == OverrideType.CHANGE and not there and not _is_schedule_option(config, key):
            raise unknown_key(key, list(leaf_paths(OmegaConf.to_container(config))))
        else:
            OmegaConf.update(config, key, value, merge=True, force_add=True)
    except OmegaConfBaseException as error:
        raise ConfigError(key, f"cannot be set: {str(error).splitlines()[0].rstrip('.')}", value) from None


def _has_key(config: Any, key: str) -> bool:
    above, _, name = key.rpartition(".")
    node = OmegaConf.select(config, above) if above else config
    return OmegaConf.is_dict(node) and name in node.keys()  # noqa: SIM118 -- `in` says no where a value is missing


def _is_schedule_option(config: Any, key: str) -> bool:
    """Return whether a key is an option of a schedule, which a config of an older lrkit may lack."""
    above, _, name = key.rpartition(".")
    node: Any = OmegaConf.select(config, above) if above else None
    return OmegaConf.is_dict(node) and name in schedule_defaults(node.get(TARGET))


def _remove_from(config: Any, key: str) -> None:
    above, _, name = key.rpartition(".")
    node = OmegaConf.select(config, above) if above else config
    del node[name]


def _find_differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values that differ, by path; if the class of a node differs, the whole node."""
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

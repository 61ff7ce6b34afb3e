"""Explains an error of Hydra in one line, with the key that the user typed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf

from lrkit.base.errors import ConfigError
from lrkit.config.overrides import (
    default_choices,
    group_names,
    leaf_paths,
    with_added_tracks,
)
from lrkit.config.unknown_keys import unknown_key
from lrkit.planning import optimizer_tracks

__all__ = ["PLUGINS", "explain_hydra_error"]


#: Hydra's launchers and sweepers for which lrkit has presets: the package of each, and the extra that installs it.
PLUGINS = {
    "hydra/launcher/joblib": ("hydra-joblib-launcher", "joblib"),
    "hydra/launcher/ray": ("hydra-ray-launcher", "ray"),
    "hydra/launcher/submitit_local": ("hydra-submitit-launcher", "slurm"),
    "hydra/launcher/submitit_slurm": ("hydra-submitit-launcher", "slurm"),
    "hydra/sweeper/optuna": ("hydra-optuna-sweeper", "optuna"),
}


def explain_hydra_error(error: Exception, parsed: Sequence[Override], config_dir: str | None = None) -> ConfigError:
    """Return the error for a refusal of Hydra, with the key and similar keys. Hydra must be initialised."""
    if not isinstance(error, HydraException) and (unread := _find_unreadable_file(config_dir)) is not None:
        return unread
    if isinstance(error, MissingConfigException) and error.missing_cfg_file in PLUGINS:
        return _explain_missing_plugin(error.missing_cfg_file, [str(o.input_line) for o in parsed])
    groups = group_names()
    chosen = [str(o.input_line) for o in parsed if o.key_or_group in groups]
    plain = ConfigError("config", f"cannot be composed: {_shorten_error(error)}")
    try:
        reference = OmegaConf.to_container(compose("train", overrides=with_added_tracks(chosen)))
    except Exception:  # the keys are valid, so a chosen option has the error
        return plain
    keys = list(leaf_paths(reference))
    for override in parsed:
        key = override.key_or_group
        if key in groups or override.is_hydra_override():
            continue
        if key.partition(".")[0] == optimizer_tracks.KEY:  # the node is empty by default
            if key == optimizer_tracks.KEY and not isinstance(override.value(), dict):
                return optimizer_tracks.no_such_track(override.value())
            continue
        known = key in keys or any(k.startswith(f"{key}.") for k in keys)
        if known and override.type == OverrideType.ADD:
            return ConfigError(key, "already exists: drop the +")
        if not known and override.type in (OverrideType.CHANGE, OverrideType.DEL):
            return unknown_key(key, keys, *_chosen_options(parsed))
    return plain


def _chosen_options(parsed: Sequence[Override]) -> tuple[dict[str, str], set[str]]:
    """The option of each group, and the groups whose class is the user's."""
    typed = {override.key_or_group: override.value() for override in parsed if override.package is None}
    chosen = {group: str(typed.get(group, option)) for group, option in default_choices().items()}
    own = {group for group, option in chosen.items() if option == "custom" or f"{group}._target_" in typed}
    return chosen, own


def _find_unreadable_file(config_dir: str | None) -> ConfigError | None:
    """Return the error for the first of the user's own files that is not a config; None if all are."""
    for file in sorted(Path(config_dir).rglob("*.yaml")) if config_dir else ():
        try:
            OmegaConf.load(file)
        except Exception as error:
            return ConfigError(str(file), f"cannot be read as YAML: {_shorten_error(error)}")
    return None


def _shorten_error(error: Exception, limit: int = 400) -> str:
    """Return the message of an error in one line of limited length."""
    if isinstance(error, RecursionError):
        return "it has a reference to itself, or is nested too deeply"
    said = " ".join((str(error) or type(error).__name__).split()).rstrip(".")
    return said if len(said) <= limit else f"{said[:limit]}..."


def _explain_missing_plugin(plugin: str, overrides: Sequence[str]) -> ConfigError:
    """Return the error for a plugin that is not installed: the key that chose it, and the command that installs it."""
    package, extra = PLUGINS[plugin]
    plain = "=".join(plugin.rsplit("/", 1))
    presets = [text for text in overrides if text.lstrip("+").startswith("launcher=")]
    asked = plain if plain in overrides or not presets else presets[0]
    return ConfigError(asked, f"needs the package {package}: pip install 'lrkit[{extra}]'")

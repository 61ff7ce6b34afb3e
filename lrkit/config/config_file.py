"""The whole config in a file, as each run saves it: ``lrkit train --config outputs/runs/X/config.yaml``.

The file takes the place of the defaults: what is typed is applied on top, as for a resumed run, and every key that the
file lacks keeps its default. A file may come from elsewhere, so it is data: it is read as plain YAML or JSON, may refer
to its own keys only, and trusts no package. ``--config FILE`` is the word ``config_file=FILE`` among the overrides, so
that each job of a sweep has it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lrkit.base.command_line import CONFIG_FILE
from lrkit.base.errors import ConfigError
from lrkit.base.files import write_file
from lrkit.base.validation import PLAIN_DATA
from lrkit.config import yaml_screening
from lrkit.config.overrides import parse_overrides
from lrkit.planning.plan_schema import SAVED

__all__ = ["read_config_file", "split_config_file", "write_config_file"]

_HEADER = "# The whole config of this run. To train it anew: lrkit train --config {name} [overrides]\n"


def split_config_file(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """The file of ``--config``, or None; and the other overrides.

    >>> split_config_file(["config_file='outputs/a b/config.yaml'", "seed=1"])
    ('outputs/a b/config.yaml', ['seed=1'])
    """
    own = [word for word in overrides if word.partition("=")[0] == CONFIG_FILE]
    rest = [word for word in overrides if word not in own]
    return (str(parse_overrides(own)[0].value()) if own else None), rest


def write_config_file(file: Path, config: Mapping[str, Any]) -> None:
    """Write a config as YAML, for ``--config``.

    Raises:
        RunError: the file cannot be written.
    """
    write_file(file, _HEADER.format(name=file.name) + OmegaConf.to_yaml(OmegaConf.create(dict(config))))


def read_config_file(path: str) -> dict[str, Any]:
    """The config in a file, with references to its own keys still to be resolved, and without its ``trust``.

    Raises:
        ConfigError: the file cannot be read, is not plain data, or is no config of a run.
    """
    try:
        text = yaml_screening.read_bounded(Path(path))  # once: another process may replace the file after the check
        content = yaml_screening.parse_plain(path, text)
        if not isinstance(content, Mapping):
            raise ConfigError(path, "must be the whole config of a run: a group of keys")
        yaml_screening.check_interpolations(path, content)
        if "defaults" in content:
            must = "must be the whole config of a run, and its defaults choose options: use --config-dir for it"
            raise ConfigError(path, must)
        read: Any = OmegaConf.to_container(OmegaConf.load(io.BytesIO(text)))  # which reads 1e-3 as a number
    except ConfigError:
        raise
    except Exception as error:  # of the file system, YAML and OmegaConf
        said = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(path, f"cannot be read: {said[0].rstrip('.')}") from None
    config = {str(key): value for key, value in read.items() if key != "trust"}
    try:
        SAVED.check("config", config)
        PLAIN_DATA.check("config", config)
    except ConfigError as error:
        raise ConfigError(path, f"must be the config of a run, and {str(error).rstrip('.')}") from None
    return config

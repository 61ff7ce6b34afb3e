"""Checks of the options of datasets; an error names the key."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.installed_packages import is_installed
from lrkit.base.validation import FLAG, is_number

__all__ = [
    "check_exists",
    "check_flag",
    "check_fractions",
    "check_path",
    "find_extra",
    "import_extra",
    "missing_extra_error",
]


def import_extra(module: str, data: str, extra: str) -> Any:
    """The module of an optional package.

    Raises:
        ConfigError: the package is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_extra_error(module.partition(".")[0], data, extra) from error


def find_extra(package: str, data: str, extra: str) -> None:
    """Refuse an optional package that is not installed; it is not imported.

    Raises:
        ConfigError: the message has the command that installs it.
    """
    if not is_installed(package):
        raise missing_extra_error(package, data, extra)


def check_exists(path: Path) -> None:
    """Refuse a path of ``data.path`` where no file is."""
    if not path.exists():
        raise ConfigError("data.path", "must be a readable file: No such file or directory", str(path))


def missing_extra_error(package: str, data: str, extra: str) -> ConfigError:
    """The error for an optional package that is not installed."""
    return ConfigError(f"data={data}", f"needs the package {package}: pip install 'lrkit[{extra}]'")


def check_fractions(val: Any, test: Any) -> tuple[float, float]:
    """The shares of the samples for validation and test, which leave some to train on."""
    for key, value in (("data.val_fraction", val), ("data.test_fraction", test)):
        if not is_number(value) or not 0 < value < 1:
            raise ConfigError(key, "must be a number between 0 and 1", value)
    if val + test >= 1:
        raise ConfigError("data.val_fraction", f"must be below 1 - data.test_fraction ({test})", val)
    return float(val), float(test)


def check_path(key: str, value: Any, kind: str) -> Path:
    """A path, with ``~`` expanded; the message calls it ``kind``."""
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(key, f"must be {kind}", value)
    return Path(value).expanduser()


def check_flag(key: str, value: Any) -> bool:
    """A flag: true or false, as YAML has them."""
    FLAG.check(key, value)
    return bool(value)

"""Options of datasets: checked, with the key that is wrong."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.option_rules import SWITCH, is_number

__all__ = ["check_flag", "check_fractions", "check_path", "extra_is_missing", "import_extra"]


def import_extra(module: str, data: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise extra_is_missing(module.partition(".")[0], data, extra) from error


def extra_is_missing(package: str, data: str, extra: str) -> ConfigError:
    return ConfigError(f"data={data}", f"needs the package {package}: pip install 'lrkit[{extra}]'")


def check_fractions(val: Any, test: Any) -> tuple[float, float]:
    for key, value in (("data.val_fraction", val), ("data.test_fraction", test)):
        if not is_number(value) or not 0 < value < 1:
            raise ConfigError(key, "must be a share between 0 and 1", value)
    if val + test >= 1:
        raise ConfigError("data.val_fraction", f"must be below 1 - data.test_fraction ({test})", val)
    return float(val), float(test)


def check_path(key: str, value: Any, what: str) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(key, f"must be {what}", value)
    return Path(value).expanduser()


def check_flag(key: str, value: Any) -> bool:
    SWITCH.check(key, value)
    return bool(value)

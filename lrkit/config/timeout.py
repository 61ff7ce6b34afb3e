"""The time limit of a job: ``timeout``, in the form of Lightning's ``trainer.max_time``."""

from __future__ import annotations

import re
from typing import Any

from lrkit.base.errors import ConfigError

__all__ = ["seconds"]


def seconds(timeout: Any) -> float | None:
    """Return a timeout in seconds; None for no timeout.

    Args:
        timeout: ``days:hours:minutes:seconds``.

    Raises:
        ConfigError: another form, or 0.

    >>> seconds("00:02:30:00"), seconds(None)
    (9000.0, None)
    """
    if timeout is None:
        return None
    written = isinstance(timeout, str) and re.fullmatch(r"[0-9]{1,4}(:[0-9]{1,2}){3}", timeout)
    count = 0
    for number, unit in zip(timeout.split(":") if written else (), (86400, 3600, 60, 1), strict=False):
        count += int(number) * unit
    if count == 0:
        must = "must be days:hours:minutes:seconds, such as 00:02:30:00, and longer than 0, or null"
        raise ConfigError("timeout", must, timeout)
    return float(count)

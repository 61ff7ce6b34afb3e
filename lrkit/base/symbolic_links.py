"""The check of an output folder for links that lead out of it, and for pipes and devices.

A folder of runs may be untrusted, and a link in it may lead to any file of the user's. ``lrkit.base.files`` replaces a
link or a pipe; but Hydra, loggers and callbacks write through a link, and a write to a pipe blocks. The folder that
the user names may itself be a link, as scratch folders often are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lrkit.base.errors import ConfigError
from lrkit.base.run_files import CONFIG_JSON, CONFIG_YAML, ENVIRONMENT, ERROR_LOG, EVENTS, FIND, METRICS, PLAN, SWEEP

__all__ = ["check_links", "find_outside_links"]

#: The files that only ``lrkit.base.files`` and ``lrkit.checkpoint.durable_io`` write, which replace a link.
_REPLACED = {
    PLAN, CONFIG_JSON, CONFIG_YAML, ENVIRONMENT, METRICS, EVENTS, SWEEP,
    FIND, "find.csv", "find.png", "results.csv", "results.md", "tuned.csv", "compare.png", "compare.html",
    ERROR_LOG,
}  # fmt: skip


def check_links(folder: Path, key: str) -> None:
    """Refuse a folder that contains a link to a target outside of it, a pipe or a device.

    Args:
        folder: folder of a run or of a sweep; it need not exist.
        key: key by which the user named the folder.

    Raises:
        ConfigError: with the link and its target.
    """
    for link, target in find_outside_links(folder):
        if target is None:
            must = f"must contain only files and folders, and {link} is neither: a run would block on it"
            raise ConfigError(key, must, str(folder))
        must = f"must not contain a link to a target outside, which a run would overwrite: {link} leads to {target}"
        raise ConfigError(key, f"{must}; remove the link, or replace it by a copy of its target", str(folder))


def find_outside_links(folder: Path) -> Iterator[tuple[Path, Path | None]]:
    """Yield each link below ``folder`` that leads out of it and that a run would follow, with its target.

    For a pipe, a socket or a device the target is None.
    """
    top = folder.resolve()
    for place, inner, files in os.walk(top):
        for name in sorted((*inner, *files)):
            path = Path(place, name)
            try:
                mode = path.lstat().st_mode
                if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                    continue
                is_link, target = stat.S_ISLNK(mode), path.resolve()
                by_hydra = path.parent.name == ".hydra"  # Hydra's own config.yaml is written through a link
                replaced = not (by_hydra or path.is_dir()) and (name in _REPLACED or name.endswith(".ckpt"))
            except (OSError, RuntimeError):  # the entry is gone, or is a link to itself
                continue
            if replaced or (is_link and (target == top or top in target.parents)):
                continue
            yield folder / path.relative_to(top), target if is_link else None

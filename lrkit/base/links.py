"""Links and pipes in a folder that is written into: what is written would go out of it, or wait for ever.

A folder of runs may be somebody else's, and a link in it may lead to anything of the user's. What ``lrkit.base.files``
writes takes the place of a link, or of a pipe; but Hydra, loggers and callbacks write through it, and so does whoever
writes into a folder that is a link. A folder that the user names may itself be one, as scratch space is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lrkit.base.errors import ConfigError

__all__ = ["check_links", "links_out"]

#: What only ``lrkit.base.files`` and ``lrkit.checkpoint.io`` write, which replace a link.
_REPLACED = {
    "plan.json", "config.json", "metrics.json", "events.json", "sweep.json", "find.json", "find.csv", "find.png",
    "results.csv", "results.md", "tuned.csv", "compare.png", "compare.html", "error.log",
}  # fmt: skip


def check_links(folder: Path, key: str) -> None:
    """Refuse a folder in which a link leads out of it, or that has a pipe or a device in it.

    Args:
        folder: the folder of a run or of a sweep; it need not exist.
        key: what the user typed to name it.

    Raises:
        ConfigError: naming the link, and where it leads.
    """
    for link, target in links_out(folder):
        if target is None:
            must = f"must have files and folders in it alone, and {link} is neither: a run would wait for it"
            raise ConfigError(key, must, str(folder))
        must = f"must not have a link that leads out of it, for a run would write through it: {link} leads to {target}"
        raise ConfigError(key, f"{must}; take it away, or put what it leads to in its place", str(folder))


def links_out(folder: Path) -> Iterator[tuple[Path, Path | None]]:
    """The links below ``folder`` that lead out of it and would be written through, and where each leads to.

    None stands for the place of what is itself no file: a pipe, a socket, a device.
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
                replaced = not path.is_dir() and (name in _REPLACED or name.endswith(".ckpt"))
            except (OSError, RuntimeError):  # it is gone, or leads to itself, and so nowhere
                continue
            if replaced or (is_link and (target == top or top in target.parents)):
                continue
            yield folder / path.relative_to(top), target if is_link else None

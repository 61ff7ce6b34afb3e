"""Links in a folder that is written into: one that leads out of it is refused, for what is written would go there.

A folder of runs may be somebody else's, and a link in it may lead to anything of the user's. What ``lrkit.files``
writes takes the place of a link; but Hydra, loggers and callbacks write through it, and so does whoever writes into a
folder that is one. A folder that the user names may itself be a link, as scratch space is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lrkit.errors import ConfigError

__all__ = ["check_links", "links_out"]

#: What only ``lrkit.files`` and ``lrkit.storage`` write, which replace a link.
_REPLACED = {
    "plan.json", "config.json", "metrics.json", "events.json", "sweep.json", "find.json", "find.csv", "find.png",
    "results.csv", "results.md", "tuned.csv", "compare.png", "compare.html", "error.log",
}  # fmt: skip


def check_links(folder: Path, key: str) -> None:
    """Refuse a folder in which a link leads out of it.

    Args:
        folder: the folder of a run or of a sweep; it need not exist.
        key: what the user typed to name it.

    Raises:
        ConfigError: naming the link, and where it leads.
    """
    for link, target in links_out(folder):
        must = f"must not have a link that leads out of it, for a run would write through it: {link} leads to {target}"
        raise ConfigError(key, f"{must}; take it away, or put what it leads to in its place", str(folder))


def links_out(folder: Path) -> Iterator[tuple[Path, Path]]:
    """The links below ``folder`` that lead out of it and would be written through, and where each leads to."""
    top = folder.resolve()
    for place, inner, files in os.walk(top):
        for name in sorted((*inner, *files)):
            path = Path(place, name)
            if not path.is_symlink():
                continue
            try:
                target, is_folder = path.resolve(), path.is_dir()
            except (OSError, RuntimeError):  # it leads to itself, and so nowhere
                continue
            replaced = not is_folder and (name in _REPLACED or name.endswith(".ckpt"))
            if not replaced and target != top and top not in target.parents:
                yield folder / path.relative_to(top), target

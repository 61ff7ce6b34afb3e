"""The modules that the server process of a sweep imports for all jobs, before it forks them."""

from __future__ import annotations

from collections.abc import Iterable

from lrkit.base.command_line import CONFIG_FILE

__all__ = ["list_preloaded"]

#: The modules of a job that use Lightning; their import fixes the Lightning package of the process.
_OF_LIGHTNING = ("lrkit.training.run", "lrkit.models", "lrkit.data.digits")


def list_preloaded(words: Iterable[str], config_dir: str | None) -> tuple[str, ...]:
    """Return the modules to import before the jobs are forked.

    A class of the user's decides which Lightning package its job uses, and its module is imported by the job itself.
    So a sweep that may name such a class leaves the modules that use Lightning to the jobs.

    Args:
        words: overrides of all jobs.
        config_dir: folder of the user's own configs, which may name classes.

    >>> list_preloaded(["model._target_=mycode.Net"], None)
    ('lrkit.sweep.server_warmup',)
    """
    own = config_dir is not None or any("_target_" in word or word.startswith(("trust", CONFIG_FILE)) for word in words)
    return (*(() if own else _OF_LIGHTNING), "lrkit.sweep.server_warmup")

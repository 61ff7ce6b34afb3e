"""Paired values for Hydra's own sweeper, which has no form for them (facebookresearch/hydra#1258).

Its launchers get lists of jobs. With paired values the list is that of lrkit's own sweeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.plugins import Plugins

from lrkit.config.overrides import is_paired, parse_overrides
from lrkit.config.sweep_values import expand_jobs, list_choices
from lrkit.config.swept_config import BASIC_SWEEPER

__all__ = ["taking_pairs"]


@contextmanager
def taking_pairs(hydra_words: Sequence[str], words: Sequence[str], config_dir: str | None) -> Iterator[list[str]]:
    """Within the context Hydra's sweeper runs the jobs of ``words``; yields the words of its command line.

    Args:
        hydra_words: the command line for Hydra.
        words: the sweep, with the values that its config sweeps.
        config_dir: folder of the user's own configs.
    """
    if not any(map(is_paired, words)):
        yield list(hydra_words)
        return
    of_jobs = [word for word in words if is_paired(word) or not parse_overrides([word])[0].is_hydra_override()]
    jobs = expand_jobs(of_jobs, config_dir)

    # As Hydra calls it; an import may give another class of the same name, for Hydra loads its plugins itself.
    sweeper: Any = Plugins.instance().class_name_to_class[BASIC_SWEEPER]

    def split_arguments(overrides: Any, max_batch_size: int | None) -> list[list[list[str]]]:
        return list(sweeper.split_overrides_to_chunks(jobs, max_batch_size))

    of_files = [word for word in words if word not in hydra_words and word in of_jobs]
    kept = [word for word in hydra_words if not is_paired(word)]
    before = sweeper.__dict__["split_arguments"]
    sweeper.split_arguments = staticmethod(split_arguments)
    try:
        # Each key alone is a sweep that Hydra can read. Its values in the files would be multiplied once more.
        yield [*kept, *_list_values(of_jobs), *(w for w in of_files if not is_paired(w)), "hydra.sweeper.params=null"]
    finally:
        sweeper.split_arguments = before


def _list_values(words: Sequence[str]) -> list[str]:
    """Paired values as values of each key: ``a,b=(1,2),(3,4)`` becomes ``a=1,3`` and ``b=2,4``."""
    listed = []
    for choice in list_choices([word for word in words if is_paired(word)]):
        for i, key in enumerate(choice.keys):
            values = dict.fromkeys(words[i].partition("=")[2] for words in choice.alternatives)
            listed.append(f"{key}={','.join(values)}")
    return listed

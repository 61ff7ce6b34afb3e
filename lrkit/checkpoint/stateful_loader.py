"""Loads the state of a loader that has ``state_dict`` and ``load_state_dict``: torchdata's, litdata's, streaming's, ...

The loaders differ in the state that they have at the end of an epoch, and in the time at which they create the iterator
of torch, which draws a random number. Lightning knows the number of batches and takes no more, so such a loader does
not notice that its epoch has ended.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from lrkit.checkpoint import random_state

__all__ = ["end_epoch", "has_state", "load_state", "observe_fetches", "restore_at_iterator"]


def has_state(loader: Any) -> bool:
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def load_state(loader: Any, state: Any, mid_epoch: bool) -> None:
    """Load a state, after which the next iterator has the first batch that is not done.

    At the end of an epoch three things are possible: torchdata's ``StatefulDataLoader`` would have no batch in the next
    epoch, and needs no state; streaming's loader has no batch left, so one empty pass starts its next epoch; litdata's
    has the batches of the next epoch.
    """
    if not mid_epoch and _is_of_torchdata(loader):
        return
    loader.load_state_dict(state)
    keeps_its_place = not isinstance(loader, DataLoader)  # one that begins its next epoch, at any position
    if mid_epoch or keeps_its_place:
        return
    batches = iter(loader)
    try:
        next(batches)
    except StopIteration:
        return
    del batches
    loader.load_state_dict(state)


def restore_at_iterator(loader: Any, restore: Callable[[], None]) -> None:
    """Call ``restore`` once, when the loader creates torch's iterator, if it does that with its first batch."""
    if not isinstance(loader, DataLoader) or not inspect.isgeneratorfunction(type(loader).__iter__):
        return
    usual = loader._get_iterator

    def get_iterator() -> Any:
        vars(loader).pop("_get_iterator", None)
        made = usual()
        restore()
        return made

    vars(loader)["_get_iterator"] = get_iterator


def observe_fetches(fetcher: Any, observe: Callable[[], None]) -> None:
    """Call ``observe`` before each batch that Lightning fetches ahead: it does that if their number is unknown."""
    usual = getattr(fetcher, "_start_profiler", None)  # Lightning calls it before each batch
    if usual is None or getattr(usual, "observes", False):
        return

    def start() -> None:
        if fetcher.length is None and fetcher.fetched:
            observe()
        usual()

    start.observes = True  # type: ignore[attr-defined]
    fetcher._start_profiler = start


def end_epoch(loader: Any, batches: Iterator[Any] | None) -> None:
    """Take what follows the last batch of a resumed epoch: without it litdata's loader would resume once more."""
    if batches is None or not isinstance(loader, DataLoader) or _is_of_torchdata(loader):
        return
    before = random_state.capture_global()
    next(batches, None)
    random_state.restore_global(before)


def _is_of_torchdata(loader: Any) -> bool:
    return any(cls.__module__.partition(".")[0] == "torchdata" for cls in type(loader).__mro__)

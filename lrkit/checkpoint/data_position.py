"""Saves and restores the position in the training data, with the random number generators that determine the order.

A ``DataLoader`` draws its order from random number generators, when its iterator is created or when the first batch is
fetched. A resumed run therefore restores the generators before Lightning creates the iterator:

    checkpoint at the end of an epoch   the generators of the checkpoint; the next epoch draws its order from them
    checkpoint within an epoch          the generators at the start of the epoch, so that it draws the same order
                                        again; the sampler skips the completed batches, which are not loaded; then the
                                        generators of the checkpoint

A loader with ``state_dict`` and ``load_state_dict`` restores its position itself. If a position cannot be restored,
lrkit reports it before training.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, Sampler
from torch.utils.data.datapipes.datapipe import IterDataPipe

from lrkit.base.errors import ConfigError
from lrkit.checkpoint import random_state
from lrkit.checkpoint.random_state import RandomState
from lrkit.checkpoint.stateful_loader import (
    end_epoch,
    has_state,
    load_state,
    observe_fetches,
    restore_at_iterator,
)  # fmt: skip
from lrkit.lightning.imports import Trainer
from lrkit.lightning.preemption import validation_follows

__all__ = ["DataPosition"]

#: Packages whose samplers draw their order only from generators and the number of the epoch.
_KNOWN = ("torch", "pytorch_lightning", "lightning", "lightning_fabric")


class DataPosition:
    """Records how the order of the current epoch was drawn, and restores the position in a resumed run.

    Args:
        saved: the result of ``state`` in the checkpoint to resume, if any.
        say: called with a line for the user.
    """

    def __init__(self, saved: Mapping[str, Any] | None, say: Callable[[str], None]) -> None:
        self.saved, self.say = saved, say
        self.before: RandomState | None = None  # the generators before the iterator of the epoch was created
        self.begun: dict[str, Any] | None = None  # the generators by which the order of the epoch was drawn
        self.found = saved is None
        self.ahead: Any = None  # the state of the loader before it fetched a batch ahead
        self.loaded = False  # whether the loader of the resumed epoch has loaded its position
        self.passes = False  # whether the sampler skips completed batches
        self.stopped: RandomState | None = None  # the generators after the last batch of an incomplete epoch

    def install(self, trainer: Trainer) -> None:
        """Wrap the methods in which Lightning creates iterators. Call this before the fit."""
        loop = trainer.fit_loop
        for owner, name, method in (
            (loop, "setup_data", self._wrap_setup_data),
            (loop, "_load_combined_loader_states", self._wrap_first_iterator),
            (loop, "load_state_dict", self._wrap_load_loops),
            (loop, "on_advance_start", self._wrap_epoch_start),
            (loop, "on_advance_end", self._wrap_epoch_end),
            (loop.epoch_loop, "on_run_start", self._wrap_iterator),
            (loop.epoch_loop.val_loop, "run", self._wrap_validation),
        ):
            setattr(owner, name, partial(method, trainer, getattr(owner, name)))

    def state(self, trainer: Trainer) -> dict[str, Any]:
        """Return the position for a checkpoint: plain data and tensors."""
        loader: Any = trainer.train_dataloader
        mid_epoch = not trainer.is_last_batch
        now = self.stopped or self._capture_all(trainer.fit_loop._combined_loader)
        return {
            "rng": now["rng"],
            "generators": now["own"],
            "data": self._read_position(loader, mid_epoch),
            "mid_epoch": mid_epoch,
            "epoch_begin": self.begun if mid_epoch and _can_skip(loader) else None,
            "loader": _describe_batches(trainer),
            "reloaded": _round_if_finite(trainer.fit_loop._last_train_dl_reload_epoch),
        }

    def _read_position(self, loader: Any, mid_epoch: bool) -> Any:
        if not has_state(loader):
            return None
        return self.ahead if mid_epoch and self.ahead is not None else loader.state_dict()

    def _keep_position(self, trainer: Trainer) -> None:
        self.ahead = self._read_position(trainer.train_dataloader, mid_epoch=False)

    def told(self, trainer: Trainer) -> None:
        """Report the differences in the data to an uninterrupted run, before training.

        Raises:
            ConfigError: the checkpoint was written within an epoch, and the loader makes other batches.
        """
        loader: Any = trainer.train_dataloader
        if self.saved is None:
            if not has_state(loader) and not _can_skip(loader):
                self.say(
                    f"{_describe_loader(loader)} has no state_dict: if this run is stopped within an epoch, the resumed"
                    " epoch will start with its first batches again"
                )
            return
        self._check_batches(trainer)
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
        if why := self._explain_lost_position(trainer):
            self.say(
                f"the checkpoint was written within an epoch, and {why}: the resumed epoch starts with its first"
                " batches again"
            )
        elif self.saved["mid_epoch"] and not has_state(loader) and loader.num_workers:
            self.say(
                "the order of the data is restored; random numbers that the dataset draws in its"
                f" {loader.num_workers} worker process(es) differ until this epoch ends"
            )
        elif getattr(loader, "persistent_workers", False) and not has_state(loader):
            self.say(
                "the order of the data is restored; random numbers that the dataset draws in persistent workers differ"
                " from an uninterrupted run"
            )
        for name in dict.fromkeys(type(s).__name__ for s in _list_samplers(loader) if not _is_known(s)):
            if not has_state(loader):
                self.say(
                    f"the order of the data comes from {name}: the global random numbers and the generators among its"
                    " attributes are restored; lrkit does not know its other state"
                )

    def _explain_lost_position(self, trainer: Trainer) -> str:
        """Return the reason why the position within an epoch cannot be restored; an empty string if there is none."""
        assert self.saved is not None
        loader = trainer.train_dataloader
        if not self.saved["mid_epoch"]:
            return ""
        if has_state(loader):
            return "" if self.saved["data"] is not None else f"it has no position of {_describe_loader(loader)}"
        if not _can_skip(loader):
            return f"{_describe_loader(loader)} cannot skip batches"
        if self.saved.get("epoch_begin") is None:
            return "it does not record how the order of the epoch was drawn"
        return ""

    def _check_batches(self, trainer: Trainer) -> None:
        """Refuse other batches within an epoch: the position is a number of batches."""
        assert self.saved is not None
        was, now = self.saved.get("loader"), _describe_batches(trainer)
        if self.saved["mid_epoch"] and was is not None and None not in (was[0], now[0]) and was != now:
            must = f"must have the batches of the checkpoint, which was written within an epoch: {_format_batches(was)}"
            raise ConfigError("data", f"{must}; or resume a checkpoint from the end of an epoch", _format_batches(now))

    def _wrap_setup_data(self, trainer: Trainer, usual: Callable[[], None]) -> None:
        # A resumed run reloads the loader at the same epochs as an uninterrupted run, not at its start.
        if self.found or trainer.fit_loop._combined_loader is None:
            usual()

    def _wrap_first_iterator(self, trainer: Trainer, usual: Callable[[], None]) -> None:
        self.before = self._capture_all(trainer.fit_loop._combined_loader)
        usual()

    def _wrap_load_loops(self, trainer: Trainer, usual: Callable[..., None], *given: Any, **more: Any) -> None:
        usual(*given, **more)
        if self.saved is None or self.saved["mid_epoch"]:
            return
        # All batches of the epoch are done, so the next epoch starts. Lightning would end the epoch a second time if
        # the run is limited by steps, and callbacks would miss their monitored metric.
        progress = trainer.fit_loop.epoch_progress
        counts: Any = (progress.total, progress.current)
        for count in counts:
            count.started = count.processed = count.completed = count.ready
        _reset_loop(trainer.fit_loop)

    def _wrap_epoch_start(self, trainer: Trainer, usual: Callable[[], None]) -> None:
        """Restore the generators when an epoch starts or is resumed, before it draws random numbers."""
        self.begun = None
        if not self.found:
            assert self.saved is not None
            loader: Any = trainer.train_dataloader
            self.found, saved = True, self.saved
            state = {"rng": saved["rng"], "own": saved.get("generators", {})}
            self.passes = saved["mid_epoch"] and not has_state(loader) and not self._explain_lost_position(trainer)
            if self.passes:
                self.begun = saved["epoch_begin"]
                state = saved["epoch_begin"]["before"]
            if saved["data"] is not None and has_state(loader):
                load_state(loader, saved["data"], saved["mid_epoch"])
                self.loaded = saved["mid_epoch"]
            if saved.get("reloaded") is not None:
                trainer.fit_loop._last_train_dl_reload_epoch = saved["reloaded"]
            self._restore_all(loader, state)
            self.resumes = True
        else:
            self.resumes = False
        usual()

    def _wrap_epoch_end(self, trainer: Trainer, usual: Callable[[], None]) -> None:
        """Capture the generators before Lightning ends an incomplete epoch: hooks may draw random numbers there."""
        self.stopped = None if trainer.is_last_batch else self._capture_all(trainer.fit_loop._combined_loader)
        usual()
        self.stopped = None

    def _wrap_iterator(self, trainer: Trainer, usual: Callable[[Any], None], fetcher: Any) -> None:
        """Record how the order was drawn where Lightning creates the iterator; in a resumed run, restore it."""
        loaders = fetcher.combined_loader
        made, here, self.ahead = loaders._iterator, self._capture_all(loaders), None
        if not self.resumes:
            if self.loaded:
                self.loaded = False
                end_epoch(trainer.train_dataloader, made)
            usual(fetcher)
            observe_fetches(fetcher, partial(self._keep_position, trainer))
            fresh = loaders._iterator is made and self.before is not None
            self.begun = {
                "before": self.before if fresh else here,
                "first": self._capture_all(loaders),
                "fresh": fresh,
            }
            return
        assert self.saved is not None
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if self.passes and self.begun is not None and self.begun["fresh"]:
            loaders.reset()  # otherwise persistent workers exist already, and their seed is not drawn again
        own = {"rng": self.saved["rng"], "own": self.saved.get("generators", {})}
        restore = partial(self._restore_all, trainer.train_dataloader, own)
        if self.loaded:
            restore_at_iterator(trainer.train_dataloader, restore)
        with self._skip_batches(trainer.train_dataloader, done):
            usual(fetcher)
            if loaders._iterator is made or loaders._iterator is None:  # created before the generators were restored
                iter(fetcher)
                fetcher.fetched += done
        observe_fetches(fetcher, partial(self._keep_position, trainer))
        if self.saved["mid_epoch"]:
            restore()
        if self.begun is None:
            self.begun = {"before": here, "first": self._capture_all(loaders), "fresh": False}

    @staticmethod
    def _wrap_validation(trainer: Trainer, usual: Callable[[], Any]) -> Any:
        """Restore the generators after a validation that runs only because the run is stopped."""
        if trainer.sanity_checking or not trainer.should_stop or trainer.is_last_batch or validation_follows(trainer):
            return usual()
        state = random_state.capture_global()
        try:
            return usual()
        finally:
            random_state.restore_global(state)

    @contextmanager
    def _skip_batches(self, loader: Any, done: int) -> Iterator[None]:
        """Within this context, iterators of the loader skip the first ``done`` batches without loading them."""
        if not self.passes or not done:
            yield
            return
        assert self.begun is not None
        name = "sampler" if loader.batch_sampler is None else "batch_sampler"
        whole = getattr(loader, name)
        # Without workers, the order is drawn when the first batch is fetched, after the iterator is created.
        draw = None if loader.num_workers else partial(self._restore_all, loader, self.begun["first"])
        # A DataLoader refuses to change its sampler; this change is temporary.
        rest, workers = _RemainingBatches(whole, done, draw), loader._iterator  # the persistent workers, if any
        object.__setattr__(loader, name, rest)
        if workers is not None:
            workers._index_sampler = rest
        try:
            yield
        finally:
            object.__setattr__(loader, name, whole)
            if loader._iterator is not None:
                loader._iterator._index_sampler = whole

    @staticmethod
    def _capture_all(loaders: Any) -> RandomState:
        own = random_state.capture_own(_list_owners(_get_loader(loaders)))
        return {"rng": random_state.capture_global(), "own": own}

    @staticmethod
    def _restore_all(loader: Any, state: Mapping[str, Any]) -> None:
        random_state.restore_global(state["rng"])
        random_state.restore_own(_list_owners(loader), state["own"])


class _RemainingBatches(Sampler[Any]):
    """The items of a sampler after its first ``done`` ones.

    Args:
        whole: the sampler.
        done: the number of items to skip.
        draw: called before the order is drawn, at once; None draws the order when the first item is fetched.
    """

    def __init__(self, whole: Any, done: int, draw: Callable[[], None] | None) -> None:
        self.whole, self.done, self.draw = whole, done, draw

    def __len__(self) -> int:
        return len(self.whole)

    def __iter__(self) -> Iterator[Any]:
        if self.draw is None:
            return self._iterate_lazily()
        self.draw()
        return self._skip_done(iter(self.whole))

    def _iterate_lazily(self) -> Iterator[Any]:
        yield from self._skip_done(iter(self.whole))

    def _skip_done(self, items: Iterator[Any]) -> Iterator[Any]:
        for _ in islice(items, self.done):
            pass
        return items


def _get_loader(loaders: Any) -> Any:
    """Return the loader in a ``CombinedLoader``, or its collection of loaders, as in ``trainer.train_dataloader``."""
    return loaders.iterables


def _can_skip(loader: Any) -> bool:
    """Return whether the sampler can skip batches: torch's own iterator, over an indexed dataset."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset | IterDataPipe):
        return False
    return type(loader).__iter__ is DataLoader.__iter__ and type(loader)._get_iterator is DataLoader._get_iterator


def _list_samplers(loader: Any) -> list[Any]:
    """Return the samplers of a loader, each with the samplers that it wraps."""
    found: list[Any] = []
    waiting = [getattr(loader, name, None) for name in ("batch_sampler", "sampler")]
    while waiting:
        sampler = waiting.pop()
        if sampler is None or isinstance(sampler, DataLoader) or any(sampler is each for each in found):
            continue
        found.append(sampler)
        waiting += [getattr(sampler, name, None) for name in ("sampler", "_sampler")]
        waiting.append(getattr(getattr(sampler, "dataset", None), "_sampler", None))  # Lightning's wrapper
    return found if isinstance(loader, DataLoader) else []


def _is_known(sampler: Any) -> bool:
    """Return whether a sampler's order depends only on generators or on the epoch."""
    return type(sampler).__module__.partition(".")[0] in _KNOWN or hasattr(sampler, "set_epoch")


def _list_owners(loader: Any) -> dict[str, Any]:
    """Return the objects that may have a generator: the loader, its samplers, its dataset and the wrapped datasets."""
    if not isinstance(loader, DataLoader):
        return {}
    owners = {"loader": loader, **{f"sampler{i}": each for i, each in enumerate(_list_samplers(loader))}}
    dataset: Any = loader.dataset
    depth = 0
    while dataset is not None and depth < 8:
        owners[f"dataset{depth}"] = dataset
        dataset, depth = getattr(dataset, "dataset", None), depth + 1
    return owners


def _describe_batches(trainer: Trainer) -> list[int | None]:
    """Return the batches in an epoch, the samples in a batch, and the processes."""
    loader: Any = trainer.train_dataloader
    batches = len(loader) if _can_skip(loader) else None
    return [batches, getattr(loader, "batch_size", None) if _can_skip(loader) else None, trainer.world_size]


def _format_batches(identity: Any) -> str:
    batches, size, world = identity or (None, None, None)
    return f"{batches} of {size} samples on {world} device(s)"


def _describe_loader(loader: Any) -> str:
    if isinstance(loader, DataLoader) and type(loader) is DataLoader:
        return f"{type(loader).__name__} over {type(loader.dataset).__name__}"
    return (
        type(loader).__name__
        if not isinstance(loader, list | tuple | dict)
        else f"a {type(loader).__name__} of loaders"
    )


def _round_if_finite(number: float) -> int | None:
    return int(number) if abs(number) < float("inf") else None


def _reset_loop(loop: Any) -> None:
    """Let a loop, and the loops inside it, start instead of resume."""
    loop._restarting = False
    for inner in vars(loop).values():
        if hasattr(inner, "_restarting"):
            _reset_loop(inner)

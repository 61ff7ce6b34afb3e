"""The position in the training data, and the random numbers that lead there: saved, and found again.

A loader of torch draws its order from random number generators, when its iterator is made or when the first batch is
fetched. So in a run that goes on the generators are put back before that, wherever Lightning makes the iterator:

    at the end of an epoch   as they were when the checkpoint was written, and the next epoch draws its order
    within an epoch          as they were when the epoch began, so that it draws the same order again; the batches that
                             are done are passed over in the sampler, not loaded; then as they were at the checkpoint

A loader with ``state_dict`` and ``load_state_dict`` finds its position by itself. What cannot be found again is told
before training, in one line.
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
from lrkit.lightning.classes import Trainer
from lrkit.lightning.preemption import validation_follows

__all__ = ["DataPosition"]

#: Packages whose samplers draw their order from generators alone, and from the number of the epoch.
_KNOWN = ("torch", "pytorch_lightning", "lightning", "lightning_fabric")


class DataPosition:
    """Knows how the order of the epoch under way was drawn, and leads a run that goes on to where it was.

    Args:
        saved: what ``state`` returned for the checkpoint that is gone on from, if any.
        say: takes a line for the user.
    """

    def __init__(self, saved: Mapping[str, Any] | None, say: Callable[[str], None]) -> None:
        self.saved, self.say = saved, say
        self.before: RandomState | None = None  # before the iterator of the epoch was made
        self.begun: dict[str, Any] | None = None  # how its order was drawn
        self.found = saved is None
        self.passes = False  # over batches that are done
        self.stopped: RandomState | None = None  # as the last batch of an epoch that is not finished has left them

    def install(self, trainer: Trainer) -> None:
        """Stand at the places where Lightning makes iterators. Before the fit."""
        loop = trainer.fit_loop
        for owner, name, method in (
            (loop, "setup_data", self._setup_data),
            (loop, "_load_combined_loader_states", self._before_first_iterator),
            (loop, "load_state_dict", self._load_loops),
            (loop, "on_advance_start", self._on_epoch),
            (loop, "on_advance_end", self._on_epoch_end),
            (loop.epoch_loop, "on_run_start", self._on_iterator),
            (loop.epoch_loop.val_loop, "run", self._on_validation),
        ):
            setattr(owner, name, partial(method, trainer, getattr(owner, name)))

    def state(self, trainer: Trainer) -> dict[str, Any]:
        """The position, for a checkpoint: plain data and tensors."""
        loader: Any = trainer.train_dataloader
        mid_epoch = not trainer.is_last_batch
        now = self.stopped or self._capture(trainer.fit_loop._combined_loader)
        return {
            "rng": now["rng"],
            "generators": now["own"],
            "data": loader.state_dict() if _stateful(loader) else None,
            "mid_epoch": mid_epoch,
            "epoch_begin": self.begun if mid_epoch and _skips(loader) else None,
            "loader": _identity(trainer),
            "reloaded": _finite(trainer.fit_loop._last_train_dl_reload_epoch),
        }

    def told(self, trainer: Trainer) -> None:
        """Say what of the data cannot be as if the run had never stopped. Before training.

        Raises:
            ConfigError: the loader makes other batches, and the checkpoint is from within an epoch.
        """
        loader: Any = trainer.train_dataloader
        if self.saved is None:
            if not _stateful(loader) and not _skips(loader):
                self.say(
                    f"{_what(loader)} has no state_dict: should this run be stopped within an epoch, the rest of that"
                    " epoch would begin with its first batches again"
                )
            return
        self._check_batches(trainer)
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
        if why := self._lost(trainer):
            self.say(
                f"the checkpoint is from within an epoch, and {why}: the rest of the epoch begins with its first"
                " batches again"
            )
        elif self.saved["mid_epoch"] and not _stateful(loader) and loader.num_workers:
            self.say(
                "the data go on in the same order; random numbers that the data set draws in its"
                f" {loader.num_workers} worker process(es) are others until this epoch ends"
            )
        elif getattr(loader, "persistent_workers", False) and not _stateful(loader):
            self.say(
                "the data go on in the same order; random numbers that the data set draws in persistent workers are"
                " others than they would have been"
            )
        for name in dict.fromkeys(type(s).__name__ for s in _samplers(loader) if not _is_known(s)):
            if not _stateful(loader):
                self.say(
                    f"the order of the data comes from {name}: the global random numbers and the generators among its"
                    " attributes are restored; lrkit does not know its other state"
                )

    def _lost(self, trainer: Trainer) -> str:
        """Why the position within an epoch cannot be found again; an empty string where it can, or need not be."""
        assert self.saved is not None
        loader = trainer.train_dataloader
        if not self.saved["mid_epoch"]:
            return ""
        if _stateful(loader):
            return "" if self.saved["data"] is not None else f"it holds no position of {_what(loader)}"
        if not _skips(loader):
            return f"{_what(loader)} cannot go on there"
        if self.saved.get("epoch_begin") is None:
            return "it does not say how the order of the epoch was drawn"
        return ""

    def _check_batches(self, trainer: Trainer) -> None:
        """Within an epoch a number of batches is a position only among the same batches; so is a number of steps."""
        assert self.saved is not None
        was, now = self.saved.get("loader"), _identity(trainer)
        if self.saved["mid_epoch"] and was is not None and None not in (was[0], now[0]) and was != now:
            must = f"must have the batches of the checkpoint, which is from within an epoch: {_described(was)}"
            raise ConfigError("data", f"{must}; or go on from one of an epoch's end", _described(now))

    def _setup_data(self, trainer: Trainer, usual: Callable[[], None]) -> None:
        # A run that goes on reloads when the uninterrupted one would have, and not because it is new here.
        if self.found or trainer.fit_loop._combined_loader is None:
            usual()

    def _before_first_iterator(self, trainer: Trainer, usual: Callable[[], None]) -> None:
        self.before = self._capture(trainer.fit_loop._combined_loader)
        usual()

    def _load_loops(self, trainer: Trainer, usual: Callable[..., None], *given: Any, **more: Any) -> None:
        usual(*given, **more)
        if self.saved is None or self.saved["mid_epoch"]:
            return
        # All batches of its epoch are done: the next one begins. Lightning would, where the run is limited by steps,
        # end the epoch once more, and call everybody who waits for a metric without there being one.
        progress = trainer.fit_loop.epoch_progress
        counts: Any = (progress.total, progress.current)
        for count in counts:
            count.started = count.processed = count.completed = count.ready
        _begins_anew(trainer.fit_loop)

    def _on_epoch(self, trainer: Trainer, usual: Callable[[], None]) -> None:
        """An epoch begins or is resumed: no random number has been drawn for it yet."""
        self.begun = None
        if not self.found:
            assert self.saved is not None
            loader: Any = trainer.train_dataloader
            self.found, saved = True, self.saved
            state = {"rng": saved["rng"], "own": saved.get("generators", {})}
            self.passes = saved["mid_epoch"] and not _stateful(loader) and not self._lost(trainer)
            if self.passes:
                self.begun = saved["epoch_begin"]
                state = saved["epoch_begin"]["before"]
            # Of a DataLoader that has yielded all batches of its epoch the state would be that nothing is left.
            if saved["data"] is not None and _stateful(loader) and (saved["mid_epoch"] or _has_epochs(loader)):
                loader.load_state_dict(saved["data"])
            if saved.get("reloaded") is not None:
                trainer.fit_loop._last_train_dl_reload_epoch = saved["reloaded"]
            self._restore(loader, state)
            self.resumes = True
        else:
            self.resumes = False
        usual()

    def _on_epoch_end(self, trainer: Trainer, usual: Callable[[], None]) -> None:
        """Of an epoch that is not finished Lightning calls the end too; what that draws is no part of the epoch."""
        self.stopped = None if trainer.is_last_batch else self._capture(trainer.fit_loop._combined_loader)
        usual()
        self.stopped = None

    def _on_iterator(self, trainer: Trainer, usual: Callable[[Any], None], fetcher: Any) -> None:
        """Lightning makes the iterator of an epoch here, or has made it before."""
        loaders = fetcher.combined_loader
        made, here = loaders._iterator, self._capture(loaders)
        if not self.resumes:
            usual(fetcher)
            fresh = loaders._iterator is made and self.before is not None
            self.begun = {"before": self.before if fresh else here, "first": self._capture(loaders), "fresh": fresh}
            return
        assert self.saved is not None
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if self.passes and self.begun is not None and self.begun["fresh"]:
            loaders.reset()  # else persistent workers would be there already, and their seed not drawn again
        with self._passing_over(trainer.train_dataloader, done):
            usual(fetcher)
            if loaders._iterator is made or loaders._iterator is None:  # made before the generators were put back
                iter(fetcher)
                fetcher.fetched += done
        if self.saved["mid_epoch"]:
            self._restore(trainer.train_dataloader, {"rng": self.saved["rng"], "own": self.saved.get("generators", {})})
        if self.begun is None:
            self.begun = {"before": here, "first": self._capture(loaders), "fresh": False}

    @staticmethod
    def _on_validation(trainer: Trainer, usual: Callable[[], Any]) -> Any:
        """A validation that is there because the run is stopped leaves no trace in the random numbers."""
        if trainer.sanity_checking or not trainer.should_stop or trainer.is_last_batch or validation_follows(trainer):
            return usual()
        state = random_state.capture_global()
        try:
            return usual()
        finally:
            random_state.restore_global(state)

    @contextmanager
    def _passing_over(self, loader: Any, done: int) -> Iterator[None]:
        """Within it, iterators of the loader begin after the first ``done`` batches, none of which is loaded."""
        if not self.passes or not done:
            yield
            return
        assert self.begun is not None
        name = "sampler" if loader.batch_sampler is None else "batch_sampler"
        whole = getattr(loader, name)
        # Without workers the order is drawn when the first batch is fetched: later than the iterator is made.
        draw = None if loader.num_workers else partial(self._restore, loader, self.begun["first"])
        # A DataLoader refuses to be given another sampler, and this one is there for a moment only.
        rest, workers = _Rest(whole, done, draw), loader._iterator  # those that persist, if any
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
    def _capture(loaders: Any) -> RandomState:
        own = random_state.capture_own(_owners(_single(loaders)))
        return {"rng": random_state.capture_global(), "own": own}

    @staticmethod
    def _restore(loader: Any, state: Mapping[str, Any]) -> None:
        random_state.restore_global(state["rng"])
        random_state.restore_own(_owners(loader), state["own"])


class _Rest(Sampler[Any]):
    """What a sampler yields after its first ``done`` items.

    Args:
        draw: called to have the order drawn at once; None lets it be drawn when the first item is asked for.
    """

    def __init__(self, whole: Any, done: int, draw: Callable[[], None] | None) -> None:
        self.whole, self.done, self.draw = whole, done, draw

    def __len__(self) -> int:
        return len(self.whole)

    def __iter__(self) -> Iterator[Any]:
        if self.draw is None:
            return self._later()
        self.draw()
        return self._passed(iter(self.whole))

    def _later(self) -> Iterator[Any]:
        yield from self._passed(iter(self.whole))

    def _passed(self, items: Iterator[Any]) -> Iterator[Any]:
        for _ in islice(items, self.done):
            pass
        return items


def _single(loaders: Any) -> Any:
    """The loader of a ``CombinedLoader``, as ``trainer.train_dataloader`` has it: alone, or several together."""
    return loaders.iterables


def _stateful(loader: Any) -> bool:
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def _has_epochs(loader: Any) -> bool:
    """Whether a loader that is told of the next epoch begins anew, whatever position it was at."""
    return not isinstance(loader, DataLoader)


def _skips(loader: Any) -> bool:
    """Whether batches of the loader can be passed over: one of torch's own making, over data that can be indexed."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset | IterDataPipe):
        return False
    return type(loader).__iter__ is DataLoader.__iter__ and type(loader)._get_iterator is DataLoader._get_iterator


def _samplers(loader: Any) -> list[Any]:
    """The samplers of a loader, each with those that it wraps."""
    found: list[Any] = []
    waiting = [getattr(loader, name, None) for name in ("batch_sampler", "sampler")]
    while waiting:
        sampler = waiting.pop()
        if sampler is None or isinstance(sampler, DataLoader) or any(sampler is each for each in found):
            continue
        found.append(sampler)
        waiting += [getattr(sampler, name, None) for name in ("sampler", "_sampler")]
        waiting.append(getattr(getattr(sampler, "dataset", None), "_sampler", None))  # Lightning's, of several devices
    return found if isinstance(loader, DataLoader) else []


def _is_known(sampler: Any) -> bool:
    """Whether a sampler's order is a function of generators, or of the epoch that it is told."""
    return type(sampler).__module__.partition(".")[0] in _KNOWN or hasattr(sampler, "set_epoch")


def _owners(loader: Any) -> dict[str, Any]:
    """What may carry a generator: the loader, its samplers and its data set, with those inside of it."""
    if not isinstance(loader, DataLoader):
        return {}
    owners = {"loader": loader, **{f"sampler{i}": each for i, each in enumerate(_samplers(loader))}}
    dataset: Any = loader.dataset
    depth = 0
    while dataset is not None and depth < 8:
        owners[f"dataset{depth}"] = dataset
        dataset, depth = getattr(dataset, "dataset", None), depth + 1
    return owners


def _identity(trainer: Trainer) -> list[int | None]:
    """What the number of batches that are done counts: batches in an epoch, samples in one, processes."""
    loader: Any = trainer.train_dataloader
    batches = len(loader) if _skips(loader) else None
    return [batches, getattr(loader, "batch_size", None) if _skips(loader) else None, trainer.world_size]


def _described(identity: Any) -> str:
    batches, size, world = identity or (None, None, None)
    return f"{batches} of {size} samples on {world} device(s)"


def _what(loader: Any) -> str:
    if isinstance(loader, DataLoader) and type(loader) is DataLoader:
        return f"{type(loader).__name__} over {type(loader.dataset).__name__}"
    return (
        type(loader).__name__
        if not isinstance(loader, list | tuple | dict)
        else f"a {type(loader).__name__} of loaders"
    )


def _finite(number: float) -> int | None:
    return int(number) if abs(number) < float("inf") else None


def _begins_anew(loop: Any) -> None:
    """Have a loop, and those inside of it, begin instead of going on."""
    loop._restarting = False
    for inner in vars(loop).values():
        if hasattr(inner, "_restarting"):
            _begins_anew(inner)

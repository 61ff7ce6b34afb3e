"""Lightning's callbacks that set the learning rate or the length of a run, and so contradict a plan."""

from __future__ import annotations

from lrkit.base.lightning_package import LIGHTNING, package_of

__all__ = ["find_conflict", "find_conflict_of_path"]

#: Name of a class, in either Lightning package -> the reason why it is refused, and the replacement.
_CONFLICTS = {
    "BatchSizeFinder": "changes the batch size after the steps were planned: set data.batch_size to its result",
    "GradientAccumulationScheduler": "changes accumulation during the run, so no step count can be planned:"
    " use trainer.accumulate_grad_batches",
    "LearningRateFinder": "sets the learning rate, which the plan sets: use lrkit find, or optimizer.lr=auto",
    "StochasticWeightAveraging": "replaces the schedule near the end of a run: use cooldown=..., with"
    " WeightAveraging or EMAWeightAveraging for the average",
}


def find_conflict(cls: type) -> str | None:
    """Return why a callback class, or a class that it inherits from, contradicts a plan; None if none does.

    >>> find_conflict(dict) is None
    True
    """
    for base in cls.__mro__:
        if base.__name__ in _CONFLICTS and package_of(base) is not None:
            return _CONFLICTS[base.__name__]
    return None


def find_conflict_of_path(target: str) -> str | None:
    """Return the same for a class that is not imported yet, by its dotted path.

    >>> find_conflict_of_path("lightning.pytorch.callbacks.LearningRateFinder").partition(",")[0]
    'sets the learning rate'
    >>> find_conflict_of_path("mine.LearningRateFinder") is None
    True
    """
    theirs = target.startswith(tuple(f"{package}." for package in LIGHTNING))
    return _CONFLICTS.get(target.rpartition(".")[2]) if theirs else None

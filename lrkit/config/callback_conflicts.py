"""Callbacks of Lightning's that own a rate, or how long a run is, and so cannot share it with a plan."""

from __future__ import annotations

from lrkit.base.lightning_package import LIGHTNING, package_of

__all__ = ["conflict_of", "conflict_of_path"]

#: By the name of the class, in either Lightning package: why it is refused, and what to use.
_CONFLICTS = {
    "BatchSizeFinder": "changes the batch size when the steps are planned: set data.batch_size to what it finds",
    "GradientAccumulationScheduler": "changes accumulation during the run, so no step count can be planned:"
    " use trainer.accumulate_grad_batches",
    "LearningRateFinder": "sets rates of its own, and the plan has them: use lrkit find, or optimizer.lr=auto",
    "StochasticWeightAveraging": "takes the place of the schedule near the end of a run: use cooldown=..., with"
    " WeightAveraging or EMAWeightAveraging for the average",
}


def conflict_of(cls: type) -> str | None:
    """Why a callback cannot be used with a plan; None for any other. What inherits from one is one.

    >>> conflict_of(dict) is None
    True
    """
    for base in cls.__mro__:
        if base.__name__ in _CONFLICTS and package_of(base) is not None:
            return _CONFLICTS[base.__name__]
    return None


def conflict_of_path(target: str) -> str | None:
    """The same of a class that is not imported yet, by its dotted path.

    >>> conflict_of_path("lightning.pytorch.callbacks.LearningRateFinder").partition(",")[0]
    'sets rates of its own'
    >>> conflict_of_path("mine.LearningRateFinder") is None
    True
    """
    theirs = target.startswith(tuple(f"{package}." for package in LIGHTNING))
    return _CONFLICTS.get(target.rpartition(".")[2]) if theirs else None

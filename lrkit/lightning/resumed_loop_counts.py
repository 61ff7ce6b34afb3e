"""Converts Lightning's counts of batches and steps for a run that resumes with another batch size.

A checkpoint counts batches and steps of the run that wrote it. With twice the batch size, half as many steps see the
same samples; without the conversion ``max_steps`` would end the run too early or too late. (Within an epoch another
batch size is refused.)
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

__all__ = ["recount"]


def recount(checkpoint: MutableMapping[str, Any], step: int, at: int, batches: int) -> None:
    """Change the counts of a checkpoint after ``step`` steps of its run to ``at`` steps of the run that resumes it.

    Args:
        checkpoint: as Lightning has loaded it, before it restores its loops; changed in place.
        batches: the batches of those steps.
    """
    if at == step:
        return
    loops = checkpoint["loops"]["fit_loop"]
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = at
    _set_counts(loops["epoch_loop.batch_progress"]["total"], batches)
    _set_counts(loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"], at)
    manual = loops["epoch_loop.manual_optimization.optim_step_progress"]["total"]  # the sum over all optimizers
    _set_counts(manual, round(manual["completed"] * at / step))


def _set_counts(counts: MutableMapping[str, int], number: int) -> None:
    for name in counts:
        counts[name] = number

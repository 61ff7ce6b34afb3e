"""Lightning's own counts of batches and steps, in the units of a run that goes on with another batch size.

A checkpoint counts in batches and steps of the run that wrote it. With twice the batch size half as many are the same
samples; else ``max_steps`` would come too soon or too late. (Within an epoch other batches are refused.)
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

__all__ = ["recount"]


def recount(checkpoint: MutableMapping[str, Any], step: int, at: int, accumulate: int) -> None:
    """Let a checkpoint that was written after ``step`` steps of its run count as after ``at`` steps of another.

    Args:
        checkpoint: as Lightning has loaded it, before it has restored its loops; changed in place.
        accumulate: batches in a step of the other run.
    """
    if at == step:
        return
    loops = checkpoint["loops"]["fit_loop"]
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = at
    _set(loops["epoch_loop.batch_progress"]["total"], at * accumulate)
    _set(loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"], at)
    manual = loops["epoch_loop.manual_optimization.optim_step_progress"]["total"]  # of as many optimizers as there are
    _set(manual, round(manual["completed"] * at / step))


def _set(counts: MutableMapping[str, int], number: int) -> None:
    for name in counts:
        counts[name] = number

"""The step at which a run resumes, if its new plan has other samples in a step than the plan of the checkpoint."""

from __future__ import annotations

from lrkit.checkpoint import saved_run
from lrkit.planning.plan import Plan, horizon_from_json
from lrkit.schedules.batch_sizes import BatchSizes
from lrkit.schedules.horizon import Horizon

__all__ = ["step_with_as_many_samples"]


def step_with_as_many_samples(saved: saved_run.SavedRun, new: Plan, at: int | None = None) -> int:
    """Return the optimizer step of the new plan at which the run has seen as many samples as at the checkpoint.

    A complete epoch remains a complete epoch, for any size of its last batch, so that the run and the plan end at the
    same step.

    Args:
        saved: the checkpoint.
        new: the new plan.
        at: the step in the old plan; the step of the checkpoint by default. Several optimizers have a step each.
    """
    step, old = saved.step if at is None else at, horizon_from_json(saved.plan["horizon"])
    if old.batch_sizes is not None or new.horizon.batch_sizes is not None:
        return step if _have_same_batches(old, new.horizon, step) else _convert_step(old, new.horizon, step)
    batch, before = new.horizon.batch_size, old.batch_size
    if batch is None or before is None or batch == before:
        return step
    was, now = old.steps_per_epoch, new.horizon.steps_per_epoch
    if saved.tracks or was is None or now is None:
        return round(step * before / batch)
    epochs, more = divmod(step, was)
    return epochs * now + min(round(more * before / batch), now - 1)


def _have_same_batches(old: Horizon, new: Horizon, step: int) -> bool:
    """Return whether both plans have the same samples in each step before this one."""
    stages = []
    for horizon in (old, new):
        sizes = horizon.batch_sizes
        found = ((0, horizon.batch_size),) if sizes is None else sizes.stages
        stages.append([stage for stage in found if stage[0] < step])
    return stages[0] == stages[1]


def _convert_step(old: Horizon, new: Horizon, step: int) -> int:
    """Return the step of the new plan at the same position in the data, or else at as many samples."""
    sizes = new.batch_sizes
    batches = sizes.batches if sizes is not None else None if old.batch_sizes is None else old.batch_sizes.batches
    micro = sizes.micro if sizes is not None else None if old.batch_sizes is None else old.batch_sizes.micro
    if batches is None or micro is None:
        return _convert_by_samples(old, new, step)
    done = _find_position(old, step, batches, micro)
    if done is None:
        return _convert_by_samples(old, new, step)
    if sizes is not None:
        return _fit_step(sizes, done, batches)
    per_epoch, size = new.steps_per_epoch, new.batch_size
    if per_epoch is None or size is None:
        return _convert_by_samples(old, new, step)
    epochs, more = divmod(done, batches)
    return epochs * per_epoch + min(round(more * micro / size), per_epoch - 1)


def _find_position(horizon: Horizon, step: int, batches: int, micro: int) -> int | None:
    """Return the batches since the run began, where an epoch has ``batches`` of ``micro`` samples."""
    if (sizes := horizon.batch_sizes) is not None:
        whole, more = divmod(sizes.batches_at(step), sizes.batches) if sizes.batches and sizes.micro else (0, 0)
        return None if not sizes.batches or not sizes.micro else whole * batches + min(more, batches - 1)
    if horizon.steps_per_epoch is None or horizon.batch_size is None:
        return None
    epochs, more = divmod(step, horizon.steps_per_epoch)
    return epochs * batches + min(more * max(1, horizon.batch_size // micro), batches - 1)


def _fit_step(sizes: BatchSizes, done: int, batches: int) -> int:
    """Return the step nearest to a position from which the epoch ends at the planned step, if there is one."""
    near, end = sizes.steps_after(done), (done // batches + 1) * batches
    if done % batches == 0:
        return near
    planned = sizes.steps_after(end)
    choices = [near, *(near + by for far in range(1, 4) for by in (-far, far) if near + by >= 0)]
    return next((step for step in choices if sizes.steps_after(end, step, done) == planned), near)


def _convert_by_samples(old: Horizon, new: Horizon, step: int) -> int:
    """Return the step of the new plan with as many samples before it; the same step, if a plan does not know them."""
    if old.batch_sizes is not None:
        samples = old.batch_sizes.samples_at(step)
    elif old.batch_size is not None:
        samples = step * old.batch_size
    else:
        return step
    if new.batch_sizes is not None:
        return new.batch_sizes.step_at_samples(samples)
    return step if new.batch_size is None else round(samples / new.batch_size)

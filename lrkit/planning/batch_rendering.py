"""What a plan prints and draws of a batch size that changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lrkit.planning.plan import Plan

__all__ = ["BATCH_TAG", "factor_texts", "mark_sizes", "shorten_values", "size_lines"]

#: The column of a plan in CSV, and the tag in TensorBoard.
BATCH_TAG = "batch/effective"
_MOST = 12  # values in a line


def factor_texts(plan: Plan) -> list[str]:
    """The factor of the batch size in the formula, if a rule has one: where the size changes, that of each stage."""
    sizes, scale = plan.horizon.batch_sizes, plan.scale
    if scale.rule == "none":
        return []
    if sizes is None:
        return [str(scale)]
    stages = [f"{scale.of_batch(size):g} from step {first}" for first, size in sizes.stages]
    return [f"batch_scale(t) ({scale.rule}: {', '.join(shorten_values(stages))}; base {scale.base})"]


def size_lines(plan: Plan) -> list[str]:
    """A line with the batch size of each stage, and how its batches are made; none where it does not change."""
    horizon, sizes = plan.horizon, plan.horizon.batch_sizes
    if sizes is None:
        return []
    stages = shorten_values([f"{size} from step {first}" for first, size in sizes.stages])
    said = [f"samples a step: {', '.join(stages)}"]
    if sizes.micro is not None:
        windows = " -> ".join(str(size // sizes.micro) for _, size in sizes.stages[:_MOST])
        how = "accumulate" if sizes.by == "accumulation" else "the loader joins"
        said[0] += f" ({how} {windows} batches of {sizes.micro})"
    if (first_epoch := horizon.steps_after_epochs(1)) is not None:
        said.append(f"{first_epoch} steps in the first epoch, of {sizes.batches} batches")
    if horizon.steps is not None:
        samples, tokens = sizes.samples_at(horizon.steps), horizon.tokens_per_sample
        said.append(f"{samples} samples in all" if tokens is None else f"{samples * tokens:.4g} tokens in all")
    return ["; ".join(said)]


def mark_sizes(ax: Axes, plan: Plan) -> None:
    """Mark in a figure where the batch size changes."""
    sizes = plan.horizon.batch_sizes
    for first, size in () if sizes is None else sizes.stages:
        ax.axvline(first, color="0.7", lw=0.8, ls=":")
        where: Any = ("data", "axes fraction")
        ax.annotate(f" batch {size}", (first, 0.99), xycoords=where, va="top", fontsize=7, color="0.4")


def shorten_values(values: list[str]) -> list[str]:
    """The values of a line; of many, the first and the last ones."""
    return values if len(values) <= _MOST else [*values[: _MOST // 2], "...", *values[-_MOST // 2 :]]

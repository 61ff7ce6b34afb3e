"""The number of samples in each optimizer step of a run whose batch size changes.

    batch(t) = b_i    for first_i <= t < first_(i+1),    b_i = micro x windows_i

``t`` counts applied optimizer steps. A batch of all devices has ``micro`` samples, so a step of stage ``i`` is a window
of ``windows_i`` batches. The last window of an epoch ends with the epoch, even if it has fewer batches. The number of
steps in an epoch depends on its stages, so a position in the data is computed from stage to stage.

Source of the idea: Smith, Kindermans, Ying and Le 2018, arXiv:1711.00489.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.validation import is_whole
from lrkit.schedules.durations import Duration, round_half_up

__all__ = ["BY", "KEY", "BatchSizes", "measure", "parse_stages", "resolve_sizes", "spread_stages"]

KEY, LENGTH = "batch.schedule", "horizon.steps"
#: The methods that make a step of several batches.
BY = ("accumulation", "loader")
_MOST = 10_000  # stages


@dataclass(frozen=True)
class BatchSizes:
    """The stages of a batch-size schedule.

    Args:
        stages: the first optimizer step of each stage, and the samples in a step.
        micro: samples in one batch of all devices; None: unknown.
        batches: batches of each device in an epoch; None: unknown.
        by: ``accumulation`` of batches, or ``loader``, which joins the batches of a window.

    >>> sizes = BatchSizes(((0, 64), (10, 128)), micro=64, batches=16)
    >>> sizes.at(9), sizes.at(10), sizes.window(10)
    (64, 128, 2)
    >>> [sizes.steps_after(16 * epochs) for epochs in (1, 2, 3)]  # 10 steps and 3 of two batches, then 8 an epoch
    [13, 21, 29]
    """

    stages: tuple[tuple[int, int], ...]
    micro: int | None = None
    batches: int | None = None
    by: str = "accumulation"

    @cached_property
    def firsts(self) -> tuple[int, ...]:
        """The first step of each stage."""
        return tuple(first for first, _ in self.stages)

    def at(self, step: int) -> int:
        """Return the samples in optimizer step ``step``."""
        return self.stages[bisect_right(self.firsts, step) - 1][1]

    def window(self, step: int) -> int:
        """Return the batches in the window of optimizer step ``step``."""
        assert self.micro is not None
        return self.at(step) // self.micro

    def until(self, step: int) -> BatchSizes:
        """Return the same stages up to ``step``; afterwards the batch size is constant."""
        kept = tuple(stage for stage in self.stages if stage[0] <= step)
        return dataclasses.replace(self, stages=kept)

    def is_uniform_from(self, step: int) -> bool:
        """Return whether the batch size is constant from ``step`` on."""
        return step >= self.firsts[-1]

    def steps_after(self, batches: Fraction | int, step: int = 0, done: int = 0) -> int:
        """Return the step that is nearest to a position in the data.

        Args:
            batches: the position: batches of each device since the beginning of the run.
            step: a step with a known position, from which the count begins.
            done: the position of ``step``, in batches.
        """
        assert self.batches is not None
        while done < batches:
            size, limit = self._find_stage(step)
            in_epoch, per_epoch = done % self.batches, -(-self.batches // size)
            whole = int((batches - done) // self.batches) if not in_epoch else 0
            whole = whole if limit is None else min(whole, (limit - step) // per_epoch)
            if whole:
                step, done = step + whole * per_epoch, done + whole * self.batches
                continue
            left = self.batches - in_epoch
            steps = -(-left // size) if limit is None else min(-(-left // size), limit - step)
            if batches - done >= min(left, steps * size):
                step, done = step + steps, done + min(left, steps * size)
                continue
            full, rest = divmod(batches - done, size)
            last = min(size, left - int(full) * size)
            return step + int(full) + int(2 * rest >= last)
        return step

    def batches_at(self, step: int) -> int:
        """Return the position after ``step`` optimizer steps: batches of each device since the beginning of the run."""
        assert self.batches is not None
        at = done = 0
        while at < step:
            size, limit = self._find_stage(at)
            end = step if limit is None else min(step, limit)
            in_epoch, per_epoch = done % self.batches, -(-self.batches // size)
            if not in_epoch and (whole := (end - at) // per_epoch):
                at, done = at + whole * per_epoch, done + whole * self.batches
                continue
            left = self.batches - in_epoch
            steps = min(-(-left // size), end - at)
            at, done = at + steps, done + min(left, steps * size)
        return done

    def samples_at(self, step: int) -> int:
        """Return the samples of the first ``step`` optimizer steps, each with its full batch."""
        ends = (*self.firsts[1:], step)
        return sum(max(0, min(end, step) - first) * size for (first, size), end in zip(self.stages, ends, strict=True))

    def step_at_samples(self, samples: Fraction | int) -> int:
        """Return the step that is nearest to a number of samples."""
        i = bisect_right(self.firsts, samples, key=self.samples_at) - 1
        first, size = self.stages[max(i, 0)]
        return first + round_half_up(Fraction(samples - self.samples_at(first), size))

    def _find_stage(self, step: int) -> tuple[int, int | None]:
        """Return the batches in a window from ``step`` on, and the first step of the next stage."""
        i = bisect_right(self.firsts, step)
        return self.window(step), self.firsts[i] if i < len(self.firsts) else None

    def __str__(self) -> str:
        """Return each batch size with its first step: ``64 from step 0, 128 from step 10``."""
        return ", ".join(f"{size} from step {first}" for first, size in self.stages)


def parse_stages(written: Any) -> tuple[tuple[Duration, int], ...]:
    """Return the pairs of a batch-size schedule: the beginning of each stage, and its samples in an optimizer step.

    Raises:
        ConfigError: not a list of such pairs, or a first pair that does not begin at 0.

    >>> [(str(place), size) for place, size in parse_stages([[0, 64], ["50%", 128]])]
    [('0', 64), ('50%', 128)]
    """
    if not isinstance(written, list | tuple) or not written or len(written) > _MOST:
        raise ConfigError(KEY, "must be a list of pairs of a duration and samples, such as [[0,64],[50%,128]]", written)
    pairs: list[tuple[Duration, int]] = []
    for i, pair in enumerate(written):
        key = f"{KEY}[{i}]"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ConfigError(
                key, "must be a pair: where the batch size begins, and samples in an optimizer step", pair
            )
        if not is_whole(pair[1], 1):
            raise ConfigError(key, "must have a whole number of samples >= 1 as its second number", pair[1])
        pairs.append((Duration.parse(pair[0], key), pair[1]))
    if pairs[0][0].value != 0:
        raise ConfigError(f"{KEY}[0]", "must begin at 0", written[0][0])
    return tuple(pairs)


def spread_stages(written: Any, steps: int) -> list[list[int]]:
    """The same sizes at even distances of a run of ``steps`` steps, to check a run of unknown length.

    >>> spread_stages([[0, 64], ["2ep", 128], [900, 256]], 3000)
    [[0, 64], [1000, 128], [2000, 256]]
    """
    sizes = [size for _, size in parse_stages(written)]
    return [[i * steps // len(sizes), size] for i, size in enumerate(sizes)]


def resolve_sizes(
    written: Any,
    *,
    micro: int | None,
    batches: int | None,
    by: str = "accumulation",
    steps: int | None = None,
    length: Duration | None = None,
    tokens_per_sample: int | None = None,
    product: str = "",
    limit: str | None = None,
) -> tuple[BatchSizes, int | None]:
    """Return the stages in optimizer steps, and the steps of the run; None if they are unknown.

    The steps of a run with a ``length`` in epochs, samples or tokens follow from its stages. If stages begin at shares
    of the run, the number of steps is the one for which these shares give the same number.

    Args:
        written: the list of pairs.
        micro, batches, by: as for ``BatchSizes``.
        steps: the steps of the run, or their maximum; None: unknown.
        length: the length of the run in the data, if the data ends the run.
        tokens_per_sample: tokens in a sample, for stages that begin at a number of tokens.
        product: the factors of ``micro``, for messages.
        limit: the key that limits the batches of an epoch, for messages.

    Raises:
        ConfigError: a size that is not a multiple of ``micro``, or stages that are not in order within the run.
    """
    pairs = parse_stages(written)
    if micro is not None:
        for i, (_, size) in enumerate(pairs):
            _check_size(f"{KEY}[{i}]", size, micro, batches, product, limit)

    def lay(total: int | None, clip: bool = False) -> BatchSizes:
        return _place_stages(pairs, BatchSizes((), micro, batches, by), total, tokens_per_sample, clip)

    if length is not None:

        def count(sizes: BatchSizes) -> int:
            return measure(length, sizes, 0, LENGTH, tokens_per_sample)

        if steps is None or count(lay(steps, clip=True)) < steps:
            has_shares = any(place.unit == "share" for place, _ in pairs)
            most = count(BatchSizes(((0, min(size for _, size in pairs)),), micro, batches))
            steps = _find_total(lambda total: count(lay(total, clip=True)), has_shares, most)
    made = lay(steps)
    for i, first in enumerate(made.firsts):
        if steps is not None and first >= steps:
            must = f"must begin before the run ends: it begins at step {first} of {steps} optimizer steps"
            raise ConfigError(f"{KEY}[{i}]", must, str(pairs[i][0]))
    return made, steps


def _place_stages(
    pairs: Sequence[tuple[Duration, int]], sizes: BatchSizes, total: int | None, tokens: int | None, clip: bool
) -> BatchSizes:
    """Return the stages of a run of ``total`` steps; a position in the data depends on the earlier stages.

    ``clip``: a stage that would begin before the previous stage begins with it; otherwise it is refused.
    """
    for i, (place, size) in enumerate(pairs):
        key, before = f"{KEY}[{i}]", sizes.firsts[-1] if i else -1
        first = 0 if i == 0 else _place_step(place, sizes, total, tokens, key)
        if first <= before and not clip:
            must = f"must begin after step {before}, where the stage before it begins; it begins at step {first}"
            raise ConfigError(key, must, str(place))
        sizes = dataclasses.replace(sizes, stages=(*sizes.stages, (max(first, before), size)))
    return sizes


def _place_step(place: Duration, sizes: BatchSizes, total: int | None, tokens: int | None, key: str) -> int:
    """Return the first step of a stage, from the earlier stages."""
    if place.unit == "steps":
        return round_half_up(place.value)
    if place.unit == "share":
        if total is None:
            must = (
                "needs the total number of optimizer steps, which is not known: set horizon.steps or trainer.max_steps"
            )
            raise ConfigError(key, must, str(place))
        return max(1, round_half_up(place.value * total)) if place.value else 0
    return measure(place, sizes, 0, key, tokens)


def measure(length: Duration, sizes: BatchSizes, origin: int, key: str, tokens: int | None, back: bool = False) -> int:
    """Return the optimizer steps of a length in the data that begins, or with ``back`` ends, at step ``origin``.

    Raises:
        ConfigError: a number that the length needs is unknown.
    """
    sign = -1 if back else 1
    if length.unit == "epochs":
        if sizes.batches is None or sizes.micro is None:
            must = "needs the number of batches in an epoch, which is not known: set data.train_samples and"
            raise ConfigError(key, f"{must} data.batch_size, or write it in optimizer steps", str(length))
        there = sizes.steps_after(max(Fraction(0), sizes.batches_at(origin) + sign * length.value * sizes.batches))
    else:
        per_unit = 1
        if length.unit == "tokens":
            if tokens is None:
                must = "needs the number of tokens in a sample, which is not known: set horizon.tokens_per_sample"
                raise ConfigError(key, must, str(length))
            per_unit = tokens
        samples = sizes.samples_at(origin) + sign * length.value / per_unit
        there = sizes.step_at_samples(max(Fraction(0), samples))
    return max(abs(there - origin), 1 if length.value else 0)


def _find_total(made: Callable[[int], int], has_shares: bool, most: int) -> int:
    """Return the number ``n`` of steps for which the stages of a run of ``n`` steps give ``n`` steps in its epochs.

    The search is a bisection. If sizes only grow, exactly one number fits, because a stage that begins a step later
    adds at most one step. If several numbers fit, the bisection chooses one.
    """
    if not has_shares:
        return made(1)
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if made(middle) > middle else (low, middle)
    for n in range(max(1, low - 8), low + 9):
        if made(n) == n:
            return n
    must = "has shares of the run that fit no number of optimizer steps in its epochs: write them in epochs or in steps"
    raise ConfigError(KEY, f"{must}, or set trainer.max_steps")


def _check_size(key: str, size: int, micro: int, batches: int | None, product: str, limit: str | None) -> None:
    """Refuse samples in a step that are not a whole number of batches, or more than an epoch has."""
    if size % micro == 0:
        if batches is not None and size > batches * micro:
            count = f"{batches} batch{'' if batches == 1 else 'es'} of an epoch"
            limited = "" if limit is None else f" under {limit}"
            raise ConfigError(key, f"must be at most {batches * micro}, the {count}{limited}", size)
        return
    below = size // micro * micro
    nearest = f"{below} or {below + micro}" if below else str(micro)
    raise ConfigError(key, f"must be a multiple of {micro}{product}: {nearest} is possible", size)

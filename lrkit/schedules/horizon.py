"""The length of a run: optimizer steps, steps in an epoch, samples in a step and tokens in a sample, each with its
source; and the step of an early stop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal

from lrkit.base.errors import ConfigError
from lrkit.base.validation import is_whole
from lrkit.schedules.batch_sizes import BY, KEY, BatchSizes, measure, resolve_sizes
from lrkit.schedules.durations import Duration, Length

__all__ = ["Horizon", "LoaderSize", "apply_trial_options", "horizon_of", "limit_batches", "limit_key"]

Quantity = Literal["steps", "steps_per_epoch", "batch_size", "tokens_per_sample"]

_HOW_TO_KNOW: dict[str, str] = {
    "steps": "set trainer.max_steps or horizon.steps, or what an epoch is: data.train_samples and data.batch_size",
    "steps_per_epoch": "set horizon.steps_per_epoch, or data.train_samples",
    "batch_size": "set data.batch_size or horizon.batch_size",
    "tokens_per_sample": "set horizon.tokens_per_sample",
}


@dataclass(frozen=True)
class Horizon:
    """The length of a run. A number that is not known is ``None``.

    Args:
        steps: optimizer steps in the run.
        steps_per_epoch: optimizer steps in one epoch.
        batch_size: samples in one optimizer step: per device x devices x nodes x accumulation.
        sources: for each number, a text with its source.
        tokens_per_sample: tokens in one sample, for lengths in tokens.
        stop_after: optimizer steps after which this run stops, if it takes only the first part of ``steps``.
        batch_sizes: the samples in each step, if their number changes; ``batch_size`` and ``steps_per_epoch`` are then
            None, because no single number is right.
        origin: the step at which lengths in epochs, samples and tokens begin, while a curve is built: their number of
            steps depends on it.
        is_backward: whether such a length ends at ``origin``.
    """

    steps: int | None
    steps_per_epoch: int | None = None
    batch_size: int | None = None
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    tokens_per_sample: int | None = None
    stop_after: int | None = None
    batch_sizes: BatchSizes | None = None
    origin: int | None = None
    is_backward: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "steps_per_epoch", "batch_size", "tokens_per_sample"):
            value = getattr(self, name)
            if value is not None and not is_whole(value, 1):
                raise ConfigError(f"horizon.{name}", "must be a whole number >= 1, or null", value)

    @property
    def end(self) -> int | None:
        """The number of optimizer steps after which this run ends: ``stop_after``, or all steps; None: unknown."""
        return self.steps if self.stop_after is None else self.stop_after

    def stopping(self, after: Length | None, key: str = "horizon.stop_after") -> Horizon:
        """Return the horizon of the run with a stop after a duration; None, or the whole run: without a stop.

        Raises:
            ConfigError: with ``key``: the duration is 0, or longer than the run.

        >>> Horizon(1000).stopping("20%").stop_after, Horizon(1000).stopping(1000).stop_after
        (200, None)
        """
        if after is None:
            return dataclasses.replace(self, stop_after=None)
        steps = Duration.parse(after, key).steps(self.counted_from(0), key)
        if steps == 0:
            raise ConfigError(key, "must be longer than 0, or null", after)
        if self.steps is not None and steps > self.steps:
            source = self.sources.get("steps")
            length = f"{self.steps} optimizer steps{'' if source is None else f' ({source})'}"
            raise ConfigError(key, f"must be at most the length of the run, {length}: it stops a run early", after)
        return dataclasses.replace(self, stop_after=None if steps == self.steps else steps)

    def counted_from(self, step: int | None) -> Horizon:
        """The same horizon, where lengths in epochs, samples or tokens begin at ``step``; None: at an unknown step."""
        return self if self.batch_sizes is None else dataclasses.replace(self, origin=step, is_backward=False)

    def counted_back(self) -> Horizon:
        """The same, where such lengths end with the run."""
        return self if self.batch_sizes is None else dataclasses.replace(self, origin=self.steps, is_backward=True)

    def measure(self, length: Duration, key: str, repeats: bool) -> int:
        """The optimizer steps of a length in epochs, samples or tokens under ``batch_sizes``.

        Raises:
            ConfigError: it has no single number of steps, or the numbers that it needs are not known.
        """
        sizes, origin = self.batch_sizes, self.origin
        assert sizes is not None
        if origin is None and self.is_backward:
            self.require("steps", key)
        fixed = origin is not None and sizes.is_uniform_from(origin) and not self.is_backward
        if origin is None or (repeats and not fixed):
            must = f"and {KEY} cannot be used together: the steps of {length} change with the batch size ({sizes})"
            raise ConfigError(key, f"{must}; write it in optimizer steps or as a share of the run", str(length))
        return measure(length, sizes, origin, key, self.tokens_per_sample, self.is_backward)

    def samples_in(self, step: int) -> int | None:
        """The samples in an optimizer step; None where they are not known."""
        return self.batch_size if self.batch_sizes is None else self.batch_sizes.at(step)

    @property
    def shortest_epoch(self) -> int | None:
        """The fewest optimizer steps that an epoch may have; None where they are not known."""
        sizes = self.batch_sizes
        if sizes is None or sizes.batches is None or sizes.micro is None:
            return self.steps_per_epoch
        return math.ceil(sizes.batches / max(size // sizes.micro for _, size in sizes.stages))

    def steps_after_epochs(self, epochs: int) -> int | None:
        """The optimizer steps in the first ``epochs`` epochs; None where they are not known."""
        if (sizes := self.batch_sizes) is not None:
            known = sizes.batches is not None and sizes.micro is not None
            return sizes.steps_after(epochs * (sizes.batches or 0)) if known else None
        return None if self.steps_per_epoch is None else self.steps_per_epoch * epochs

    def require(self, name: Quantity, key: str) -> int:
        """Return the number; if it is not known, refuse with the key that needs it and the keys that supply it."""
        value: int | None = getattr(self, name)
        if value is None and self.batch_sizes is not None and name in ("steps_per_epoch", "batch_size"):
            unit = "steps in an epoch" if name == "steps_per_epoch" else "samples in a step"
            raise ConfigError(key, f"needs one number of optimizer {unit}, and {KEY} changes it")
        if value is None:
            what = {
                "steps": "the total number of optimizer steps",
                "steps_per_epoch": "the number of optimizer steps in an epoch",
                "batch_size": "the number of samples in an optimizer step",
                "tokens_per_sample": "the number of tokens in a sample",
            }[name]
            raise ConfigError(key, f"needs {what}, which is not known: {_HOW_TO_KNOW[name]}")
        return value


@dataclass(frozen=True)
class LoaderSize:
    """The size of the training data, as far as the config has it: all numbers per process, except ``samples``.

    ``tokens_per_sample`` has the number and its key.
    """

    samples: int | None
    batch_size: int | None
    drop_last: bool = False
    tokens_per_sample: tuple[int, str] | None = None

    def batches(self, world: int) -> int | None:
        """Return the batches of each process in an epoch, with a distributed sampler that gives each equally many.

        None if the samples or the batch size are unknown.

        >>> loader = LoaderSize(1000, 64)
        >>> loader.batches(1), LoaderSize(1000, 64, drop_last=True).batches(1), loader.batches(2)
        (16, 15, 8)
        """
        if self.samples is None or self.batch_size is None:
            return None
        # Both roundings are those of torch: DistributedSampler, then DataLoader.
        share = self.samples // world if self.drop_last and world > 1 else math.ceil(self.samples / world)
        return share // self.batch_size if self.drop_last else math.ceil(share / self.batch_size)


def horizon_of(
    loader: LoaderSize,
    trainer: Mapping[str, Any],
    *,
    world: int = 1,
    batches: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    batch: Mapping[str, Any] | None = None,
) -> Horizon:
    """Return the horizon of a training run, by Lightning's rules.

    An epoch of ``b`` batches has ``ceil(b / accumulate_grad_batches)`` optimizer steps: Lightning steps after the last
    batch of an epoch, even if the accumulation is not complete.

    Args:
        loader: samples, batch size per device, drop_last.
        trainer: ``max_epochs``, ``max_steps``, ``limit_train_batches``, ``overfit_batches``, ``fast_dev_run``,
            ``accumulate_grad_batches``.
        world: devices x nodes.
        batches: counted batches per epoch and process; None: derived from the sizes.
        overrides: the ``horizon`` node; its values replace the others. ``steps`` may be a length in epochs, samples or
            tokens.
        batch: the node ``batch``; it may have a ``schedule``, and ``by``.

    Raises:
        ConfigError: no batch to train on, a length of 0, or a ``horizon.stop_after`` longer than the run.
    """
    trainer = apply_trial_options(trainer)
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    accumulate = trainer.get("accumulate_grad_batches") or 1
    values: dict[str, Any] = dict.fromkeys(("steps", "steps_per_epoch", "batch_size", "tokens_per_sample"))
    sources: dict[str, str] = {}

    if loader.batch_size is not None:
        values["batch_size"] = loader.batch_size * world * accumulate
        sources["batch_size"] = f"{loader.batch_size} a device x {world} x accumulate {accumulate}"
    batches = _derive_batches(loader, trainer, world) if batches is None else batches
    if batches is not None:
        values["steps_per_epoch"] = math.ceil(batches / accumulate)
        sources["steps_per_epoch"] = f"{batches} batches / accumulate {accumulate}"
    if loader.tokens_per_sample is not None:
        values["tokens_per_sample"], sources["tokens_per_sample"] = loader.tokens_per_sample
    if batch and batch.get("schedule") is not None:
        tokens = given.get("tokens_per_sample", values["tokens_per_sample"])
        if "tokens_per_sample" in given:
            sources["tokens_per_sample"] = "horizon.tokens_per_sample"
        known = LoaderSize(loader.samples, loader.batch_size, loader.drop_last, tokens and (tokens, ""))
        return _build_sized_horizon(known, trainer, world, batches, given, batch, sources)
    for name in ("steps_per_epoch", "batch_size", "tokens_per_sample"):
        if name in given:
            values[name], sources[name] = given[name], f"horizon.{name}"

    max_epochs, max_steps = trainer.get("max_epochs"), trainer.get("max_steps")
    per_epoch = values["steps_per_epoch"]
    if per_epoch is not None and max_epochs is not None and max_epochs > 0:
        values["steps"], sources["steps"] = per_epoch * max_epochs, f"{max_epochs} epochs x {per_epoch}"
    if max_steps is not None and max_steps > 0 and (values["steps"] is None or max_steps < values["steps"]):
        values["steps"], sources["steps"] = max_steps, "trainer.max_steps"
    if "steps" in given:
        values["steps"] = _read_steps(given["steps"], Horizon(**{**values, "steps": None}))
        unit = f"={given['steps']}" if isinstance(given["steps"], str) else ""
        sources["steps"] = f"horizon.steps{unit}"
    return Horizon(**values, sources=MappingProxyType(sources)).stopping(given.get("stop_after"))


def _build_sized_horizon(
    loader: LoaderSize,
    trainer: Mapping[str, Any],
    world: int,
    batches: int | None,
    given: Mapping[str, Any],
    batch: Mapping[str, Any],
    sources: dict[str, str],
) -> Horizon:
    """Return the horizon of a run whose batch size changes."""
    for name in ("steps_per_epoch", "batch_size"):
        if name in given:
            must = f"and {KEY} cannot be used together: the schedule sets the samples in a step"
            raise ConfigError(f"horizon.{name}", must, given[name])
    micro = None if loader.batch_size is None else loader.batch_size * world
    epochs, most = ((n if n is not None and n > 0 else None) for n in map(trainer.get, ("max_epochs", "max_steps")))
    steps, length = _read_length(given["steps"]) if "steps" in given else (most, None)
    if "steps" not in given and epochs is not None and batches is not None and micro is not None:
        length = Duration(Fraction(epochs), "epochs")
    if steps is not None and not is_whole(steps, 1):
        raise ConfigError("horizon.steps", "must be a whole number >= 1, or null", steps)
    tokens = None if loader.tokens_per_sample is None else loader.tokens_per_sample[0]
    sizes, steps = resolve_sizes(
        batch["schedule"],
        micro=micro,
        batches=batches,
        by=batch.get("by") or BY[0],
        steps=steps,
        length=length,
        tokens_per_sample=tokens,
        product=f" = data.batch_size {loader.batch_size} x {world} device(s)",
        limit=limit_key(trainer),
    )
    said = {name: text for name, text in sources.items() if name == "tokens_per_sample"}
    if "steps" in given:
        said["steps"] = "horizon.steps" + (f"={given['steps']}" if isinstance(given["steps"], str) else "")
    elif steps is not None:
        said["steps"] = "trainer.max_steps" if steps == most else f"{epochs} epochs of {batches} batches by {KEY}"
    horizon = Horizon(steps, None, None, MappingProxyType(said), tokens, batch_sizes=sizes)
    return horizon.stopping(given.get("stop_after"))


def _read_steps(written: Any, horizon: Horizon) -> Any:
    """Return ``horizon.steps`` in optimizer steps, from a length in another unit; ``Horizon`` checks other values."""
    steps, length = _read_length(written)
    return steps if length is None else length.steps(horizon, "horizon.steps")


def _read_length(written: Any) -> tuple[Any, Duration | None]:
    """Return ``horizon.steps`` as a number of optimizer steps, or as a length in another unit."""
    if not isinstance(written, str) and not (isinstance(written, float) and 0.0 < written < 1.0):
        return written, None
    length = Duration.parse(written, "horizon.steps")
    if length.unit == "share":
        raise ConfigError("horizon.steps", "must not be a share: it is the length of the run", written)
    return (int(length.value), None) if length.unit == "steps" else (None, length)


def _derive_batches(loader: LoaderSize, trainer: Mapping[str, Any], world: int) -> int | None:
    """Return the batches of an epoch on each process, by the config; None if it does not have the number of samples."""
    batches = loader.batches(world)
    if batches == 0:
        raise ConfigError(
            "data.drop_last",
            f"leaves no batch: {loader.samples} samples do not fill one batch of {loader.batch_size}"
            f" on each of {world} device(s)",
            loader.drop_last,
        )
    return None if batches is None else limit_batches(batches, trainer)


def apply_trial_options(trainer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the trainer's keys after the effects of ``overfit_batches`` and ``fast_dev_run``."""
    few, fast = trainer.get("overfit_batches"), trainer.get("fast_dev_run")
    if few:
        trainer = {**trainer, "limit_train_batches": few}
    if fast:
        trainer = {**trainer, "limit_train_batches": int(fast), "max_steps": int(fast), "max_epochs": 1}
    return trainer


def limit_batches(batches: int, trainer: Mapping[str, Any]) -> int:
    """Apply ``trainer.limit_train_batches``: a whole number of batches, or a share of them (rounded down)."""
    limit: int | float | None = trainer.get("limit_train_batches")
    if limit is None:
        return batches
    limited = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
    if limited == 0:
        raise ConfigError(
            limit_key(trainer) or "trainer.limit_train_batches",
            f"leaves none of the {batches} batches to train on",
            limit,
        )
    return limited


def limit_key(trainer: Mapping[str, Any]) -> str | None:
    """Return the key that limits the training batches of an epoch; None if none does.

    >>> limit_key({"overfit_batches": 2, "limit_train_batches": 9}), limit_key({"overfit_batches": 0.0})
    ('trainer.overfit_batches', None)
    """
    for name in ("fast_dev_run", "overfit_batches", "limit_train_batches"):
        if trainer.get(name):
            return f"trainer.{name}"
    return None

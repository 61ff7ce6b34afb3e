"""Many short trainings of one network as one program, without files: for searches over rates and schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from lrkit.base.errors import ConfigError
from lrkit.base.metric_names import higher_is_better
from lrkit.data.in_memory import InMemoryData
from lrkit.lightning.imports import seed_everything
from lrkit.lightning.module import groups_of, rates_of
from lrkit.lightning.supervised import Supervised
from lrkit.planning.plan import Plan
from lrkit.stacking.stackable_config import why_not_stackable, without_free_keys
from lrkit.stacking.stacked_training import Check, Member, Record, StackSettings, Validation, train_stack
from lrkit.training_objects.data import data_of
from lrkit.training_objects.module import module_of
from lrkit.training_objects.optimizers import optimizer_of

__all__ = ["ShortTraining", "build_member", "stack_settings", "train_members", "with_own_order"]


@dataclass(frozen=True)
class ShortTraining:
    """The measurements of a member.

    Args:
        losses: the training loss of each optimizer step; the last one is not finite if it diverged.
        validations: its validations: step, epoch and metrics ``val/loss`` and, for classes, ``val/accuracy``.
        score: the metric ``monitor`` after the last step, negated if higher is better; infinite if the training
            diverged or was not validated.
        ended: the reason of an early end: of ``watch``, or of a loss that is not finite; else empty.
    """

    losses: list[float] = field(default_factory=list)
    validations: list[Validation] = field(default_factory=list)
    score: float = math.inf
    ended: str = ""


def train_members(
    configs: Sequence[Mapping[str, Any]],
    plans: Sequence[Plan],
    *,
    steps: int | Sequence[int] | None = None,
    validate: str = "end",
    monitor: str = "val/loss",
    watch: Callable[[int, Sequence[float]], str] = lambda member, losses: "",
    data: InMemoryData | None = None,
    initial: Mapping[str, Tensor] | None = None,
) -> list[ShortTraining]:
    """Train several members as one program, and return the measurements of each. Writes no file.

    Each member has the initial weights and the order of the samples of its own seed, as a run of its config has, and
    follows its own plan. Its losses are those of ``run_short`` up to rounding (1e-5 in the first 100 steps). A member
    whose loss or gradient is not finite ends there and does not change the others.

    Args:
        configs: the config of each member; they may differ in ``stackable_config.FREE`` alone (rate, schedule, warmup,
            cooldown, weight decay, seed). ``why_not_stackable(config)`` says before whether a config fits.
        plans: the plan of each member, of any length and any rates, such as ``Plan.within(steps, base_lr)``; its
            groups are replaced by those of the network.
        steps: optimizer steps of all members, or of each; None: those of the plans.
        validate: ``end``: after the last step; ``step``: after each step, as ``find.loss=val``; ``epoch``: after each
            epoch and after the last step; ``never``.
        monitor: the metric of ``score``.
        watch: is called with the index of a member and its losses so far after each step (with ``validate="step"``:
            its validation losses); returns a reason to end it, or an empty string.
        data: the data of the configs, if it is loaded already.
        initial: a state dict of the module that replaces the initial weights of all members.

    Raises:
        ConfigError: a config does not fit a stack, with the key.

    Example::

        plans = [full.within(60, lr) for lr in (0.01, 0.1, 1.0)]
        for run in train_members([config] * 3, plans, steps=60):
            print(run.score, run.losses[-1])
    """
    check_configs(configs)
    every = {"end": math.inf, "step": 0, "epoch": 1, "never": math.inf}[validate]
    data = load_data(configs[0]) if data is None else data
    members = []
    for i, (config, plan) in enumerate(zip(configs, plans, strict=True)):
        member = build_member(config, plan, data, initial=initial, check=_refuse_not_finite)
        length = steps if steps is None or isinstance(steps, int) else steps[i]
        members.append(member.with_end(length, partial(watch, i)))
    settings = stack_settings(configs[0], data, validates=validate != "never", every=every)
    return [_measure(record, monitor) for record in train_stack(members, settings)]


def check_configs(configs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse configs that do not form a stack.

    Raises:
        ConfigError: with the key that keeps them apart.
    """
    for config in configs:
        if (refused := why_not_stackable(config)) is not None:
            raise ConfigError(refused[0], f"does not fit a stack: {refused[1]}")
    first = without_free_keys(configs[0])
    for config in configs[1:]:
        if (other := without_free_keys(config)) != first:
            differing = [key for key in first.keys() | other.keys() if first.get(key) != other.get(key)]
            raise ConfigError(sorted(differing)[0], "must be the same for all members of a stack")


def load_data(config: Mapping[str, Any]) -> InMemoryData:
    """Return the loaded data of a config."""
    data = data_of(config)
    assert isinstance(data, InMemoryData)
    data.setup("fit")
    return data


def with_own_order(data: InMemoryData, config: Mapping[str, Any]) -> InMemoryData:
    """Return the same loaded data with the order of the samples of another config."""
    return data.with_seed(int(config["data"]["seed"]))


def build_member(
    config: Mapping[str, Any],
    plan: Plan,
    data: InMemoryData,
    *,
    initial: Mapping[str, Tensor] | None = None,
    check: Check = lambda loss, norm: "",
) -> Member:
    """Return a member with the initial weights, the parameter groups and the order of samples of a run of its config.

    Args:
        config: the config of the member.
        plan: its plan; its groups are replaced by those of the network.
        data: the loaded data of the stack.
        initial: the initial weights, if they are not those of the seed.
        check: decides before each step.
    """
    seed_everything(int(config["seed"]), workers=True, verbose=False)
    module = module_of(config, data)
    assert isinstance(module, Supervised)
    if initial is not None:
        module.load_state_dict(initial)
    groups = groups_of(module, config["param_groups"])
    loader = with_own_order(data, config).train_dataloader()

    def order(epoch: int) -> Sequence[Tensor]:
        loader.set_epoch(epoch)
        return loader.batch_indices()

    network: nn.Module = module.model
    return Member(network, groups, plan.with_groups(rates_of(groups)), order, int(config["data"]["seed"]), check)


def stack_settings(
    config: Mapping[str, Any],
    data: InMemoryData,
    *,
    validates: bool = True,
    every: float | None = None,
    **more: Any,
) -> StackSettings:
    """Return the settings that all members of a stack share, from the config of one.

    Args:
        config: the config of a member.
        data: the loaded data.
        validates: whether there is a validation.
        every: epochs between two validations; 0: one after each step; None: as the config says.
        more: other fields of ``StackSettings``.
    """
    trainer, (target, options) = config["trainer"], optimizer_of(config)
    limit = trainer.get("limit_val_batches")
    validation = [*data.val_dataloader()] if validates and limit != 0 else []
    validation = validation[: _limit(limit, len(validation))]
    count = len(data.train_dataloader())
    return StackSettings(
        target=target,
        options=options,
        loss=data.loss,
        fetch=data.train_dataloader().fetch,
        validation=validation,
        every=trainer.get("check_val_every_n_epoch") or 1 if every is None else every,
        clip=trainer.get("gradient_clip_val"),
        clip_by=trainer.get("gradient_clip_algorithm") or "norm",
        batches=_limit(trainer.get("limit_train_batches"), count),
        **more,
    )


def _limit(limit: float | None, count: int) -> int:
    """Return the number of batches that Lightning takes: a number of them, or a share."""
    if limit is None:
        return count
    return min(limit, count) if isinstance(limit, int) else int(count * limit)


def _refuse_not_finite(loss: float, norm: float) -> str:
    if not math.isfinite(loss):
        return "the loss was not finite"
    return "" if math.isfinite(norm) else "the gradients were not finite"


def _measure(record: Record, monitor: str) -> ShortTraining:
    losses, ended = [*record.losses], record.ended
    if record.against:
        losses, ended = [*losses, record.failed_loss], record.against
    score = math.inf
    if not record.against and record.validations and monitor in record.validations[-1].metrics:
        value = record.validations[-1].metrics[monitor]
        value = -value if higher_is_better(monitor) else value
        score = value if math.isfinite(value) else math.inf
    return ShortTraining(losses, record.validations, score, ended)

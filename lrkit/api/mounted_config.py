"""``lrkit.from_config``: the plan of another Hydra application, from lrkit's groups in its config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from lrkit.api.arguments import RunParts
from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.moved_classes import with_current_paths
from lrkit.config.shipped_options import option_names, read_option
from lrkit.planning.guard import Guard
from lrkit.planning.plateau import Plateau
from lrkit.schedules.durations import Length
from lrkit.schedules.horizon import Horizon

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import nn
    from torch.optim import Optimizer

    from lrkit.lightning.imports import LightningModule
    from lrkit.optim.scheduler import PlanScheduler

    AnyModule = TypeVar("AnyModule", bound=LightningModule)

__all__ = ["from_config"]

#: The groups that from_config reads; only the first two are required.
_GROUPS = (
    "optimizer", "schedule", "warmup", "cooldown", "plateau", "guard", "coschedule", "batch_scaling", "param_groups",
    "weight_decay_rule", "allow_extreme_lr",
)  # fmt: skip


@overload
def from_config(
    cfg: DictConfig | Mapping[str, Any],
    model: nn.Module | Iterable[nn.Parameter],
    *,
    steps: int | None,
    steps_per_epoch: int | None = ...,
    batch_size: int | None = ...,
    stop_after: Length | None = ...,
    tokens_per_sample: int | None = ...,
    key: str = ...,
    trust: Sequence[str] = ...,
) -> tuple[Optimizer, PlanScheduler]: ...


@overload
def from_config(
    cfg: DictConfig | Mapping[str, Any],
    *,
    module: AnyModule,
    steps: int | None = ...,
    batch_size: int | None = ...,
    stop_after: Length | None = ...,
    tokens_per_sample: int | None = ...,
    key: str = ...,
    trust: Sequence[str] = ...,
) -> AnyModule: ...


def from_config(
    cfg: DictConfig | Mapping[str, Any],
    model: nn.Module | Iterable[nn.Parameter] | None = None,
    *,
    module: LightningModule | None = None,
    steps: int | None = None,
    steps_per_epoch: int | None = None,
    batch_size: int | None = None,
    stop_after: Length | None = None,
    tokens_per_sample: int | None = None,
    key: str = "",
    trust: Sequence[str] = (),
) -> Any:
    """Turn lrkit's groups in a config into a configured LightningModule, or into an optimizer and its scheduler.

    The application mounts the groups by ``hydra.searchpath: [pkg://lrkit.conf]`` and a defaults list such as
    ``[optimizer: adamw, schedule: cosine, warmup: linear]``. lrkit reads ``optimizer`` and ``schedule``, which are
    required, and ``warmup``, ``cooldown``, ``plateau``, ``guard``, ``coschedule``, ``batch_scaling``,
    ``weight_decay_rule``, ``param_groups`` and ``allow_extreme_lr``. It ignores the other keys of ``cfg``.

    Args:
        cfg: the composed config: a ``DictConfig`` or plain containers.
        model: for a plain torch loop, the model or its parameters. Rules for parameter groups need the model. Call
            ``scheduler.step()`` after each ``optimizer.step()``, and ``scheduler.observe(metric)`` for a plateau.
        module: in place of ``model``, a LightningModule, which is configured in place as by ``lrkit.configure``.
        steps: optimizer steps of the run; with ``module``, only if the module decides when to step, or with
            ``stop_after``.
        steps_per_epoch: optimizer steps in an epoch, for lengths in epochs.
        batch_size: samples in an optimizer step; with ``module``, in a batch of one device.
        stop_after: a duration after which the run stops: it takes the first part of ``steps``, at their rates. A plain
            loop must end after ``scheduler.plan.horizon.end`` steps.
        tokens_per_sample: tokens in a sample, for lengths in tokens.
        key: the key that contains the groups, if they are not at the root: ``"training.rate"``.
        trust: packages whose classes the config may name in addition to those of lrkit and torch.

    Returns:
        ``module``, or ``(optimizer, scheduler)``. The plan is ``scheduler.plan``.

    Raises:
        ConfigError: an error that the command refuses too, with the same key.

    >>> import torch
    >>> cfg = {
    ...     "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
    ...     "schedule": {"_target_": "lrkit.schedules.Linear", "start": 1.0, "end": 0.0},
    ... }
    >>> optimizer, scheduler = from_config(cfg, torch.nn.Linear(1, 1), steps=10)
    >>> for _ in range(5):
    ...     optimizer.step()
    ...     scheduler.step()
    >>> scheduler.get_last_lr()
    [0.05]
    """
    if (model is None) == (module is None):
        raise ConfigError("module", "or model must be given, but not both")
    try:
        nodes = _read_groups(cfg, key)
        parts = _build_parts(nodes, tuple(trust))
        if module is None:
            assert model is not None
            horizon = Horizon(steps, steps_per_epoch, batch_size, tokens_per_sample=tokens_per_sample)
            return _build_loop_objects(model, parts, horizon.stopping(stop_after, "stop_after"))
        from lrkit.api.lightning_module import RunLength, configure_module

        configure_module(module, parts, RunLength(batch_size, steps, stop_after, tokens_per_sample))
    except ConfigError as error:
        raise error.under(key) if key and error.key.partition(".")[0] in _GROUPS else error from None
    return module


def _read_groups(cfg: Any, key: str) -> dict[str, Any]:
    """Return lrkit's groups of a config, as plain containers."""
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    at: Any = cfg
    for name in filter(None, key.split(".")):
        at = at.get(name) if isinstance(at, Mapping | DictConfig) else None
    if not isinstance(at, Mapping | DictConfig):
        raise ConfigError(key or "cfg", "must be a group of keys", type(at).__name__)
    if key:  # this node contains only lrkit's groups, so another name is misspelt
        for name in at:
            if name not in _GROUPS:
                raise ConfigError(f"{key}.{name}", f"is not a group. {did_you_mean(str(name), _GROUPS)}")
    elif at.get("optimizers"):  # if it were ignored, every optimizer would follow the schedule of the root
        must = "is not read by from_config, which builds one plan: use lrkit.configure(module, optimizers=...)"
        raise ConfigError("optimizers", must)
    elif (at.get("batch") or {}).get("schedule"):
        must = "is not read by from_config: use lrkit.configure(module, batch_schedule=...)"
        raise ConfigError("batch.schedule", must)
    nodes: dict[str, Any] = {}
    try:
        for name in (name for name in _GROUPS if name in at):
            node = at[name]
            if OmegaConf.is_config(node):
                node = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
            nodes[name] = with_current_paths(node)
    except OmegaConfBaseException as error:
        where = str(getattr(error, "full_key", None) or key or "cfg")
        raise ConfigError(where, "cannot be resolved: " + str(error).splitlines()[0].rstrip(".")) from None
    for name, node in nodes.items():
        if name != "allow_extreme_lr" and node is not None and not isinstance(node, Mapping):
            raise ConfigError(name, "must be a group of keys", node)
    return nodes


def _build_parts(nodes: Mapping[str, Any], trust: tuple[str, ...]) -> RunParts:
    """Build the arguments of the plan from the groups, with the checks of the command."""
    from lrkit.config import trusted_targets
    from lrkit.config.plan_objects import build_part, build_schedule, check_guard_keys

    trusted_targets.check({**nodes, "trust": trust})
    for name in ("optimizer", "schedule"):
        if not nodes.get(name):
            raise ConfigError(name, f"must be set: mount one of {', '.join(option_names(name))}")
    node = dict(nodes["optimizer"])
    if "_target_" not in node:
        raise ConfigError("optimizer._target_", "must be set")
    if node.get("lr") == "auto":
        raise ConfigError("optimizer.lr", "must be a number: only lrkit train and lrkit find can measure auto")
    rule = _check_keys(nodes, "batch_scaling", read_option("batch_scaling", "linear", "batch_scaling"))
    decay = _check_keys(nodes, "weight_decay_rule", read_option("weight_decay_rule", "timescale", "weight_decay_rule"))
    guard = nodes.get("guard") or {}
    check_guard_keys({"policy": Guard.policy, **guard} if guard else {})
    mounted: Mapping[str, Any] = nodes.get("coschedule") or {}
    driven = {name: build_schedule(each, f"coschedule.{name}", trust) for name, each in mounted.items()}
    schedule = build_schedule(nodes["schedule"], "schedule", trust)
    assert schedule is not None
    return RunParts(
        lr=node.pop("lr", None),
        optimizer=str(node.pop("_target_")),
        options=node,
        schedule=schedule,
        warmup=build_schedule(nodes.get("warmup"), "warmup", trust),
        cooldown=build_schedule(nodes.get("cooldown"), "cooldown", trust),
        plateau=build_part(nodes.get("plateau"), "plateau", Plateau, trust),
        guard=build_part(nodes.get("guard"), "guard", Guard, trust),
        coschedule={name: each for name, each in driven.items() if each is not None},
        batch_scaling=rule.get("rule", "none"),
        base_batch_size=rule.get("base_batch_size", 256),
        weight_decay_rule=decay.get("rule", "coupled"),
        weight_decay_timescale=decay.get("timescale"),
        param_groups=nodes.get("param_groups") or {},
        allow_extreme_lr=bool(nodes.get("allow_extreme_lr", False)),
        trust=trust,
    )


def _check_keys(nodes: Mapping[str, Any], group: str, shipped: Mapping[str, Any]) -> Mapping[str, Any]:
    node: Mapping[str, Any] = nodes.get(group) or {}
    for name in node:
        if name not in shipped:
            raise ConfigError(f"{group}.{name}", f"is not a key. {did_you_mean(str(name), shipped)}")
    return node


def _build_loop_objects(model: Any, parts: RunParts, horizon: Horizon) -> tuple[Optimizer, PlanScheduler]:
    """Return the optimizer and the scheduler of a plain torch loop."""
    from torch import nn

    from lrkit.optim.factory import build_optimizer
    from lrkit.optim.param_groups import group_remarks, split_parameters
    from lrkit.optim.scheduler import PlanScheduler
    from lrkit.planning.group_rules import Rules, parse_rules
    from lrkit.planning.plan import GroupRate

    if parts.build_guard() is not None:
        raise ConfigError("guard", "must be off in a plain torch loop: the guard is a callback of Lightning")
    rules, plan = parts.rules(), parts.plan(horizon)
    if not isinstance(model, nn.Module):
        if parse_rules(rules) != Rules():
            raise ConfigError("param_groups", "needs the argument model to be a module: parameters alone have no names")
        model = nn.ParameterList(model)
    groups = split_parameters(model, rules)
    rates = [GroupRate(group.name, group.lr_scale, group.weight_decay) for group in groups]
    plan = plan.with_groups(rates, group_remarks(model, rules))
    optimizer = build_optimizer(*parts.target(), [group.options(plan.base(group.lr_scale)) for group in groups])
    scheduler = PlanScheduler(optimizer, plan)
    scheduler.write()
    return optimizer, scheduler

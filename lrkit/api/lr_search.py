"""``lrkit.find``: the search for a learning rate, with the caller's module and data, or with overrides."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from lrkit.api.arguments import AnyGuard, AnyPlateau, AnyRules, AnySchedule, RunParts, class_path
from lrkit.base import lightning_package
from lrkit.base.errors import ConfigError
from lrkit.base.terminal_width import print_line
from lrkit.config.find_options import Search
from lrkit.schedules.durations import Length
from lrkit.schedules.shapes import RangeTest

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lrkit.lightning.imports import LightningDataModule, LightningModule
    from lrkit.lr_finder.result import FinderResult

__all__ = ["find"]


@overload
def find(
    module: LightningModule,
    train_dataloaders: Any = None,
    val_dataloaders: Any = None,
    datamodule: LightningDataModule | None = None,
    *,
    trainer: Mapping[str, Any],
    schedule: AnySchedule = ...,
    optimizer: str | type[Optimizer] = ...,
    options: Mapping[str, Any] | None = ...,
    warmup: AnySchedule | None = ...,
    warmup_length: Length | None = ...,
    cooldown: AnySchedule | None = ...,
    cooldown_length: Length | None = ...,
    plateau: AnyPlateau | None = ...,
    guard: AnyGuard | None = ...,
    coschedule: Mapping[str, AnySchedule] | None = ...,
    batch_scaling: str = ...,
    base_batch_size: int = ...,
    weight_decay_rule: str = ...,
    weight_decay_timescale: Length | None = ...,
    param_groups: AnyRules | None = ...,
    batch_size: int | None = ...,
    tokens_per_sample: int | None = ...,
    search: Mapping[str, Any] | None = ...,
    monitor: str = ...,
    seed: int = ...,
    folder: Path | str | None = ...,
    quiet: bool = ...,
) -> FinderResult: ...


@overload
def find(module: Sequence[str], *, folder: Path | str | None = ..., quiet: bool = ...) -> FinderResult: ...


def find(
    module: LightningModule | Sequence[str],
    train_dataloaders: Any = None,
    val_dataloaders: Any = None,
    datamodule: LightningDataModule | None = None,
    *,
    trainer: Mapping[str, Any] | None = None,
    schedule: AnySchedule = "cosine",
    optimizer: str | type[Optimizer] = "adamw",
    options: Mapping[str, Any] | None = None,
    warmup: AnySchedule | None = None,
    warmup_length: Length | None = None,
    cooldown: AnySchedule | None = None,
    cooldown_length: Length | None = None,
    plateau: AnyPlateau | None = None,
    guard: AnyGuard | None = None,
    coschedule: Mapping[str, AnySchedule] | None = None,
    batch_scaling: str = "none",
    base_batch_size: int = 256,
    weight_decay_rule: str = "coupled",
    weight_decay_timescale: Length | None = None,
    param_groups: AnyRules | None = None,
    batch_size: int | None = None,
    tokens_per_sample: int | None = None,
    search: Mapping[str, Any] | None = None,
    monitor: str = "auto",
    seed: int = 0,
    folder: Path | str | None = None,
    quiet: bool = False,
) -> FinderResult:
    """Find the learning rate to train with: range tests, then short runs at candidates.

    The search trains copies of the module with its current weights. It changes neither the module nor its data, and
    restores the global random numbers and the order of the batches. ``found.lr`` is the rate for ``lrkit.configure``,
    in the interval from ``found.low`` to ``found.high``. If the search finds no rate, it is None, and ``found.reason``
    has the reason. ``found.plot()`` draws the curve.

        how = {"schedule": "cosine", "warmup": "linear", "optimizer": "adamw"}
        found = lrkit.find(module, train_loader, val_loader, trainer={"max_epochs": 20}, **how)
        Trainer(max_epochs=20).fit(lrkit.configure(module, lr=found.lr, **how), train_loader, val_loader)

    The arguments that are not listed are those of ``lrkit.configure``; ``plateau`` and ``guard`` are checked, but have
    no effect in short runs.

    Args:
        module: any LightningModule; or a list of overrides as for `lrkit find`, without the other arguments.
        train_dataloaders, val_dataloaders, datamodule: as for ``Trainer.fit``.
        trainer: the keyword arguments of the run's Trainer. ``max_epochs`` or ``max_steps`` is the length of the run;
            the short runs take 1/16, 1/4 and 1/2 of it.
        search: the keys of ``find`` in `lrkit find`: ``start``, ``end``, ``steps``, ``repeats``, ``shape``, ``loss``,
            ``confirm``, ``rounds``, ``full``.
        monitor: the metric by which short runs are compared; ``auto``: the validation loss.
        seed: the seed of the random numbers in the copies.
        folder: the folder for ``find.json``, ``find.csv`` and ``find.png``; None: no files.
        quiet: print nothing during the search.

    Raises:
        ConfigError: an invalid argument, a module that cannot be copied, or several processes.

    Source: Smith 2017, arXiv:1506.01186, section 3.3; Jamieson and Talwalkar 2016, arXiv:1502.07943.
    """
    if not hasattr(module, "training_step"):
        return _find_by_overrides(module, folder, quiet)
    lightning_package.use_package({"module": type(module), "datamodule": type(datamodule)})
    data = (train_dataloaders, val_dataloaders, datamodule, batch_size, tokens_per_sample)
    parts = RunParts(
        lr=1.0, schedule=schedule, optimizer=optimizer, options=options, warmup=warmup, warmup_length=warmup_length,
        cooldown=cooldown, cooldown_length=cooldown_length, plateau=plateau, guard=guard, coschedule=coschedule,
        batch_scaling=batch_scaling, base_batch_size=base_batch_size, weight_decay_rule=weight_decay_rule,
        weight_decay_timescale=weight_decay_timescale, param_groups=param_groups,
    )  # fmt: skip
    return _find_with_objects(module, data, parts, trainer, Search.of(search or {}), monitor, seed, folder, quiet)


def _find_with_objects(
    module: Any,
    data: tuple[Any, Any, LightningDataModule | None, int | None, int | None],
    parts: RunParts,
    trainer: Mapping[str, Any] | None,
    search: Search,
    monitor: str,
    seed: int,
    folder: Path | str | None,
    quiet: bool,
) -> FinderResult:
    from lrkit.api.caller_task import CallerData, CallerTask, check_one_process, read_trainer, restoring_process_state
    from lrkit.lr_finder.result import FinderResult
    from lrkit.lr_finder.search import search_rate
    from lrkit.optim.factory import check_optimizer
    from lrkit.planning.optimizer_traits import finds_rate

    if parts.schedule_class() == RangeTest:
        raise ConfigError("schedule", "must be the schedule to train with: lrkit.find runs range tests itself")
    parts.check(*data[-2:])
    target, options = parts.target()
    check_optimizer(target, options)
    options_of_trainer, callbacks = read_trainer(trainer)
    loaders = CallerData(module, *data)
    if finds_rate(target):
        name = target.rpartition(".")[2]
        return FinderResult(1.0, reason=f"{name} finds the learning rate itself, and lr multiplies it")
    with restoring_process_state():
        check_one_process(options_of_trainer)
        task = CallerTask(module, loaders, parts, options_of_trainer, callbacks, monitor, seed)
        found = search_rate(task, search, (lambda line: None) if quiet else print_line)
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        found.save(Path(folder), {"module": class_path(module)})
    return found


def _find_by_overrides(overrides: Any, folder: Path | str | None, quiet: bool) -> FinderResult:
    """Search by overrides, like `lrkit find`."""
    if not isinstance(overrides, list | tuple) or not all(isinstance(each, str) for each in overrides):
        raise ConfigError("module", "must be a LightningModule, or a list of overrides", type(overrides).__name__)
    from lrkit.cli.arguments import refuse_sweep_keys
    from lrkit.config import compose as configs
    from lrkit.config.instantiate import use_lightning

    config = configs.compose(overrides)
    configs.check(config)
    refuse_sweep_keys(overrides, "a search")
    use_lightning(config)
    from lrkit.api.caller_task import restoring_process_state
    from lrkit.lr_finder.find import find_lr

    with tempfile.TemporaryDirectory() as nowhere, restoring_process_state():
        place = Path(nowhere if folder is None else folder)
        place.mkdir(parents=True, exist_ok=True)
        return find_lr(config, place, quiet=quiet)

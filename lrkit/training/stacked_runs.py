"""Several runs whose optimizer steps are taken together, by a stack; each leaves the files of a separate run."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from lrkit.base.errors import ConfigError
from lrkit.base.metric_names import validation_loss_name
from lrkit.base.signals import STOP_SIGNALS, handle_signals, note_answer
from lrkit.callbacks.divergence_guard import DivergenceGuard
from lrkit.config import compose as configs
from lrkit.data.in_memory import InMemoryData
from lrkit.lightning.silenced_messages import silence_lightning
from lrkit.stacking.short_trainings import build_member, check_configs, load_data, stack_settings, with_own_order
from lrkit.stacking.stacked_training import Member, StackSettings, train_stack
from lrkit.training.recorded_training import RecordedTraining

__all__ = ["StackedRun", "train_stacked_runs"]


@dataclass(frozen=True)
class StackedRun:
    """The training of a member that is over, before its run writes its files."""

    config: Mapping[str, Any]
    data: InMemoryData
    recorded: RecordedTraining


def train_stacked_runs(members: Sequence[Mapping[str, Any]], write: Callable[[int, StackedRun], None]) -> int | None:
    """Train the members of a stack, and let each write its files.

    Args:
        members: the resolved config of each member.
        write: is called with the index of a member and its training; it calls ``run_training``.

    Returns:
        The signal that ended the stack before its last step; None if there was none.

    Raises:
        ConfigError: the configs do not form a stack.
    """
    silence_lightning()
    check_configs(members)
    since = time.perf_counter()
    data = load_data(members[0])
    with _note_signals() as received:
        stack = [_build_run(config, data) for config in members]
        settings = _build_settings(members[0], data, interrupted=lambda: bool(received))
        records = train_stack(stack, settings)
    seconds = (time.perf_counter() - since) / len(members)
    for i, (config, member, record) in enumerate(zip(members, stack, records, strict=True)):
        recorded = RecordedTraining(record, member.plan, seconds, received[0] if received else signal.SIGTERM)
        write(i, StackedRun(config, with_own_order(data, config), recorded))
    return received[0] if received else None


def _build_run(config: Mapping[str, Any], data: InMemoryData) -> Member:
    """Return a member that follows the plan of its config, and the guard of that plan."""
    batches = len(with_own_order(data, config).train_dataloader())
    limited = stack_settings(config, data, validates=False).batches
    plan = configs.plan(config, world=1, batches=batches if limited is None else limited, notes=data.notes)
    guard = DivergenceGuard()
    guard.follow(plan.guard)
    return build_member(config, plan, data, check=guard.check_step)


def _build_settings(config: Mapping[str, Any], data: InMemoryData, **more: Any) -> StackSettings:
    """Return the settings of a stack whose members save checkpoints."""
    trainer, monitor = config["trainer"], str(config["monitor"])
    names = ("val/loss",) if data.loss == "mse" else ("val/loss", "val/accuracy")
    found = validation_loss_name(names) if monitor == "auto" else monitor
    if found not in names and trainer.get("limit_val_batches") != 0:
        raise ConfigError("monitor", f"must be one of {', '.join(names)}, or auto, in a stack", monitor)
    saves = trainer.get("enable_checkpointing", True) and trainer.get("limit_val_batches") != 0
    return stack_settings(
        config, data, monitor=found if saves else None, keeps_epochs=True, device=_choose_device(trainer), **more
    )


def _choose_device(trainer: Mapping[str, Any]) -> torch.device:
    """Return the device of the trainer's accelerator."""
    asked = trainer.get("accelerator")
    if asked in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("cpu")


@contextmanager
def _note_signals() -> Iterator[list[int]]:
    """Within this context, a signal that ends a run is noted in the yielded list."""
    received: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        note_answer()  # else the watchdog would end this process while the members save
        received.append(signum)

    with handle_signals(note, *STOP_SIGNALS, signal.SIGINT):
        yield received

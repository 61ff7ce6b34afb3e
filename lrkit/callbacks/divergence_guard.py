"""The divergence guard: checks losses and gradients, and stops, skips a step or rolls back, by the policy of ``Guard``.

All processes must act alike, without another message at each step. So a process with a bad loss
makes its gradient nan: the reduction of the gradients passes it to every process, and each decides by it. (With
sharded gradients a process has only its own part, and one flag a step is exchanged.)

The guard does not wait for a GPU either. Under ``stop``, losses and norms are copied to the host when they are ready,
and checked eight steps later: the weights may be bad by then, but no checkpoint is saved before the check.
``skip`` and ``reduce`` must decide before the step is taken, and wait: once at each step, for the losses and the norm
together. Several processes wait for the loss too, before the backward pass, because it passes a bad loss to the others.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lrkit.base.errors import Diverged
from lrkit.base.event_log import EventLog
from lrkit.callbacks.state_copies import copy_state, is_kept_on_host
from lrkit.data.placement import free_bytes
from lrkit.lightning.batch_loss import read_loss
from lrkit.lightning.imports import Callback, LightningModule, TensorBoardLogger, Trainer
from lrkit.lightning.module import batch_of, plan_of, scheduler_for, scheduler_of, schedulers_of
from lrkit.lightning.sharding import is_sharded
from lrkit.optim.host_copy import HostCopy
from lrkit.optim.scheduler import PlanScheduler
from lrkit.optim.sharded_tensors import local_part
from lrkit.planning.guard import Guard
from lrkit.planning.guard_policies import POLICIES, policy_named
from lrkit.planning.loss_statistics import LossStatistics

__all__ = ["DivergenceGuard", "gradient_norm", "gradient_norm_value", "norm_of_tensors"]

#: How many times in a row a gradient scaler may find infinite gradients while its scale falls from 2**16 to 1.
SCALER_TRIES = 20
#: How many steps a GPU may be ahead; a constant, because all processes must check a step at the same time.
LAG = 8
#: Up to this number of tensors, a sum in Python is faster than in torch.
FEW = 64


class PendingLoss(NamedTuple):
    """A loss and a gradient norm that are being copied to the host."""

    step: int
    values: HostCopy


class DivergenceGuard(Callback):
    """Guards a training whose optimizer lrkit has configured; the policy is that of the plan.

    Args:
        event_log: gets an entry for each action.
        say: is called with a line for each action.
    """

    def __init__(self, event_log: EventLog | None = None, say: Callable[[str], None] = lambda line: None) -> None:
        self.event_log, self.say = event_log or EventLog(None), say
        self.guard, self.is_active = Guard(), False
        self.levels = LossStatistics()
        self.losses: list[float] = []  # of the batches of this optimizer step
        self.unread: list[tuple[Tensor, int]] = []  # such losses that are not on the host yet, and their window's size
        self.copies_on_host: bool | None = None  # None: not decided yet
        self.in_a_row = self.above = self.skipped = 0
        self.why = ""  # the reason of this process against the step
        self.norm: tuple[int, Tensor] | None = None
        self.good: deque[tuple[dict[str, Any], dict[str, Any]]] = deque(maxlen=2)
        self.pending: deque[PendingLoss] = deque()

    def follow(self, guard: Guard | None) -> None:
        """Follow the guard of a plan; None: check nothing."""
        self.is_active = guard is not None
        if guard is not None:
            self.guard = guard
            self.levels.recent = deque(self.levels.recent, maxlen=guard.window)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        planned = plan_of(trainer).guard
        self.follow(planned)
        if planned is None:
            return
        self.scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.waits = self.guard.rules.waits_for_loss or trainer.strategy.root_device.type != "cuda"
        self.sharded = is_sharded(trainer)
        self.together = torch.distributed.is_available() and torch.distributed.is_initialized()
        if self.guard.rules.keeps_copies:
            self._save_copy(trainer, pl_module)

    def check_step(self, loss: float, norm: float) -> str:
        """Check a step of a training without a trainer, under the policy ``stop``.

        Returns:
            The reason against the step; an empty string for a good step.
        """
        if not self.is_active:
            return ""
        self._check_loss(loss)
        losses, self.losses = self.losses, []
        why, self.why = self.why, ""
        if why or not math.isfinite(norm):
            self.in_a_row += 1
            return why or f"the norm of the gradients is {norm}"
        self._add_good_losses(losses)
        return ""

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if not self.is_active:
            return
        if self.waits:
            self.unread.append((loss.detach(), trainer.accumulate_grad_batches))
            if self.together:
                self._check_unread()
        if not loss.requires_grad:
            return
        if self.why:
            loss.register_hook(lambda grad: grad * math.nan)  # type: ignore[no-untyped-call]
        elif not self.waits:
            value = loss.detach()
            # value - value is nan if it is not finite, else 0; the host need not wait for the value.
            loss.register_hook(lambda grad: grad + (value - value))  # type: ignore[no-untyped-call]

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not self.is_active:
            return
        scheduler = scheduler_for(trainer, optimizer)
        scheduler.skip(False)
        if not self.waits:
            norm = gradient_norm(optimizer)
            if scheduler.track and self.norm is not None:  # of another optimizer, in the same batch
                norm = norm + self.norm[1].to(norm.device)
            self.norm = _step_number(trainer, scheduler), norm
            return
        if self.good and len(self.good[-1][1]["param_groups"]) != len(optimizer.param_groups):
            self.good.clear()  # a group was added, and an optimizer loads no state with fewer groups
            self._save_copy(trainer, pl_module)
        value = self._check_unread(optimizer)
        finite = math.isfinite(value) and not self.why
        if self.sharded and self.together:
            flag = torch.tensor(float(finite), device=trainer.strategy.root_device)
            finite = bool(trainer.strategy.reduce(flag, reduce_op="min"))
        losses, self.losses = self.losses, []
        why, self.why = self.why, ""
        if finite:
            self._accept_step(trainer, pl_module, losses)
            return
        if self._is_left_to_scaler(why):
            return
        self._apply_action(
            trainer, pl_module, scheduler, self._agree_on_reason(why or f"the norm of the gradients is {value}")
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.norm is None:
            return
        (step, norm), self.norm = self.norm, None
        loss = read_loss(trainer, outputs)
        values = move_to_one_device([norm if loss is None else loss, norm], torch.float32)
        self.pending.append(PendingLoss(step, HostCopy(torch.stack(values))))
        self._check_pending(trainer, pl_module, LAG)

    # The last step is checked before the weights are used.

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_pending(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check_pending(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_pending(trainer, pl_module)

    @property
    def state_key(self) -> str:
        return "DivergenceWatch"  # the key in existing checkpoints, from an earlier name of the class

    def state_dict(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("above", "in_a_row", "skipped")}
        return {"levels": self.levels.state_dict(), **counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.levels.load_state_dict(state_dict["levels"])
        self.above, self.in_a_row, self.skipped = (state_dict[name] for name in ("above", "in_a_row", "skipped"))

    def _check_unread(self, optimizer: Optimizer | None = None) -> float:
        """Check the losses that were not read, and return the norm of the gradients; all is read at once."""
        unread, self.unread = self.unread, []
        tensors = [loss for loss, _ in unread]
        if tensors and self.scaler is not None:
            tensors.append(self.scaler._get_scale_async())  # not get_scale(), which waits by itself
        norm = 0.0
        if optimizer is None:
            values = read_together(tensors)
        elif all(each.device.type == "cpu" for each in tensors):
            values, norm = read_together(tensors), gradient_norm_value(optimizer)
        else:
            *values, norm = read_together([*tensors, gradient_norm(optimizer)])
        scale = 1.0 if self.scaler is None or not unread else values.pop()
        for value, (_, batches) in zip(values, unread, strict=True):
            self._check_loss(value * batches / scale)
        return norm

    def _check_loss(self, loss: float) -> None:
        """Check one loss; set ``why`` if it is a reason against the step."""
        guard, levels = self.guard, self.levels
        self.losses.append(loss)
        if not math.isfinite(loss):
            self.why = f"the loss is {loss}"
            return
        if loss <= guard.rules.suspicious_loss(guard, levels):
            self.above = 0
            return
        self.above += 1
        if self.above >= guard.rules.tolerated_losses(guard):
            usual = guard.rules.usual_loss(levels)
            in_a_row = f", {self.above} times in a row" if self.above > 1 else ""
            self.why = f"the loss is {loss:.4g}, where it was {usual}{in_a_row}"

    def _add_good_losses(self, losses: list[float]) -> None:
        """Add the losses of a good step to the statistics."""
        self.in_a_row = 0
        limit = self.levels.limit(self.guard.spike)
        for loss in losses:
            if loss <= limit:
                self.levels.add(loss)

    def _accept_step(self, trainer: Trainer, pl_module: LightningModule, losses: list[float]) -> None:
        self._add_good_losses(losses)
        if not self.guard.rules.keeps_copies or self.above:
            return
        if scheduler_of(trainer).applied % int(self.guard.every) == 0:
            self._save_copy(trainer, pl_module)

    def _check_pending(self, trainer: Trainer, pl_module: LightningModule, behind: int = 0) -> None:
        """Check the losses and norms that the device has sent, except those of the last ``behind`` steps."""
        while len(self.pending) > behind:
            step, values = self.pending.popleft()
            loss, norm = values.read().tolist()
            if math.isfinite(norm):
                self._check_loss(loss)
                losses, self.losses = self.losses, []
                self._accept_step(trainer, pl_module, losses)
                continue
            if self._is_left_to_scaler(self.why):
                continue
            found = f"the norm of the gradients is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
            self.stop_training(trainer, self._agree_on_reason(self.why or found), step)

    def _is_left_to_scaler(self, why: str) -> bool:
        """Count a step with bad gradients; return whether the gradient scaler skips it and lowers its scale itself."""
        self.in_a_row += 1
        return self.scaler is not None and not why and self.in_a_row <= SCALER_TRIES

    def _agree_on_reason(self, why: str) -> str:
        """The reason of one of the processes; all of them call this, because all have the same gradients."""
        if not self.together:
            return why
        reasons: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(reasons, why)
        losses = [f"{text} (process {rank})" for rank, text in enumerate(reasons) if "loss" in text]
        return losses[0] if losses else str(reasons[0])

    def _apply_action(self, trainer: Trainer, pl_module: LightningModule, scheduler: PlanScheduler, why: str) -> None:
        """Apply the policy's decision on a bad step."""
        policy = self.guard.rules
        action = policy.decide(self.guard, why, self.in_a_row, scheduler.reduction.times)
        if action.stop:
            self.stop_training(trainer, action.why, _step_number(trainer, scheduler))
        if action.roll_back:
            self._roll_back(trainer, pl_module)
        if action.roll_back or action.lower_rate:
            self.above = self.in_a_row = 0
        else:
            self.skipped += 1
        if action.lower_rate:
            more = {"gain": scheduler.reduce(self.guard.gain, int(self.guard.warmup))}
        else:
            more = {"skipped": self.skipped}
        self._report_action(trainer, policy.name, action.why, scheduler.applied, **more)
        scheduler.skip()

    def stop_training(self, trainer: Trainer, why: str, step: int) -> None:
        """End the training at a bad step: record the reason, and raise ``Diverged``."""
        self._report_action(trainer, "stop", why, step)
        raise Diverged(f"diverged at step {step}: {why}")

    def _report_action(self, trainer: Trainer, event: str, why: str, step: int, **more: Any) -> None:
        """Print a line, add an entry to the event log, and write a value and a text for TensorBoard."""
        if not trainer.is_global_zero:
            return
        scheduler, *others = schedulers_of(trainer)
        plan, gain = scheduler.plan, scheduler.total_gain
        rate = {} if others else {"lr": plan.lr(plan.main_group, step, gain)}
        done = policy_named(event).describe_action(more.get("gain"))
        line = f"guard: step {step}: {done}: {why}"
        self.event_log.add(step, event, why, **rate, **more)
        self.say(line)
        for logger in trainer.loggers:
            logger.log_metrics({"guard": float(POLICIES.index(event) + 1)}, step=step)
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("guard", line, step)

    def _save_copy(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the weights and the optimizer's state. A rollback takes the older of two: the newer may be bad."""
        state = pl_module.state_dict(), trainer.optimizers[0].state_dict()
        if self.copies_on_host is None or not self.good:
            self.copies_on_host = is_kept_on_host(state, 2, free_bytes(trainer.strategy.root_device))
        self.good.append(copy_state(state, self.copies_on_host))

    def _roll_back(self, trainer: Trainer, pl_module: LightningModule) -> None:
        while len(self.good) > 1:
            self.good.pop()
        weights, state = copy_state(self.good[0])
        pl_module.load_state_dict(weights, strict=pl_module.strict_loading)
        trainer.optimizers[0].load_state_dict(state)


def _step_number(trainer: Trainer, scheduler: PlanScheduler) -> int:
    """The number of the next step of an optimizer; of the batch with several optimizers."""
    return batch_of(trainer) if scheduler.track else scheduler.applied


def read_together(values: Sequence[Tensor]) -> list[float]:
    """The numbers in some tensors; waits once for those of a device."""
    if all(value.device.type == "cpu" for value in values):
        return [value.item() for value in values]
    double = any(value.dtype == torch.float64 for value in values)
    moved = move_to_one_device(values, torch.float64 if double else torch.float32)
    numbers: list[float] = torch.stack(moved).tolist()
    return numbers


def move_to_one_device(values: Sequence[Tensor], kind: torch.dtype) -> list[Tensor]:
    """Some numbers on the device of one of them, not the host if one is elsewhere: a copy to the host would wait."""
    device = next((value.device for value in values if value.device.type != "cpu"), torch.device("cpu"))
    return [value.detach().reshape(()).to(device, kind, non_blocking=True) for value in values]


def gradient_norm(optimizer: Optimizer) -> Tensor:
    """The 2-norm of all gradients, a tensor on their device; not finite if any gradient is not."""
    return norm_of_tensors(_gradients_of(optimizer))


def gradient_norm_value(optimizer: Optimizer) -> float:
    """The 2-norm of all gradients as a number; waits for their device."""
    grads = _gradients_of(optimizer)
    if len(grads) > FEW or any(grad.device.type != "cpu" for grad in grads):
        return norm_of_tensors(grads).item()
    values = [norm.item() for norm in _norms_of(grads)]
    return math.sqrt(sum(value * value for value in values))


def norm_of_tensors(grads: Sequence[Tensor]) -> Tensor:
    """The 2-norm of all elements of some tensors, in float32 or a higher precision."""
    norms = _norms_of(grads)
    if not norms:
        return torch.zeros(())
    total: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))
    return total


def _gradients_of(optimizer: Optimizer) -> list[Tensor]:
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def _norms_of(grads: Sequence[Tensor]) -> Sequence[Tensor]:
    """The 2-norm of each tensor."""
    if not grads:
        return ()
    dense = [grad._values() if grad.is_sparse else grad for grad in grads]
    local = [local_part(grad) for grad in dense]
    # In float32 or higher, because the norm of finite half-precision gradients may exceed 65504.
    halves = any(grad.dtype in (torch.float16, torch.bfloat16) for grad in local)
    norms: Sequence[Tensor] = torch._foreach_norm(local, 2, dtype=torch.float32 if halves else None)
    return norms

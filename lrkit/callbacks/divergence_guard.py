"""The divergence guard at work: looks at losses and gradients, and stops, skips or goes back as ``Guard`` says.

All processes must act alike, and none should have to ask the others for it at each step. So a process that sees a bad
loss makes its gradient nan: every process gets that in the one message that all get anyway, and decides by it. (Where
gradients are sharded, a process sees its own part alone, and one flag a step is exchanged.)

Nor should a GPU be waited for. Under ``stop``, losses and norms are copied to the host as they become ready, and looked
at eight steps later: the weights may be spoilt by then, but no checkpoint is written before they have been looked at.
``skip`` and ``reduce`` must know before the step is taken, and wait.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lrkit.base.errors import Diverged
from lrkit.base.event_log import EventLog
from lrkit.lightning.classes import Callback, LightningModule, TensorBoardLogger, Trainer
from lrkit.lightning.module import batch_of, plan_of, scheduler_for, scheduler_of, schedulers_of
from lrkit.optim.scheduler import PlanScheduler
from lrkit.planning.guard import Guard, LossStatistics
from lrkit.planning.guard_policies import POLICIES, policy_named

__all__ = ["DivergenceGuard", "gradient_norm", "gradient_norm_value", "is_sharded", "norm_of_tensors"]

#: So often in a row a gradient scaler may meet infinite gradients because its scale is too high: from 2**16 down to 1.
SCALER_TRIES = 20
#: How many steps a GPU may be ahead; the same number everywhere, for all processes must look at a step together.
LAG = 8
#: So few numbers Python adds up before torch would have begun.
FEW = 64


class PendingLoss(NamedTuple):
    """A loss and a gradient norm on their way to the host."""

    step: int
    values: Tensor
    arrived: torch.cuda.Event


class DivergenceGuard(Callback):
    """Watches a training whose optimizer lrkit has configured.

    The plan says what counts as diverging, and what is done then.

    Args:
        journal: where each action is taken down.
        say: told each action in a line.
    """

    def __init__(self, journal: EventLog | None = None, say: Callable[[str], None] = lambda line: None) -> None:
        self.journal, self.say = journal or EventLog(None), say
        self.guard, self.watching = Guard(), False
        self.levels = LossStatistics()
        self.losses: list[float] = []  # of the batches of this optimizer step
        self.in_a_row = self.above = self.skipped = 0
        self.why = ""  # what this process has against the step
        self.norm: tuple[int, Tensor] | None = None
        self.good: deque[tuple[dict[str, Any], dict[str, Any]]] = deque(maxlen=2)
        self.late: deque[PendingLoss] = deque()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        planned = plan_of(trainer).guard
        self.watching = planned is not None
        if planned is None:
            return
        self.guard = planned
        self.levels.recent = deque(self.levels.recent, maxlen=self.guard.window)
        self.scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.waits = self.guard.rules.waits_for_loss or trainer.strategy.root_device.type != "cuda"
        self.sharded = is_sharded(trainer)
        self.together = torch.distributed.is_available() and torch.distributed.is_initialized()
        if self.guard.rules.keeps_copies:
            self._remember(trainer, pl_module)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if not self.watching:
            return
        if self.waits:
            scale = 1.0 if self.scaler is None else self.scaler.get_scale()
            self._look(loss.item() * trainer.accumulate_grad_batches / scale)
        if not loss.requires_grad:
            return
        if self.why:
            loss.register_hook(lambda grad: grad * math.nan)  # type: ignore[no-untyped-call]
        elif not self.waits:
            value = loss.detach()
            # What is not finite minus itself is nan; anything else, 0. Nobody waits for the value.
            loss.register_hook(lambda grad: grad + (value - value))  # type: ignore[no-untyped-call]

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not self.watching:
            return
        scheduler = scheduler_for(trainer, optimizer)
        scheduler.skip(False)
        if not self.waits:
            norm = gradient_norm(optimizer)
            if scheduler.track and self.norm is not None:  # of another optimizer, in the same batch
                norm = norm + self.norm[1].to(norm.device)
            self.norm = _place(trainer, scheduler), norm
            return
        if self.good and len(self.good[-1][1]["param_groups"]) != len(optimizer.param_groups):
            self.good.clear()  # a group has joined, and an optimizer takes back no state with fewer
            self._remember(trainer, pl_module)
        value = gradient_norm_value(optimizer)
        finite = math.isfinite(value)
        if self.sharded and self.together:
            flag = torch.tensor(float(finite), device=trainer.strategy.root_device)
            finite = bool(trainer.strategy.reduce(flag, reduce_op="min"))
        losses, self.losses = self.losses, []
        why, self.why = self.why, ""
        if finite:
            self._was_good(trainer, pl_module, losses)
            return
        if self._left_to_the_scaler(why):
            return
        self._act(trainer, pl_module, scheduler, self._agreed(why or f"the norm of the gradients is {value}"))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.norm is None:
            return
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        (step, norm), self.norm = self.norm, None
        loss = loss.detach() * trainer.accumulate_grad_batches if isinstance(loss, Tensor) else norm
        values = [loss, norm]
        self.late.append(PendingLoss(step, *_sent(torch.stack([value.float().reshape(()) for value in values]))))
        self._catch_up(trainer, pl_module, LAG)

    # Before anything is made of the weights, the last step must have been looked at.

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._catch_up(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._catch_up(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._catch_up(trainer, pl_module)

    @property
    def state_key(self) -> str:
        return "DivergenceWatch"  # the name in checkpoints, which outlives that of the class

    def state_dict(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("above", "in_a_row", "skipped")}
        return {"levels": self.levels.state_dict(), **counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.levels.load_state_dict(state_dict["levels"])
        self.above, self.in_a_row, self.skipped = (state_dict[name] for name in ("above", "in_a_row", "skipped"))

    def _look(self, loss: float) -> None:
        """One loss: whether this process has something against the step."""
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
            than = guard.rules.usual_loss(levels)
            in_a_row = f", {self.above} times in a row" if self.above > 1 else ""
            self.why = f"the loss is {loss:.4g}, where it was {than}{in_a_row}"

    def _was_good(self, trainer: Trainer, pl_module: LightningModule, losses: list[float]) -> None:
        self.in_a_row = 0
        limit = self.levels.limit(self.guard.spike)
        for loss in losses:
            if loss <= limit:
                self.levels.add(loss)
        if not self.guard.rules.keeps_copies or self.above:
            return
        if scheduler_of(trainer).applied % int(self.guard.every) == 0:
            self._remember(trainer, pl_module)

    def _catch_up(self, trainer: Trainer, pl_module: LightningModule, behind: int = 0) -> None:
        """Look at what the device has sent, but for the last few steps."""
        while len(self.late) > behind:
            step, values, arrived = self.late.popleft()
            arrived.synchronize()
            loss, norm = values.tolist()
            if math.isfinite(norm):
                self._look(loss)
                losses, self.losses = self.losses, []
                self._was_good(trainer, pl_module, losses)
                continue
            if self._left_to_the_scaler(self.why):
                continue
            found = f"the norm of the gradients is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
            self._stop(trainer, self._agreed(self.why or found), step)

    def _left_to_the_scaler(self, why: str) -> bool:
        """One more step with bad gradients: whether a scaler leaves it out, and lowers its scale, without our help."""
        self.in_a_row += 1
        return self.scaler is not None and not why and self.in_a_row <= SCALER_TRIES

    def _agreed(self, why: str) -> str:
        """Why, as any of the processes knows it; all of them have come here, for all have the same gradients."""
        if not self.together:
            return why
        said: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(said, why)
        losses = [f"{text} (process {rank})" for rank, text in enumerate(said) if "loss" in text]
        return losses[0] if losses else str(said[0])

    def _act(self, trainer: Trainer, pl_module: LightningModule, scheduler: PlanScheduler, why: str) -> None:
        """Do what the policy decides about a bad step."""
        policy = self.guard.rules
        action = policy.decide(self.guard, why, self.in_a_row, scheduler.reduction.times)
        if action.stop:
            self._stop(trainer, action.why, _place(trainer, scheduler))
        if action.roll_back:
            self._go_back(trainer, pl_module)
        if action.roll_back or action.lower_rate:
            self.above = self.in_a_row = 0
        else:
            self.skipped += 1
        if action.lower_rate:
            more = {"gain": scheduler.reduce(self.guard.gain, int(self.guard.warmup))}
        else:
            more = {"skipped": self.skipped}
        self._tell(trainer, policy.name, action.why, scheduler.applied, **more)
        scheduler.skip()

    def _stop(self, trainer: Trainer, why: str, step: int) -> None:
        self._tell(trainer, "stop", why, step)
        raise Diverged(f"diverged at step {step}: {why}")

    def _tell(self, trainer: Trainer, event: str, why: str, step: int, **more: Any) -> None:
        """A line, an entry in the journal, and a mark in TensorBoard."""
        if not trainer.is_global_zero:
            return
        scheduler, *others = schedulers_of(trainer)
        plan, gain = scheduler.plan, scheduler.total_gain
        rate = {} if others else {"lr": plan.lr(plan.groups[0], step, gain)}
        done = policy_named(event).describe_action(more.get("gain"))
        line = f"guard: step {step}: {done}: {why}"
        self.journal.add(step, event, why, **rate, **more)
        self.say(line)
        for logger in trainer.loggers:
            logger.log_metrics({"guard": float(POLICIES.index(event) + 1)}, step=step)
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("guard", line, step)

    def _remember(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copies of weights and of the optimizer's state. The older of two is gone back to: the newer may be ill."""
        self.good.append(copy.deepcopy((pl_module.state_dict(), trainer.optimizers[0].state_dict())))

    def _go_back(self, trainer: Trainer, pl_module: LightningModule) -> None:
        while len(self.good) > 1:
            self.good.pop()
        weights, state = copy.deepcopy(self.good[0])
        pl_module.load_state_dict(weights, strict=pl_module.strict_loading)
        trainer.optimizers[0].load_state_dict(state)


def _place(trainer: Trainer, scheduler: PlanScheduler) -> int:
    """The step that an optimizer is about to take; of several optimizers, the batch."""
    return batch_of(trainer) if scheduler.track else scheduler.applied


def is_sharded(trainer: Trainer) -> bool:
    """Whether each process has only its own part of the gradients."""
    return any(word in type(trainer.strategy).__name__ for word in ("FSDP", "DeepSpeed", "ModelParallel"))


def gradient_norm(optimizer: Optimizer) -> Tensor:
    """The 2-norm of all gradients, a tensor on their device: not finite where any of them is not."""
    return norm_of_tensors(_gradients(optimizer))


def gradient_norm_value(optimizer: Optimizer) -> float:
    """The same as a number, which is waited for."""
    grads = _gradients(optimizer)
    if len(grads) > FEW or any(grad.device.type != "cpu" for grad in grads):
        return norm_of_tensors(grads).item()
    values = [norm.item() for norm in _norms(grads)]
    return math.sqrt(sum(value * value for value in values))


def norm_of_tensors(grads: Sequence[Tensor]) -> Tensor:
    """The 2-norm of tensors taken together, in float32 at least."""
    norms = _norms(grads)
    if not norms:
        return torch.zeros(())
    total: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))
    return total


def _gradients(optimizer: Optimizer) -> list[Tensor]:
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def _norms(grads: Sequence[Tensor]) -> Sequence[Tensor]:
    """The 2-norm of each."""
    if not grads:
        return ()
    dense = [grad._values() if grad.is_sparse else grad for grad in grads]
    local = [grad.to_local() if hasattr(grad, "to_local") else grad for grad in dense]
    # In float32 at least, for the norm of finite half-precision gradients may be above 65504.
    halves = any(grad.dtype in (torch.float16, torch.bfloat16) for grad in local)
    norms: Sequence[Tensor] = torch._foreach_norm(local, 2, dtype=torch.float32 if halves else None)
    return norms


def _sent(values: Tensor) -> tuple[Tensor, torch.cuda.Event]:
    """A copy on its way to the host, and the event that says when it is there."""
    host = torch.empty_like(values, device="cpu", pin_memory=True)
    host.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return host, arrived

"""Prints the progress of a run as lines of text."""

from __future__ import annotations

from lrkit.base.terminal_width import print_line
from lrkit.lightning.imports import Callback, LightningModule, Trainer
from lrkit.lightning.module import schedulers_of, step_of

__all__ = ["LineProgress"]


class LineProgress(Callback):
    """Prints a line per epoch, about twenty lines in a run: progress for pipes and log files."""

    lines = 20

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        every = 1 if epochs is None else -(-epochs // self.lines)
        done = trainer.current_epoch + 1
        if not trainer.is_global_zero or (done % every and done != epochs):
            return
        metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        metrics_text = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        rates = []
        for each in schedulers_of(trainer):
            rate = each.plan.lr(each.plan.main_group, max(each.applied - 1, 0), each.total_gain)
            rates.append(f"{f'lr/{each.track}' if each.track else 'lr'} {rate:.4g}")
        of = f"/{epochs}" if epochs else ""
        print_line(f"epoch {done}{of}  step {step_of(trainer)}  {'  '.join(rates)}  {metrics_text}")

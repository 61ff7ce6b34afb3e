"""The node ``batch``: what it may be used with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.validation import is_whole, one_of
from lrkit.schedules.batch_sizes import BY, KEY, parse_stages

__all__ = ["by", "check"]


def by(config: Mapping[str, Any]) -> str:
    """What makes the batches of ``batch.schedule``; a config of an earlier lrkit lacks the key."""
    return str(config["batch"].get("by") or BY[0])


def check(config: Mapping[str, Any]) -> None:
    """Refuse wrong values, and options that do not go together with ``batch.schedule``.

    Raises:
        ConfigError: naming both keys.
    """
    batch, trainer = config["batch"], config["trainer"]
    if batch.get("by") is not None:
        one_of(*BY).check("batch.by", batch["by"])
    schedule = batch.get("schedule")
    if schedule is None:
        if by(config) != BY[0]:
            raise ConfigError("batch.by", f"needs {KEY}: without it a step has data.batch_size samples", batch["by"])
        return
    parse_stages(schedule)
    accumulate, policy = trainer.get("accumulate_grad_batches") or 1, (config["guard"] or {}).get("policy")
    loads = by(config) == "loader"
    table: tuple[tuple[str, bool, str], ...] = (
        ("batch.effective", batch.get("effective") is not None, "both set the samples in a step"),
        ("trainer.accumulate_grad_batches", accumulate != 1, "both set the samples in a step"),
        ("optimizers", bool(config["optimizers"]), "with several optimizers a step is a batch"),
        ("trainer.strategy", "deepspeed" in str(trainer.get("strategy")).lower(), "DeepSpeed accumulates by itself, by"
         " one number"),
        ("optimizer.lr=auto", config["optimizer"].get("lr") == "auto", "a search measures at one batch size: run lrkit"
         " find with batch.effective"),
        ("batch.by=loader, trainer.val_check_interval", loads and is_whole(trainer.get("val_check_interval"), 1), "it"
         " counts batches, whose size changes: use a share of an epoch"),
        ("batch.by=loader, trainer.reload_dataloaders_every_n_epochs", loads
         and bool(trainer.get("reload_dataloaders_every_n_epochs")), "the loader is told the batch sizes once"),
        ("batch.by=loader, guard", loads and policy in ("skip", "reduce"), "a skipped step would be taken by a batch of"
         " the next size: use batch.by=accumulation"),
        ("batch.by=loader, trainer.precision", loads and str(trainer.get("precision")) in ("16-mixed", "16"), "its"
         " gradient scaler skips steps, which would be taken by a batch of the next size: use batch.by=accumulation"),
    )  # fmt: skip
    for key, said, why in table:
        if said:
            raise ConfigError(key, f"and {KEY} cannot be used together: {why}")

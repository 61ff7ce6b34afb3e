"""Names parameter groups that are added during a run, for example by a callback that unfreezes a backbone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import count, takewhile
from typing import Any

from lrkit.lightning.imports import Callback, LightningModule, Trainer

__all__ = ["GroupNaming", "name_for_group"]


class GroupNaming(Callback):
    """Names each group without a name before its first step: logs and a resume identify groups by name."""

    def __init__(self) -> None:
        self.group_counts: list[int] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.group_counts = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (counts := [len(optimizer.param_groups) for optimizer in trainer.optimizers]) == self.group_counts:
            return
        self.group_counts = counts
        names = {parameter: name for name, parameter in pl_module.named_parameters()}
        for optimizer in trainer.optimizers:
            taken = {group.get("name") for group in optimizer.param_groups}
            for i, group in enumerate(optimizer.param_groups):
                if "name" not in group:
                    group["name"] = name_for_group(
                        [names[p] for p in group["params"] if p in names] or [f"group_{i}"], taken
                    )
                    taken.add(group["name"])


def name_for_group(parameters: Sequence[str], taken: Collection[str | None]) -> str:
    """A name for a group: the module that contains all of its parameters, or the module of the first one.

    >>> name_for_group(["backbone.0.weight", "backbone.1.bias"], ["default"])
    'backbone'
    >>> name_for_group(["stem.bias", "body.bias"], [])
    'stem'
    >>> name_for_group(["backbone.0.weight", "backbone.0.bias"], ["backbone.0"])
    'backbone.0_2'
    """
    parts = zip(*(name.split(".") for name in parameters), strict=False)
    common = [each[0] for each in takewhile(lambda each: len(set(each)) == 1, parts)]
    name = ".".join(common) or parameters[0].partition(".")[0]
    return next(each for each in _name_candidates(name) if each not in taken)


def _name_candidates(name: str) -> Iterable[str]:
    yield name
    yield from (f"{name}_{i}" for i in count(2))

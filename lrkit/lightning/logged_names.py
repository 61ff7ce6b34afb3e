"""The names of what a loop has logged so far, also where Lightning does not show the values yet."""

from __future__ import annotations

from lrkit.lightning.classes import Trainer

__all__ = ["logged_names"]


def logged_names(trainer: Trainer) -> set[str]:
    """The names that the loop which is running has logged, as ``trainer.callback_metrics`` will have them.

    ``callback_metrics`` lacks, in the validation before training, what is logged of several loaders; and in an epoch,
    what is to be averaged over it. Where Lightning's collection of results is not what it was, that alone is asked.
    """
    results = getattr(trainer, "_results", None)
    names = set() if trainer.training else set(trainer.callback_metrics)
    try:
        for metric in (results or {}).values():
            meta = metric.meta
            of_one = meta.add_dataloader_idx and meta.dataloader_idx is not None
            suffix = f"/dataloader_idx_{meta.dataloader_idx}" if of_one else ""
            names |= {meta.name + suffix, meta.forked_name(on_step=False) + suffix}
    except AttributeError:
        return set(trainer.callback_metrics)
    return names

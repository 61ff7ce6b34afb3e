"""The names that a loop has logged so far, including those whose values Lightning does not return yet."""

from __future__ import annotations

from lrkit.lightning.imports import Trainer

__all__ = ["logged_names"]


def logged_names(trainer: Trainer) -> set[str]:
    """The names that the running loop has logged, as ``trainer.callback_metrics`` will have them.

    ``callback_metrics`` lacks the metrics of several loaders in the validation before training, and the metrics of an
    epoch until its end. If Lightning's collection of results has another form than in the known releases, the names of
    ``callback_metrics`` alone are returned.
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

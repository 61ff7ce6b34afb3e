"""A section of the GPU benchmark: a compiled network against the same network without it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from gpu_training import (
    Meter,
    Repeated,
    Schedule,
    by_lrkit,
    free_memory,
    make_batches,
    make_network,
    set_precision,
)

SCHEDULE = ("schedule=cosine", "warmup=linear", "warmup.length=2")


def compiled(add: Any, small: bool) -> None:
    """The transformer, at another rate in each step, in two precisions, with and without compile."""
    how = Schedule(first=2, windows=2, length=2) if small else Schedule(first=30, windows=4, length=60)
    batches = make_batches("transformer", small)
    for precision in ("fp32", "bf16-mixed")[: 1 if small else None]:
        base: Any = None
        for name in ("false", "{backend: eager}" if small else "true"):
            run = partial(_measure, f"compile={name}", precision, batches, how, small, base)
            done = add.attempt(run, precision=precision, compile=name)
            base = base or done.get("steps/s")


class CountingMeter(Meter):
    """A meter that also counts the compiled graphs: those after the first steps are of a second compilation."""

    early = 0

    def before_step(self, step: int) -> None:
        if step == self.schedule.first:
            self.early = count_graphs()
        super().before_step(step)


def count_graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def _measure(word: str, precision: str, batches: Any, how: Schedule, small: bool, base: Any) -> Mapping[str, Any]:
    free_memory()
    set_precision(precision)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    meter = CountingMeter(how)
    by_lrkit(make_network("transformer", small), Repeated(batches, how.steps), precision, meter, *SCHEDULE, word)
    columns = meter.speed()
    later = count_graphs() - meter.early
    return {
        **columns,
        "speed / without": columns["steps/s"] / base if base else 1.0,
        "graphs": meter.early,
        "graphs compiled later": later,
        "none later": later == 0,
        "steps": how.steps,
    }

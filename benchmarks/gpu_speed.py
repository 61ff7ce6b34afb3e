"""Sections of the GPU benchmark: synchronisations, speed with its kernel launches, and the memory of the guards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from unittest import mock

import torch
from gpu_training import (
    DEVICE,
    ON_GPU,
    PRECISIONS,
    Meter,
    Repeated,
    Schedule,
    by_hand,
    by_lightning,
    by_lrkit,
    free_memory,
    make_batches,
    make_network,
    set_precision,
)

GUARDS = ("off", "stop", "skip", "reduce")
#: These guards wait for each loss, and say so.
WAITING = ("skip", "reduce")
#: The ways of a training -> the function of (network, loader, precision, meter) that runs it.
WAYS: dict[str, Callable[..., Any]] = {
    "by hand": by_hand,
    "Lightning": by_lightning,
    "lrkit, guard=off": lambda *given: by_lrkit(*given, "guard=off"),
    "lrkit": by_lrkit,
}


def syncs(add: Any, small: bool) -> None:
    """Synchronisations of 100 steps, two of them with logging, in each precision and with each guard."""
    count = 4 if small else 100
    batches = make_batches("conv", small)
    for precision in ("fp32", "bf16-mixed", "16-mixed"):
        if precision == "16-mixed" and not ON_GPU:
            continue  # Lightning has no such precision on a CPU
        plain: Counter[str] | None = None
        ways = {"Lightning": by_lightning}
        ways |= {f"lrkit, guard={guard}": partial(_by_guarded, guard) for guard in GUARDS[: 2 if small else None]}
        for name, way in ways.items():
            set_precision("fp32")
            meter = Meter(Schedule(first=2 if small else 20, windows=0, watched=count))
            columns = {"precision": precision, "way": name}
            waits = name.rpartition("=")[2] in WAITING
            run = partial(_count_syncs, way, meter, batches, precision, small, plain, waits)
            add.attempt(run, **columns)
            if name == "Lightning":
                plain = meter.syncs


def _by_guarded(guard: str, *given: Any) -> None:
    by_lrkit(*given, f"guard={guard}")


def _count_syncs(
    way: Callable[..., Any], meter: Meter, batches: Any, precision: str, small: bool, plain: Any, waits: bool
) -> Mapping[str, Any]:
    way(make_network("conv", small), Repeated(batches, meter.schedule.steps), precision, meter)
    total = sum(meter.syncs.values())
    added = None if plain is None else total - sum(plain.values())
    zero = None if added is None or waits or not ON_GPU else added <= 0
    lines = "; ".join(f"{count} {line}" for line, count in meter.syncs.most_common(6))
    return {
        "synchronisations": total if ON_GPU else None,
        "added": added if ON_GPU else None,
        "none added": zero,
        "lines": lines,
    }


def speed(add: Any, small: bool) -> None:
    """Two networks in four precisions, each trained in four ways."""
    how = Schedule(first=2, windows=2, length=2, profiled=2) if small else Schedule(profiled=10)
    for network in ("conv", "transformer"):
        batches = make_batches(network, small)
        for precision in PRECISIONS[:: 2 if small else 1]:
            if precision == "16-mixed" and not ON_GPU:
                continue
            taken: dict[str, Any] = {}
            for name, way in WAYS.items():
                free_memory()
                set_precision(precision)
                run = partial(_measure_speed, way, network, batches, precision, how, small, taken)
                done = add.attempt(run, network=network, precision=precision, way=name)
                taken[name] = done.get("steps/s")


def _measure_speed(
    way: Callable[..., Any], network: str, batches: Any, precision: str, how: Schedule, small: bool, taken: Any
) -> Mapping[str, Any]:
    meter = Meter(how)
    way(make_network(network, small), Repeated(batches, how.steps), precision, meter)
    columns = meter.speed()
    for other, label in (("by hand", "time / by hand"), ("Lightning", "time / Lightning")):
        base = taken.get(other)
        columns[label] = base / columns["steps/s"] if base else None
    return {**columns, **meter.columns}


def memory(add: Any, small: bool) -> None:
    """The device's memory at its peak, of plain Lightning and with each guard."""
    batches = make_batches("layers", small)
    how = Schedule(first=12, windows=0)
    ways: dict[str, Callable[..., Any]] = {"Lightning": by_lightning}
    # Two steps between the copies of guard=reduce: both of them exist at the end.
    ways |= {f"lrkit, guard={name}": partial(_by_copying if name == "reduce" else _by_guarded, name) for name in GUARDS}
    ways["lrkit, guard=reduce, copies on the host"] = _by_copying_to_host
    base: Any = None
    for name, way in ways.items():
        done = add.attempt(partial(_measure_memory, way, batches, how, small, base), way=name)
        base = base or done.get("peak MiB")


def _by_copying(guard: str, *given: Any) -> None:
    by_lrkit(*given, f"guard={guard}", "guard.every=2")


def _by_copying_to_host(*given: Any) -> None:
    """As if the copies took more than a tenth of the device's free memory."""
    with mock.patch("lrkit.callbacks.state_copies.SHARE", 0.0):
        _by_copying("reduce", *given)


def _measure_memory(way: Callable[..., Any], batches: Any, how: Schedule, small: bool, base: Any) -> Mapping[str, Any]:
    network = make_network("layers", small).to(DEVICE)
    count = sum(parameter.numel() for parameter in network.parameters())
    free_memory()
    way(network, Repeated(batches, how.steps), "fp32", Meter(how))
    if not ON_GPU:
        return {"parameters": count, "peak MiB": None, "bytes a parameter": None, "of Lightning's": None}
    peak = torch.cuda.max_memory_allocated()
    mib = peak / 2**20
    return {
        "parameters": count,
        "peak MiB": mib,
        "bytes a parameter": peak / count,
        "of Lightning's": mib / base if base else None,
    }

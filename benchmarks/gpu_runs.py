"""Sections of the GPU benchmark that run the command: a killed run, and the search for a learning rate."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from gpu_training import DEVICE, ON_GPU
from torch import Tensor

LRKIT = [sys.executable, "-W", "ignore", "-m", "lrkit"]
PLACE = f"trainer.accelerator={DEVICE.type}"


def kill(add: Any, small: bool) -> None:
    """In each precision: a run without a stop, and one that is killed after its first checkpoints and resumed."""
    precisions = ["32-true", "bf16-mixed", *(["16-mixed"] if ON_GPU else [])][: 1 if small else None]
    models = {"mlp": ["model=mlp", "model.hidden=[256,256]", "model.dropout=0.2"], "cnn2d": ["model=cnn2d"]}
    with tempfile.TemporaryDirectory() as place:
        started = []
        for precision in precisions:
            for name, model in list(models.items())[: 1 if small or precision != "32-true" else None]:
                # Some versions of torch refuse max pooling under deterministic=true.
                exact = f"trainer.deterministic={'true' if name == 'mlp' else 'warn'}"
                length = (
                    ["trainer.max_epochs=10", "trainer.limit_train_batches=4"] if small else ["trainer.max_epochs=80"]
                )
                words = [*model, f"trainer.precision={precision}", exact, "optimizer=adamw", "schedule=cosine",
                         "warmup=linear", PLACE, *length]  # fmt: skip
                folder = Path(place, f"{name}-{precision}")
                folder.mkdir()
                whole, part = (_start(folder / each, words) for each in ("whole", "part"))
                started.append((name, precision, folder, whole, part))
        # All runs begin at the same time, because each start takes seconds; then one after another is looked at.
        killed = {folder: _kill_after_checkpoint(part, folder / "part", small) for _, _, folder, _, part in started}
        again = {folder: _start(folder / "part", [], resumed=True) for _, _, folder, _, _ in started}
        for name, precision, folder, whole, _ in started:
            add.attempt(
                lambda f=folder, w=whole: _compare(f, killed[f], w, again[f], small), model=name, precision=precision
            )


def _start(folder: Path, words: Sequence[str], resumed: bool = False) -> subprocess.Popen[Any]:
    more = [f"resume.path={folder}"] if resumed else [*words, f"hydra.run.dir={folder}"]
    log = folder.with_suffix(".resumed.log" if resumed else ".log").open("w")
    env = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    words = [*LRKIT, "train", *more]
    return subprocess.Popen(words, cwd=folder.parent, env=env, stdout=log, stderr=subprocess.STDOUT)


def _kill_after_checkpoint(process: subprocess.Popen[Any], folder: Path, small: bool) -> str:
    """Kill a run a moment after it has written a checkpoint; return why this was not possible, or an empty string."""
    last, until = folder / "checkpoints" / "last.ckpt", time.monotonic() + (400 if small else 50)
    while not last.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.02 if small else 0.3)
    ended = process.poll() is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
    log = folder.with_suffix(".log").read_text().strip().splitlines() or [""]
    return f"it ended before it could be killed: {log[-1]}" if ended else "" if last.exists() else "no checkpoint"


def _compare(folder: Path, problem: str, whole: Any, again: Any, small: bool) -> Mapping[str, Any]:
    if problem:
        raise RuntimeError(problem)
    for process, log in ((whole, "whole.log"), (again, "part.resumed.log")):
        if process.wait(400 if small else 80):
            raise RuntimeError((folder / log).read_text().strip().splitlines()[-1])
    one, two = (
        torch.load(folder / each / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
        for each in ("whole", "part")
    )
    said = (folder / "part.resumed.log").read_text()
    begun = re.search(r"step (\d+)", said)
    return {
        "steps": one["global_step"],
        "resumed at step": int(begun[1]) if begun else None,
        "same weights": _are_equal(one["state_dict"], two["state_dict"]),
        "same optimizer state": _are_equal(one["optimizer_states"], two["optimizer_states"]),
        "largest difference": max(
            float((a.float() - two["state_dict"][name].float()).abs().max()) for name, a in one["state_dict"].items()
        ),
    }


def _are_equal(one: Any, other: Any) -> bool:
    """Whether two states have the same values, bit for bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_are_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(_are_equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def find(add: Any, small: bool) -> None:
    """The search on the device, and beside it the same search on the CPU."""
    words = ["optimizer=adamw", *(["find.repeats=1", "find.steps=30", "find.confirm=false"] if small else [])]
    with tempfile.TemporaryDirectory() as place:
        begun, started = time.perf_counter(), {}
        for device in dict.fromkeys((DEVICE.type, "cpu")):
            folder = Path(place, device)
            folder.mkdir()
            command = [*LRKIT, "find", f"trainer.accelerator={device}", *words]
            log = (folder / "log").open("w")
            started[device] = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        limit = 400.0 if small else 80.0
        for device, process in started.items():
            add.attempt(lambda d=device, p=process: _read_search(Path(place, d), p, begun, limit), device=device)


def _read_search(folder: Path, process: Any, begun: float, limit: float) -> Mapping[str, Any]:
    code = process.wait(limit)
    seconds = time.perf_counter() - begun
    said = (folder / "log").read_text().strip().splitlines() or [""]
    if code:
        raise RuntimeError(said[-1])
    found = json.loads(next(folder.rglob("find.json")).read_text())
    columns = {name: found[name] for name in ("lr", "low", "high", "confirmed", "steps", "seconds")}
    return {**columns, "seconds of the command": seconds, "last line": said[-1]}

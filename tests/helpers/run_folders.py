"""Folders of runs for the tests of `lrkit compare`, with event files from TensorBoard's own writer. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

Curves = Mapping[str, Mapping[int, float]]


def write_events(
    folder: Path,
    curves: Curves,
    name: str = "1",
    *,
    holds_from: int | None = None,
    tensors: bool = False,
    hparams: Mapping[str, Any] | None = None,
) -> Path:
    """One event file; a second of wall time passes with each step."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    writer = EventFileWriter(str(folder))
    if holds_from is not None:
        log = SessionLog(status=SessionLog.START)
        writer.add_event(Event(wall_time=1000.0 + holds_from, step=holds_from, session_log=log))
    for step in sorted({step for curve in curves.values() for step in curve}):
        for tag, curve in curves.items():
            if step in curve:
                event = Event(wall_time=1000.0 + step, step=step)
                value = event.summary.value.add(tag=tag)
                if tensors:
                    value.tensor.CopyFrom(make_tensor_proto(curve[step], dtype="float32"))
                    value.metadata.plugin_data.plugin_name = "scalars"
                else:
                    value.simple_value = curve[step]
                writer.add_event(event)
    if hparams is not None:
        data = HParamsPluginData()
        for key, value in hparams.items():
            kind = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
            setattr(data.session_start_info.hparams[key], kind, value)
        event = Event(wall_time=1000.0)
        value = event.summary.value.add(tag="_hparams_/session_start_info")
        value.metadata.plugin_data.plugin_name, value.metadata.plugin_data.content = "hparams", data.SerializeToString()
        writer.add_event(event)
    writer.close()
    (written,) = set(folder.iterdir()) - before
    target = folder / f"events.out.tfevents.{name}"
    written.rename(target)
    return target


def write_run(
    folder: Path,
    *,
    schedule: str = "cosine",
    lr: float = 0.1,
    seed: int = 0,
    loss: float | None = 0.5,
    best: float | None = None,
    test: Mapping[str, float] | None = None,
    status: str | None = "done",
    curves: Curves | None = None,
    config: Mapping[str, Any] | None = None,
    choices: bool = True,
) -> Path:
    """Write the files of a run that lrkit reads; ``status=None`` leaves out ``metrics.json``."""
    folder.mkdir(parents=True)
    node = {
        "optimizer": {"_target_": "torch.optim.SGD", "lr": lr, "momentum": 0.9},
        "schedule": {"_target_": f"lrkit.schedules.{schedule.title()}", "length": None,
                     **({"gamma": 0.1} if schedule == "step" else {})},
        "data": {"_target_": "lrkit.data.Digits", "seed": seed, "batch_size": 32},
        "resume": {"path": None, "policy": None},
        "seed": seed, "monitor": "auto", **(config or {}),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(node))
    (folder / "plan.json").write_text("{}")
    if choices:
        (folder / ".hydra").mkdir()
        chosen = {"schedule": schedule, "optimizer": "momentum", "data": "digits", "hydra/launcher": "basic"}
        lines = ["hydra:", "  runtime:", "    choices:", *(f"      {key}: {value}" for key, value in chosen.items())]
        (folder / ".hydra" / "hydra.yaml").write_text("\n".join([*lines, "  verbose: false", ""]))
    if status is not None:
        metrics = {
            "status": status, "monitor": "val/loss", "steps": 100, "epochs": 2, "seconds": 12.5,
            "final": {} if loss is None else {"val/loss": loss, "train/loss": loss},
            "best": {"step": 90, "epoch": 1, "val/loss": loss if best is None else best},
            **({} if test is None else {"test": test}),
        }  # fmt: skip
        (folder / "metrics.json").write_text(json.dumps(metrics))
    if curves is not None:
        write_events(folder, curves)
    return folder

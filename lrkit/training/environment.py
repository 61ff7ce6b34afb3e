"""The environment of a run: ``environment.json`` in its folder, with an entry for each start of the run."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lrkit.base.command_line import current_command
from lrkit.base.errors import RunError
from lrkit.base.files import read_json, write_json
from lrkit.base.git_commit import read_commit
from lrkit.base.launcher_environment import detect_launch
from lrkit.base.run_files import ENVIRONMENT
from lrkit.lightning.imports import PACKAGE, Trainer

__all__ = ["describe_process", "record_start"]

_PACKAGES = ("lrkit", "torch", PACKAGE.replace("_", "-"), "hydra-core", "omegaconf", "numpy")
#: The variables of a cluster that identify a job. No other variable is written: many hold secrets.
_VARIABLES = (
    "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_NODELIST", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT",
)  # fmt: skip


def describe_process() -> dict[str, Any]:
    """Return the facts of this process that are known without a trainer.

    They are taken in the process that reads the command line: a process that Lightning starts does not have it.
    """
    launch = detect_launch()
    variables = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "command": current_command(),
        "folder": os.getcwd(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": _list_versions(),
        "git": read_commit(Path.cwd()),
        "launcher": None if launch is None else {"name": launch.by, "processes": launch.world, "nodes": launch.nodes},
        "cluster": variables,
    }


def record_start(folder: Path, process: Mapping[str, Any], trainer: Trainer, step: int) -> None:
    """Append an entry to ``environment.json``; the entries of earlier starts stay.

    A file that cannot be read is kept as ``environment.damaged.json``; one that cannot be written does not stop a run.

    Args:
        folder: the run's folder.
        process: the facts of ``describe_process``.
        trainer: the trainer of the run.
        step: the optimizer step from which the run goes on; 0 for a new run.
    """
    file = folder / ENVIRONMENT
    before = read_json(file) if file.exists() else {}
    starts = before.get("starts") if isinstance(before, Mapping) else None
    with suppress(RunError, OSError):
        if before != {} and not isinstance(starts, list):
            os.replace(file, file.with_name("environment.damaged.json"))
        entry = {**process, "device": _describe_devices(trainer), "step": step}
        write_json(file, {"starts": [*(starts if isinstance(starts, list) else []), entry]})


@cache
def _list_versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):  # such as lrkit in a folder that is not installed
            found[name] = str(metadata.version(name))
    return found


def _name_processor() -> str:
    """Return the name of the processor, as the system says it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _describe_devices(trainer: Trainer) -> dict[str, Any]:
    """Return the devices of the run: their kind and name, how many there are, and how they compute."""
    device = trainer.strategy.root_device
    facts: dict[str, Any] = {"kind": device.type, "name": _name_processor()}
    if device.type == "cuda":
        facts |= {"name": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
        facts |= {"cudnn": torch.backends.cudnn.version()}  # type: ignore[no-untyped-call]
    return facts | {
        "on_each_node": trainer.num_devices,
        "nodes": trainer.num_nodes,
        "processes": trainer.world_size,
        "threads": torch.get_num_threads(),
        "precision": str(trainer.precision),
        "matmul_precision": torch.get_float32_matmul_precision(),
    }

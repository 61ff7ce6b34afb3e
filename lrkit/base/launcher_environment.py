"""The processes that a launcher started, by their environment: torchrun, srun, mpirun, jsrun, Kubeflow.

A launcher sets the number of processes before lrkit begins, and ``trainer.devices`` x ``trainer.num_nodes`` sets it
too. If the two numbers differed, each process would train alone, or would wait for processes that do not exist. So
lrkit takes a number that the user did not type from the launcher, and refuses a typed number that differs. The rules
that detect a launcher are Lightning's (``lightning.fabric.plugins.environments``), in the same order; this module does
not import Lightning.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.installed_packages import is_installed

__all__ = ["Launch", "detect_launch", "global_rank", "is_srun_task", "local_rank", "with_launched_devices"]


@dataclass(frozen=True)
class Launch:
    """The processes of a launcher.

    Args:
        by: usual name of the launcher.
        says: environment variable with the number of processes, and its value.
        world: number of all processes.
        rank: global rank of this process.
        devices: number of processes on each node; None if unknown.
        nodes: number of nodes; None if unknown.
    """

    by: str
    says: str
    world: int
    rank: int
    devices: int | None = None
    nodes: int | None = None

    def __str__(self) -> str:
        places = "" if (self.nodes or 1) == 1 else f" on {self.nodes} nodes"
        return f"{self.by} started {self.world} process{'es' * (self.world != 1)}{places} ({self.says})"


def detect_launch(environ: Mapping[str, str] | None = None) -> Launch | None:
    """Return the launch of this process; None if no launcher started it.

    >>> detect_launch({"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "3"}).nodes
    2
    >>> detect_launch({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "bash"}) is None
    True
    """
    env = os.environ if environ is None else environ
    for recognise in (_detect_torchrun, _detect_srun, _detect_jsrun, _detect_mpirun, _detect_kubeflow, _detect_other):
        if (launch := recognise(env)) is not None:
            return launch
    return None


def _detect_torchrun(env: Mapping[str, str]) -> Launch | None:
    if "TORCHELASTIC_RUN_ID" not in env:
        return None
    return _build_launch(env, "torchrun", "WORLD_SIZE", "RANK", _read_number(env, "LOCAL_WORLD_SIZE"))


def _detect_srun(env: Mapping[str, str]) -> Launch | None:
    """Detect a task of ``srun``. A shell, or a batch script that calls lrkit without ``srun``, is not a task."""
    if "SLURM_NTASKS" not in env or not is_srun_task(env):
        return None
    counts = (_read_number(env, name) for name in ("SLURM_STEP_NUM_NODES", "SLURM_JOB_NUM_NODES", "SLURM_NNODES"))
    nodes = next((count for count in counts if count), None)
    tasks = re.match(r"\d+", env.get("SLURM_NTASKS_PER_NODE", ""))
    return _build_launch(env, "srun", "SLURM_NTASKS", "SLURM_PROCID", int(tasks[0]) if tasks else None, nodes)


def _detect_jsrun(env: Mapping[str, str]) -> Launch | None:
    if not {"LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE"} <= env.keys():
        return None
    local = _read_number(env, "JSM_NAMESPACE_LOCAL_SIZE")
    return _build_launch(env, "jsrun", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK", local)


def _detect_mpirun(env: Mapping[str, str]) -> Launch | None:
    """Detect a process of Open MPI, or of MPICH and its derivatives, if there are at least two processes."""
    for size, rank, local in (
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
        ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS"),
    ):
        if (_read_number(env, size) or 1) > 1:
            return _build_launch(env, "mpirun", size, rank, _read_number(env, local))
    return None


def _detect_kubeflow(env: Mapping[str, str]) -> Launch | None:
    """Detect a pod of Kubeflow's PyTorchJob, with one process. Lightning does not, so lrkit tells Lightning."""
    if "LOCAL_RANK" in env or not {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= env.keys():
        return None
    if (_read_number(env, "WORLD_SIZE") or 1) == 1:
        return None
    return _build_launch(env, "Kubeflow", "WORLD_SIZE", "RANK", 1)


def _detect_other(env: Mapping[str, str]) -> Launch | None:
    """Detect a launcher that sets torch's variables, such as DeepSpeed's. Lightning's launcher sets no ``RANK``."""
    if not {"RANK", "LOCAL_RANK"} <= env.keys() or (_read_number(env, "WORLD_SIZE") or 1) == 1:
        return None
    return _build_launch(env, "a launcher", "WORLD_SIZE", "RANK", _read_number(env, "LOCAL_WORLD_SIZE"))


def _build_launch(
    env: Mapping[str, str], by: str, size: str, rank: str, devices: int | None, nodes: int | None = None
) -> Launch | None:
    world = _read_number(env, size)
    if not world:
        return None
    if devices is None and nodes and world % nodes == 0:
        devices = world // nodes
    if devices and (nodes is None or devices * nodes != world):
        devices, nodes = (devices, world // devices) if world % devices == 0 else (None, None)
    return Launch(by, f"{size}={world}", world, _read_number(env, rank) or 0, devices, nodes)


def is_srun_task(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether a process is a task of ``srun`` and not a shell in an allocation.

    Lightning takes each process with ``SLURM_NTASKS`` for a task, and waits for tasks that were not started.
    """
    env = os.environ if environ is None else environ
    step = _read_number(env, "SLURM_STEP_ID")
    shell = env.get("SLURM_JOB_NAME") in ("bash", "interactive") or "SLURM_PTY_PORT" in env
    return step is not None and step < 0xFFFFFFF0 and not shell  # larger ids are SLURM's own: a batch script, a shell


def global_rank() -> int:
    """Return the global rank of this process, from its environment; 0 if no launcher set it."""
    if (launch := detect_launch()) is not None:
        return launch.rank
    # Lightning's launcher, or variables set by hand. Here only one process may be 0; the trainer knows the true ranks.
    ranks = [_read_number(os.environ, name) or 0 for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")]
    return ranks[0] or max(ranks[1:])


def local_rank() -> int:
    """Return the local rank of this process on its node."""
    names = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "JSM_NAMESPACE_LOCAL_RANK")
    if (launch := detect_launch()) is not None and launch.by == "Kubeflow":
        return 0
    found = (_read_number(os.environ, name) for name in names)
    return next((rank for rank in found if rank is not None), 0)


def with_launched_devices(trainer: Mapping[str, Any], typed: set[str]) -> dict[str, Any]:
    """Return the node ``trainer`` with the launcher's numbers in place of those that the user did not type.

    Args:
        trainer: the node as composed.
        typed: keys of the node that the user typed, even with their default values.

    Raises:
        ConfigError: a typed number differs from the launcher's, or Lightning cannot join the processes.
    """
    launch = detect_launch()
    if launch is None:
        return dict(trainer)
    if launch.by == "mpirun" and not is_installed("mpi4py"):
        must = f"needs the package mpi4py to join its {launch.world} processes ({launch.says}):"
        raise ConfigError("mpirun", f"{must} pip install mpi4py, or start the processes with torchrun")
    known = launch.devices is not None and launch.nodes is not None
    wanted = {"devices": launch.devices if known else launch.world, "num_nodes": launch.nodes if known else 1}
    said = {"devices": _count_devices(trainer.get("devices")), "num_nodes": trainer.get("num_nodes") or 1}
    if said["devices"] is None or not isinstance(said["num_nodes"], int):
        return dict(trainer)  # not a number of devices: the check of the trainer refuses it
    free = {name for name in wanted if name not in typed or said[name] == _ALL_DEVICES}
    if not known and not free and said["devices"] * said["num_nodes"] == launch.world:
        return dict(trainer)
    for name in ("devices", "num_nodes"):
        if name not in free and said[name] != wanted[name]:
            each = " per node" if name == "devices" and (launch.nodes or 1) > 1 else ""
            raise ConfigError(
                f"trainer.{name}", f"must be {wanted[name]}{each} or not be set: {launch}", trainer.get(name)
            )
    return {**trainer, **{name: wanted[name] for name in free}}


_ALL_DEVICES = -1  # all devices of the machine


def _count_devices(devices: Any) -> int | None:
    """Return the number of devices in ``trainer.devices``; ``_ALL_DEVICES`` for ``auto``, None for an invalid value."""
    if isinstance(devices, str) and "," in devices:
        devices = [name for name in devices.split(",") if name.strip()]
    if isinstance(devices, list):
        return len(devices)
    if devices in ("auto", "-1", -1, None):
        return _ALL_DEVICES
    if isinstance(devices, str) and devices.strip().isdigit():
        devices = int(devices)
    return devices if isinstance(devices, int) and not isinstance(devices, bool) and devices >= 1 else None


def _read_number(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name, "").strip()
    return int(text) if text.isdigit() else None

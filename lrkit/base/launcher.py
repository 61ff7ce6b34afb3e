"""The processes that a launcher has started, as their environment says it: torchrun, srun, mpirun, jsrun, Kubeflow.

A launcher decides how many processes there are before lrkit begins; ``trainer.devices`` x ``trainer.num_nodes`` says it
too. Where the two differ, each process would train alone, or wait for one that nobody starts. So what was not typed
follows the launcher, and what was typed must be the same. The rules of who started whom are Lightning's own
(``lightning.fabric.plugins.environments``), in its order; nothing here imports it.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lrkit.base.errors import ConfigError

__all__ = ["Launch", "detect_launch", "global_rank", "in_srun", "local_rank", "with_launched_devices"]


@dataclass(frozen=True)
class Launch:
    """What a launcher has started.

    Args:
        by: its name, as people know it.
        says: the variable that says how many processes there are, and its value.
        world: processes in all.
        rank: of this one, among all.
        devices: processes on each node; None where that is not known.
        nodes: how many nodes; None where that is not known.
    """

    by: str
    says: str
    world: int
    rank: int
    devices: int | None = None
    nodes: int | None = None

    def __str__(self) -> str:
        places = "" if (self.nodes or 1) == 1 else f" on {self.nodes} nodes"
        return f"{self.world} process{'es' * (self.world != 1)}{places}, by {self.by} ({self.says})"


def detect_launch(environ: Mapping[str, str] | None = None) -> Launch | None:
    """The launch that this process belongs to; None where nobody but the user has started it.

    >>> detect_launch({"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "3"}).nodes
    2
    >>> detect_launch({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "bash"}) is None
    True
    """
    env = os.environ if environ is None else environ
    for recognise in (_torchrun, _srun, _jsrun, _mpirun, _kubeflow, _another):
        if (launch := recognise(env)) is not None:
            return launch
    return None


def _torchrun(env: Mapping[str, str]) -> Launch | None:
    if "TORCHELASTIC_RUN_ID" not in env:
        return None
    return _launch(env, "torchrun", "WORLD_SIZE", "RANK", _number(env, "LOCAL_WORLD_SIZE"))


def _srun(env: Mapping[str, str]) -> Launch | None:
    """A task of ``srun``. A script of ``sbatch`` that calls lrkit without it, or a shell, is no task."""
    if "SLURM_NTASKS" not in env or not in_srun(env):
        return None
    counts = (_number(env, name) for name in ("SLURM_STEP_NUM_NODES", "SLURM_JOB_NUM_NODES", "SLURM_NNODES"))
    nodes = next((count for count in counts if count), None)
    tasks = re.match(r"\d+", env.get("SLURM_NTASKS_PER_NODE", ""))
    return _launch(env, "srun", "SLURM_NTASKS", "SLURM_PROCID", int(tasks[0]) if tasks else None, nodes)


def _jsrun(env: Mapping[str, str]) -> Launch | None:
    if not {"LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE"} <= env.keys():
        return None
    local = _number(env, "JSM_NAMESPACE_LOCAL_SIZE")
    return _launch(env, "jsrun", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK", local)


def _mpirun(env: Mapping[str, str]) -> Launch | None:
    """A process of Open MPI, or of MPICH and its kin; of more than one, for alone it needs nobody."""
    for size, rank, local in (
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
        ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS"),
    ):
        if (_number(env, size) or 1) > 1:
            return _launch(env, "mpirun", size, rank, _number(env, local))
    return None


def _kubeflow(env: Mapping[str, str]) -> Launch | None:
    """A pod of Kubeflow's PyTorchJob, which has one process. Lightning does not look for it, so lrkit says so to it."""
    if "LOCAL_RANK" in env or not {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= env.keys():
        return None
    if (_number(env, "WORLD_SIZE") or 1) == 1:
        return None
    return _launch(env, "Kubeflow", "WORLD_SIZE", "RANK", 1)


def _another(env: Mapping[str, str]) -> Launch | None:
    """Whoever sets torch's own variables, as DeepSpeed's launcher does. Lightning's own sets no ``RANK``."""
    if not {"RANK", "LOCAL_RANK"} <= env.keys() or (_number(env, "WORLD_SIZE") or 1) == 1:
        return None
    return _launch(env, "a launcher", "WORLD_SIZE", "RANK", _number(env, "LOCAL_WORLD_SIZE"))


def _launch(
    env: Mapping[str, str], by: str, size: str, rank: str, devices: int | None, nodes: int | None = None
) -> Launch | None:
    world = _number(env, size)
    if not world:
        return None
    if devices is None and nodes and world % nodes == 0:
        devices = world // nodes
    if devices and (nodes is None or devices * nodes != world):
        devices, nodes = (devices, world // devices) if world % devices == 0 else (None, None)
    return Launch(by, f"{size}={world}", world, _number(env, rank) or 0, devices, nodes)


def in_srun(environ: Mapping[str, str] | None = None) -> bool:
    """Whether a process is a task of ``srun``, and no shell that is one.

    Lightning takes every process for one that can see ``SLURM_NTASKS``, and waits for tasks that nobody has started.
    """
    env = os.environ if environ is None else environ
    step = _number(env, "SLURM_STEP_ID")
    shell = env.get("SLURM_JOB_NAME") in ("bash", "interactive") or "SLURM_PTY_PORT" in env
    return step is not None and step < 0xFFFFFFF0 and not shell  # above are SLURM's own: a batch script, a shell


def global_rank() -> int:
    """Which process of a distributed run this is, as whoever started it says; 0 where nobody does."""
    if (launch := detect_launch()) is not None:
        return launch.rank
    # Lightning's own launcher, or one by hand: that no two are 0 is what matters before the trainer knows the rest.
    ranks = [_number(os.environ, name) or 0 for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")]
    return ranks[0] or max(ranks[1:])


def local_rank() -> int:
    """Which process of its node this is."""
    names = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "JSM_NAMESPACE_LOCAL_RANK")
    if (launch := detect_launch()) is not None and launch.by == "Kubeflow":
        return 0
    found = (_number(os.environ, name) for name in names)
    return next((rank for rank in found if rank is not None), 0)


def with_launched_devices(trainer: Mapping[str, Any], typed: set[str]) -> dict[str, Any]:
    """The node ``trainer`` with the launcher's numbers in place of those that were not typed.

    Args:
        typed: the keys of the node that somebody has said, though it be their default.

    Raises:
        ConfigError: what was typed is not what the launcher has started, or Lightning cannot join its processes.
    """
    launch = detect_launch()
    if launch is None:
        return dict(trainer)
    if launch.by == "mpirun" and importlib.util.find_spec("mpi4py") is None:
        must = f"has started {launch.world} processes ({launch.says}), which Lightning can join by mpi4py alone:"
        raise ConfigError("mpirun", f"{must} pip install mpi4py, or start them by torchrun")
    known = launch.devices is not None and launch.nodes is not None
    wanted = {"devices": launch.devices if known else launch.world, "num_nodes": launch.nodes if known else 1}
    said = {"devices": _count(trainer.get("devices")), "num_nodes": trainer.get("num_nodes") or 1}
    if said["devices"] is None or not isinstance(said["num_nodes"], int):
        return dict(trainer)  # no number of devices: whoever reads it says so
    free = {name for name in wanted if name not in typed or said[name] == _ALL}
    if not known and not free and said["devices"] * said["num_nodes"] == launch.world:
        return dict(trainer)
    for name in ("devices", "num_nodes"):
        if name not in free and said[name] != wanted[name]:
            each = " a node" if name == "devices" and (launch.nodes or 1) > 1 else ""
            must = f"must be {wanted[name]}{each}, or be left out: there {'are' if launch.world > 1 else 'is'} {launch}"
            raise ConfigError(f"trainer.{name}", must, trainer.get(name))
    return {**trainer, **{name: wanted[name] for name in free}}


_ALL = -1  # all devices that there are


def _count(devices: Any) -> int | None:
    """How many devices a value of ``trainer.devices`` asks for; ``_ALL`` for ``auto``, None for what is no number."""
    if isinstance(devices, str) and "," in devices:
        devices = [name for name in devices.split(",") if name.strip()]
    if isinstance(devices, list):
        return len(devices)
    if devices in ("auto", "-1", -1, None):
        return _ALL
    if isinstance(devices, str) and devices.strip().isdigit():
        devices = int(devices)
    return devices if isinstance(devices, int) and not isinstance(devices, bool) and devices >= 1 else None


def _number(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name, "").strip()
    return int(text) if text.isdigit() else None

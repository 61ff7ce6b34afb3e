"""The processes of a sweep: one for each job, so that jobs share no random state, logs, memory or crash.

The import of torch can take longer than a short training. So on Linux a server process imports the packages once, and
each job is a fork of it (``multiprocessing``'s forkserver). That is safe because the server only imports: it computes
nothing with torch, has no CUDA context, and starts no thread of Python. A job's random state, log, signals and threads
are set in the fork. On other systems each job is a fresh process, which imports the packages itself: Windows cannot
fork, and on macOS libraries of the system crash in a fork.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.exit_codes import signal_exit_code
from lrkit.base.files import open_to_append, read_file
from lrkit.base.lightning_package import chosen_package
from lrkit.base.python_safe_path import restore_path, safe_path
from lrkit.base.signals import STOP_SIGNALS, Terminated, handle_signals

__all__ = [
    "Outcome",
    "Slots",
    "available_slots",
    "count_cores",
    "pass_config",
    "receive_config",
    "run_as_lrkit",
    "run_jobs",
]

#: Environment variable with the hash of the config file that lrkit passes to a process that it starts.
_CONFIG_HASH = "LRKIT_HANDED"

#: Whether jobs are forks of a server process.
_FORKS = sys.platform == "linux"

#: The modules of a job that are slow to import.
_PRELOADED = (
    "torch.utils.tensorboard",
    "lrkit.cli.sweep",
    "lrkit.cli.single_run",
    "lrkit.sweep.hydra_job",
    "lrkit.optim.factory",
    "lrkit.data.file_readers",
    "lrkit.optim.scheduler",
    "matplotlib.figure",
)

PATIENCE = 60  #: seconds for a job to finish a step and save


@dataclass(frozen=True)
class Slots:
    """The number of parallel jobs, and the resources of each job.

    Args:
        count: number of parallel jobs.
        threads: number of threads of each job.
        devices: value of ``CUDA_VISIBLE_DEVICES`` for each slot; empty if jobs have no device of their own.
    """

    count: int
    threads: int
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The end of a job's process.

    Args:
        code: exit code; the negative number of the signal that ended it.
        seconds: duration in seconds.
        timed_out: whether the job was stopped because of its time limit.
    """

    code: int
    seconds: float
    timed_out: bool = False


def available_slots(jobs: int | str, per_job: int, accelerator: str) -> Slots:
    """Return the slots of this machine.

    Args:
        jobs: number of parallel jobs; ``auto``: one for each set of ``per_job`` GPUs, else one for each ``per_job``
            cores, four at most.
        per_job: number of devices of a job.
        accelerator: value of ``trainer.accelerator``.

    >>> available_slots(2, 1, "cpu").count
    2
    """
    cores = count_cores()
    gpus = _list_gpus() if accelerator in ("auto", "gpu", "cuda") else []
    if gpus:
        sets = [",".join(gpus[i : i + per_job]) for i in range(0, len(gpus) - per_job + 1, per_job)] or [",".join(gpus)]
        count = len(sets) if jobs == "auto" else int(jobs)
        return Slots(count, max(1, cores // count), tuple(sets[i % len(sets)] for i in range(count)))
    count = max(1, min(4, cores // per_job)) if jobs == "auto" else int(jobs)
    return Slots(count, max(1, cores // count))


def count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _list_gpus() -> list[str]:
    """Return the visible GPUs of this machine, from the environment or the driver: torch would be slow to import."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]


def run_jobs(
    work: Callable[..., int],
    logs: Sequence[Path],
    share: Slots,
    *,
    begin: Callable[[int], tuple[Any, ...]],
    ended: Callable[[int, Outcome], bool],
    timeout: float | None = None,
    preload: Sequence[str] = (),
    ahead: Callable[[int], object] = lambda _: None,
    patience: Callable[[int], float] = lambda _: PATIENCE,
) -> None:
    """Run ``work`` once for each of ``logs``, each in its own process, several in parallel.

    Args:
        work: function at the top level of a module; it returns the exit code.
        logs: file for the output of each job.
        share: number of parallel jobs, with their resources.
        begin: called with a job's index when it begins; returns its arguments.
        ended: called with a job's index and outcome when it ended; returns whether to start more jobs.
        timeout: time limit of a job in seconds. A longer job gets SIGTERM, and is killed if it does not end.
        preload: modules that the server imports too, unless it runs already.
        ahead: called with the index of the next job while all slots are busy, to prepare it.
        patience: called with the index of a job that a signal ends; returns the seconds that it has to save.

    Raises:
        KeyboardInterrupt, Terminated: on Ctrl-C or a signal, after the running jobs have been stopped.
    """
    context: Any = multiprocessing.get_context("forkserver" if _FORKS else "spawn")
    if _FORKS and logs:  # without jobs the server would import torch for nothing
        _start_server(context, preload)
    waiting, free = list(range(len(logs))), list(range(share.count))
    running: dict[Any, _RunningJob] = {}
    try:
        while waiting or running:
            while waiting and free:
                job, slot = waiting.pop(0), free.pop(0)
                device = share.devices[slot] if share.devices else None
                arguments = (work, begin(job), str(logs[job]), share.threads, device)
                process = context.Process(target=_run_job, args=arguments)
                process.start()
                running[process.sentinel] = _RunningJob(process, job, slot, timeout)
            if waiting:
                ahead(waiting[0])
            for sentinel in wait(list(running), _seconds_to_next_timeout(running.values())):
                over = running.pop(sentinel)
                over.process.join()
                free.append(over.slot)
                if not ended(over.job, over.outcome()):
                    waiting.clear()
            for each in running.values():
                each.enforce_timeout()
    except (KeyboardInterrupt, Terminated) as asked:
        with handle_signals(signal.SIG_IGN, *STOP_SIGNALS):  # the jobs are being stopped already
            for each in running.values():
                if isinstance(asked, Terminated):  # on Ctrl-C the terminal has sent SIGINT to the jobs too
                    each.process.terminate()
            for each in running.values():
                each.process.join(timeout=patience(each.job))
                if each.process.is_alive():
                    each.process.kill()
                    each.process.join()
                ended(each.job, each.outcome())
        raise


def _start_server(context: Any, preload: Sequence[str]) -> None:
    """Start the server process, unless it runs; it imports the modules while this process goes on."""
    # No module of lrkit with subclasses of Lightning's, unless the caller knows that no job has a class of the user's:
    # the user's module decides the package.
    context.set_forkserver_preload([chosen_package(), *_PRELOADED, *preload])
    # The server must survive a signal to the process group, to report the exit codes of its jobs.
    with safe_path(), handle_signals(signal.SIG_IGN, signal.SIGTERM, signal.SIGINT):
        forkserver.ensure_running()


class _RunningJob:
    """A running job, with its process and its time limit by the monotonic clock."""

    def __init__(self, process: Any, job: int, slot: int, timeout: float | None) -> None:
        self.process, self.job, self.slot = process, job, slot
        self.since = time.monotonic()
        self.until = math.inf if timeout is None else self.since + timeout
        self.timed_out = False

    def enforce_timeout(self) -> None:
        """Stop the job after its time limit, and kill it ``PATIENCE`` seconds later."""
        if (now := time.monotonic()) < self.until:
            return
        if self.timed_out:
            self.process.kill()
        else:
            self.process.terminate()
        self.timed_out, self.until = True, now + PATIENCE

    def outcome(self) -> Outcome:
        return Outcome(self.process.exitcode or 0, time.monotonic() - self.since, self.timed_out)


def _seconds_to_next_timeout(running: Iterable[_RunningJob]) -> float | None:
    """Return the seconds until the next time limit of a job; None without time limits."""
    first = min((each.until for each in running), default=math.inf)
    return None if first == math.inf else max(0.0, first - time.monotonic())


def _run_job(work: Callable[..., int], arguments: tuple[Any, ...], log: str, threads: int, device: str | None) -> None:
    """Run a job in its process, with its log as output and its own threads and device."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the server ignores both signals, and a fork inherits that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_follow_parent, daemon=True).start()
    restore_path()
    with open_to_append(Path(log)) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # for processes that it starts
    import torch

    torch.set_num_threads(threads)
    with run_as_lrkit():
        sys.exit(work(*arguments))


@contextmanager
def run_as_lrkit() -> Iterator[None]:
    """Within this context, Lightning starts the processes of further devices as ``python -m lrkit``.

    A job runs in a process of multiprocessing, joblib, submitit or Ray, whose main module is not lrkit.
    """
    main = sys.modules["__main__"]
    before, main.__spec__ = main.__spec__, importlib.util.find_spec("lrkit.__main__")
    try:
        yield
    finally:
        main.__spec__ = before


@contextmanager
def pass_config(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a file of the config for the processes started within; a hash in the environment authenticates it."""
    # A closed file: Windows does not let another process open a file that is open for writing.
    with tempfile.TemporaryDirectory() as folder:
        file, text = Path(folder) / "config.json", json.dumps(config, default=str)
        file.write_bytes(text.encode())
        os.environ[_CONFIG_HASH] = _hash_text(text)
        try:
            yield str(file)
        finally:
            os.environ.pop(_CONFIG_HASH, None)


def receive_config(file: Path) -> dict[str, Any]:
    """Return the config in a file, if its hash is the one in the environment: then the parent process wrote it.

    The config may name classes of the user's own, so a file of another origin is refused.

    Raises:
        ConfigError: the file is missing, or the parent process did not write it.
    """
    try:
        text = read_file(file).decode()
    except (OSError, ValueError):
        text = ""
    if os.environ.get(_CONFIG_HASH) != _hash_text(text):
        raise ConfigError("lrkit join", "runs only in processes that lrkit starts itself: use lrkit train", str(file))
    config: dict[str, Any] = json.loads(text)
    return config


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _follow_parent() -> None:
    """End this process when the sweep's process ends, because only that process uses the result."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(signal_exit_code(signal.SIGTERM))

"""Processes for the jobs of a sweep: one each, so that none sees another's random numbers, logs, memory or crash.

Loading torch takes longer than many a training. So on Linux a server process loads everything once, and each job is
forked from it, fresh (``multiprocessing``'s forkserver); elsewhere each job loads what it needs.
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
from lrkit.base.exit_codes import of_signal
from lrkit.base.files import open_to_append, read_file
from lrkit.base.lightning_package import chosen_package
from lrkit.base.safe_path import let_go, safe_path
from lrkit.base.signals import ASKING, Terminated, handle_signals

__all__ = ["Outcome", "Slots", "as_lrkit", "available_slots", "pass_config", "receive_config", "run_jobs"]

#: Where a process that lrkit starts finds what the config that it is handed must be: a hash of the file.
_HANDED = "LRKIT_HANDED"

#: What a job needs that takes long to load.
_PRELOADED = (
    "torch.utils.tensorboard",
    "lrkit.sweep.hydra_job",
    "lrkit.optim.factory",
    "lrkit.data.file_readers",
    "lrkit.optim.scheduler",
    "matplotlib.figure",
)

PATIENCE = 60  #: seconds for a job to finish a step and save


@dataclass(frozen=True)
class Slots:
    """How many jobs run at a time, and what each gets.

    Args:
        count: jobs at a time.
        threads: of each job.
        devices: for each slot the value of ``CUDA_VISIBLE_DEVICES``; empty where jobs have no device of their own.
    """

    count: int
    threads: int
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How the process of a job ended.

    Args:
        code: its exit code; the negative number of the signal that ended it.
        seconds: how long it took.
        timed_out: whether it was asked to end because it took too long.
    """

    code: int
    seconds: float
    timed_out: bool = False


def available_slots(jobs: int | str, per_job: int, accelerator: str) -> Slots:
    """Share out the machine.

    Args:
        jobs: at a time; ``auto``: one for each set of GPUs that a job takes, else one for each core, four at most.
        per_job: devices of a job.
        accelerator: as the trainer is told.

    >>> available_slots(2, 1, "cpu").count
    2
    """
    cores = _cores()
    gpus = _gpus() if accelerator in ("auto", "gpu", "cuda") else []
    if gpus:
        sets = [",".join(gpus[i : i + per_job]) for i in range(0, len(gpus) - per_job + 1, per_job)] or [",".join(gpus)]
        count = len(sets) if jobs == "auto" else int(jobs)
        return Slots(count, max(1, cores // count), tuple(sets[i % len(sets)] for i in range(count)))
    count = max(1, min(4, cores // per_job)) if jobs == "auto" else int(jobs)
    return Slots(count, max(1, cores // count))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """The GPUs of this machine that may be used. Asked of the driver, for torch would be loaded for it."""
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
) -> None:
    """Run ``work`` once for each of ``logs``, several at a time, each in a process of its own.

    Args:
        work: a function at the top of a module; what it returns is the exit code.
        logs: where each job's output goes.
        share: how many at a time.
        begin: asked for a job's arguments when it begins.
        ended: told how a job ended; whether more are to be started.
        timeout: seconds for a job. One that takes longer is asked to end, and killed where it does not.

    On Ctrl-C, or a signal that asks for an end, running jobs are asked to end too, and waited for; then it is raised.
    """
    kind = "forkserver" if sys.platform == "linux" else "spawn"
    context: Any = multiprocessing.get_context(kind)
    if kind == "forkserver":
        # Not what of lrkit is made of Lightning's classes: which Lightning that is, a job's own module says.
        context.set_forkserver_preload([chosen_package(), *_PRELOADED])
        # A signal to all of us must leave the server to tell how jobs ended, also while it still loads.
        with safe_path(), handle_signals(signal.SIG_IGN, signal.SIGTERM, signal.SIGINT):
            forkserver.ensure_running()
    waiting, free = list(range(len(logs))), list(range(share.count))
    running: dict[Any, _Running] = {}
    try:
        while waiting or running:
            while waiting and free:
                job, slot = waiting.pop(0), free.pop(0)
                device = share.devices[slot] if share.devices else None
                arguments = (work, begin(job), str(logs[job]), share.threads, device)
                process = context.Process(target=_job, args=arguments)
                process.start()
                running[process.sentinel] = _Running(process, job, slot, timeout)
            for sentinel in wait(list(running), _until_the_next(running.values())):
                over = running.pop(sentinel)
                over.process.join()
                free.append(over.slot)
                if not ended(over.job, over.outcome()):
                    waiting.clear()
            for each in running.values():
                each.hasten()
    except (KeyboardInterrupt, Terminated) as asked:
        with handle_signals(signal.SIG_IGN, *ASKING):  # it is being done
            for each in running.values():
                if isinstance(asked, Terminated):  # of Ctrl-C a terminal has told them
                    each.process.terminate()
            for each in running.values():
                each.process.join(timeout=PATIENCE)
                if each.process.is_alive():
                    each.process.kill()
                    each.process.join()
                ended(each.job, each.outcome())
        raise


class _Running:
    """A job under way, in its process; by a clock that nobody sets."""

    def __init__(self, process: Any, job: int, slot: int, timeout: float | None) -> None:
        self.process, self.job, self.slot = process, job, slot
        self.since = time.monotonic()
        self.until = math.inf if timeout is None else self.since + timeout
        self.timed_out = False

    def hasten(self) -> None:
        """Past its time ask it to end, and kill it where it has not after a while."""
        if (now := time.monotonic()) < self.until:
            return
        if self.timed_out:
            self.process.kill()
        else:
            self.process.terminate()
        self.timed_out, self.until = True, now + PATIENCE

    def outcome(self) -> Outcome:
        return Outcome(self.process.exitcode or 0, time.monotonic() - self.since, self.timed_out)


def _until_the_next(running: Iterable[_Running]) -> float | None:
    """Seconds until a job has taken too long; None where none can."""
    first = min((each.until for each in running), default=math.inf)
    return None if first == math.inf else max(0.0, first - time.monotonic())


def _job(work: Callable[..., int], arguments: tuple[Any, ...], log: str, threads: int, device: str | None) -> None:
    """In the job's own process: its output goes to its log, its threads and its device are its own."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which the server ignores, as it does
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C
    threading.Thread(target=_follow_parent, daemon=True).start()
    let_go()
    with open_to_append(Path(log)) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # for processes that it starts
    import torch

    torch.set_num_threads(threads)
    with as_lrkit():
        sys.exit(work(*arguments))


@contextmanager
def as_lrkit() -> Iterator[None]:
    """Within it, what Lightning starts for further devices is ``python -m lrkit``, whatever this process began as.

    A job runs in a process of multiprocessing's, joblib's, submitit's or Ray's, whose main module is theirs.
    """
    main = sys.modules["__main__"]
    before, main.__spec__ = main.__spec__, importlib.util.find_spec("lrkit.__main__")
    try:
        yield
    finally:
        main.__spec__ = before


@contextmanager
def pass_config(config: Mapping[str, Any]) -> Iterator[str]:
    """A file of the config for processes that are started within; they, and nobody else, will take it."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        text = json.dumps(config, default=str)
        file.write(text)
        file.flush()
        os.environ[_HANDED] = _hash(text)
        try:
            yield file.name
        finally:
            os.environ.pop(_HANDED, None)


def receive_config(file: Path) -> dict[str, Any]:
    """The config in a file, if it is the one that the lrkit which started this process has written there.

    It may name classes of the user's own, so a file of anybody else's is not taken.
    """
    try:
        text = read_file(file).decode()
    except (OSError, ValueError):
        text = ""
    if os.environ.get(_HANDED) != _hash(text):
        raise ConfigError("lrkit join", "is for processes that lrkit starts itself: use lrkit train", str(file))
    config: dict[str, Any] = json.loads(text)
    return config


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _follow_parent() -> None:
    """End with the process that runs the sweep, however that ends: nobody else would take up the result."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(of_signal(signal.SIGTERM))

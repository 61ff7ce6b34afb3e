"""The rendezvous of a distributed run: all of its processes connect to one address before the training.

torch waits half an hour for missing processes, without a message. Here a message names the number of missing processes,
the address and the end of the wait; after the wait an error names the number again.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from torch.distributed import DistNetworkError, DistStoreError
from torch.distributed.constants import default_pg_timeout

from lrkit.base.errors import RunError
from lrkit.base.launcher_environment import detect_launch, local_rank
from lrkit.base.terminal_width import print_line
from lrkit.lightning.imports import LightningEnvironment, Trainer

__all__ = ["Rendezvous"]

Report = Callable[[str], None]
Lost = Callable[[str], None]


def _print_line(line: str) -> None:
    print_line(f"lrkit: {line}", sys.stderr)


class Rendezvous:
    """Reports on the rendezvous of a trainer's processes.

    Args:
        trainer: the trainer of this process.
        say: prints a line; the first process of each machine calls it.
        lost: is called with a message if a process that Lightning has started has ended; it ends the program. It is
            called in another thread than the main thread, which cannot be interrupted while it waits.
    """

    patience = 5.0  #: seconds before the first line, in which the processes of this machine import torch

    def __init__(self, trainer: Trainer, say: Report = _print_line, lost: Lost | None = None) -> None:
        self.trainer, self.say, self.lost = trainer, say, lost
        self.waits = False

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """A context for a fit: reports while the trainer's strategy waits for all processes, in ``setup_environment``.

        Raises:
            RunError: not all processes have connected in time.
        """
        strategy = self.trainer.strategy
        if self.trainer.world_size == 1:
            yield
            return
        original = strategy.setup_environment

        def setup_environment() -> None:
            self.begun, self.waits, ended_event = time.time(), True, threading.Event()
            if local_rank() == 0:
                threading.Thread(target=self._report_missing, args=(ended_event,), daemon=True).start()
            try:
                original()
            except (DistStoreError, DistNetworkError) as error:
                raise RunError(f"{self.missing()} did not connect to {self._format_address()} in time") from error
            finally:
                self.waits = False
                ended_event.set()

        strategy.setup_environment = setup_environment  # type: ignore[method-assign]
        try:
            yield
        finally:
            del strategy.setup_environment

    def _report_missing(self, ended_event: threading.Event) -> None:
        patience = 1.0 if self.trainer.num_nodes > 1 else self.patience
        if self._wait_for_end(ended_event, patience):
            return
        until = datetime.fromtimestamp(self.begun) + self._get_timeout()
        missing = self.missing()
        self.say(f"waiting for {missing} at {self._format_address()}, until {until:%H:%M:%S}{self._describe_command()}")
        while not self._wait_for_end(ended_event, self.patience):
            if (now := self.missing()) != missing:
                missing = now
                self.say(f"waiting for {missing}")

    def _wait_for_end(self, ended_event: threading.Event, seconds: float) -> bool:
        """Wait for the end of the rendezvous; return whether it has ended. Report a process that ends meanwhile."""
        end = time.monotonic() + seconds
        while not (ended := ended_event.wait(max(0.0, min(0.5, end - time.monotonic())))) and time.monotonic() < end:
            if self.lost is not None and (dead := self._describe_dead_process()):
                self.lost(dead)
        return ended

    def _describe_dead_process(self) -> str:
        """A sentence on a process that Lightning has started and that has ended; empty if all run."""
        started = getattr(self.trainer.strategy.launcher, "procs", ())
        for rank, process in enumerate(started, 1):
            if (code := process.poll()) is not None:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                return f"process {rank} of {len(started) + 1} has ended ({how}) before all had connected"
        return ""

    def missing(self) -> str:
        """The missing processes as text: their number, if it can be known."""
        world, nodes = self.trainer.world_size, self.trainer.num_nodes
        connected = self._count_connected()
        of = f"{world} processes" + (f" (trainer.num_nodes={nodes})" if nodes > 1 else "")
        return f"the other ones of {of}" if connected is None else f"{world - connected} of {of}"

    def _format_address(self) -> str:
        return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"

    def _get_timeout(self) -> timedelta:
        return getattr(self.trainer.strategy, "_timeout", None) or default_pg_timeout

    def _describe_command(self) -> str:
        """The command for the other machines, if the user starts the processes there; else an empty text."""
        environment = getattr(self.trainer.strategy, "cluster_environment", None)
        if (
            self.trainer.num_nodes == 1
            or detect_launch() is not None
            or not isinstance(environment, LightningEnvironment)
        ):
            return ""
        return (
            "; each machine runs this command with its own NODE_RANK=0, 1, ... and the same MASTER_ADDR and MASTER_PORT"
        )

    def _count_connected(self) -> int | None:
        """The number of connected processes: each has one connection to the port. None on a machine without rank 0."""
        port = os.environ.get("MASTER_PORT", "")
        if not (self.trainer.is_global_zero and port.isdigit()) or "TORCHELASTIC_USE_AGENT_STORE" in os.environ:
            return None
        connected = 0
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            try:
                lines = Path(table).read_text(encoding="utf-8").splitlines()[1:]
            except OSError:
                return None
            for local, state in ((line.split()[1], line.split()[3]) for line in lines):
                connected += state == "01" and int(local.rpartition(":")[2], 16) == int(port)  # established
        return max(1, min(connected, self.trainer.world_size - 1))

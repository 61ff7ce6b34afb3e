"""The end of a training that does not finish: its files, and the line with the command that resumes it."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lrkit.base.command_line import resume_command
from lrkit.base.error_report import HOLD, describe_cause, write_traceback
from lrkit.base.errors import ConfigError, RunError
from lrkit.base.exit_codes import FAILED
from lrkit.base.run_files import ERROR_LOG
from lrkit.base.signals import Terminated, signal_name
from lrkit.base.watchdog import watch_training
from lrkit.callbacks.results_writer import ResultsWriter
from lrkit.checkpoint import durable_io
from lrkit.checkpoint.durable_io import DurableIO
from lrkit.lightning.imports import SIGTERMException, Trainer
from lrkit.lightning.module import plan_of, step_of
from lrkit.lightning.preemption import Preemption
from lrkit.lightning.rendezvous import Rendezvous

__all__ = ["ExitReport"]

_WORKER_DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (is killed by signal: \w+|exited unexpectedly)")
#: The messages of torch on a CPU, on CUDA, on MPS.
_NO_MEMORY = re.compile(r"can't allocate memory|CUDA out of memory|MPS backend out of memory|CUDA error: out of memory")


class ExitReport:
    """Records in a run's folder how its training ended, if it did not end as planned.

    Args:
        folder: the run's own.
        results: writes ``metrics.json``.
        preemption: knows whether a signal has come, and whether a checkpoint was saved for it.
    """

    def __init__(self, folder: Path, results: ResultsWriter, preemption: Preemption) -> None:
        self.folder, self.results, self.preemption = folder, results, preemption

    @contextmanager
    def of(self, trainer: Trainer) -> Iterator[None]:
        """A context for a fit: records how it ends.

        Raises:
            Terminated: SIGTERM or SIGUSR1; ``metrics.json`` says ``preempted``.
            KeyboardInterrupt: Ctrl-C; it says ``interrupted``.
            RunError: an error of the machine or of Lightning; the message has the reason.
            Exception: any other as it was raised, with a note where its traceback is kept; it says ``failed``.
        """
        rendezvous = Rendezvous(trainer, lost=lambda why: self._kill_process(trainer, why))
        try:
            with watch_training(_Watched(self, trainer, rendezvous)), rendezvous.reporting():
                yield
        except ConfigError:
            _end_others(trainer)  # they have found the same, and it is said once
            raise
        except Terminated as ended:
            self._end_by_signal(trainer, ended.signum)
        except (SystemExit, KeyboardInterrupt) as ended:  # Lightning turns the second into the first
            if isinstance(ended, SystemExit) and not trainer.interrupted:
                raise
            self._end_by_signal(trainer, signal.SIGTERM if isinstance(ended, SIGTERMException) else signal.SIGINT)
        except Exception as error:
            if self.preemption.signum is not None:  # the signal also reached processes that this one needs
                self._end_by_signal(trainer, self.preemption.signum)
            self._end_by_error(trainer, _death_behind(error))

    def _end_by_signal(self, trainer: Trainer, signum: int) -> None:
        kind = "interrupted" if signum == signal.SIGINT else "preempted"
        said = f"stopped by {signal_name(signum)} at step {_get_progress(trainer)}; {self._how_to_go_on(trainer)}"
        self._save_results(trainer, kind, said)
        if signum == signal.SIGINT:
            raise KeyboardInterrupt(said) from None
        raise Terminated(signum, said) from None

    def _end_by_error(self, trainer: Trainer, error: Exception) -> None:
        if died := _WORKER_DIED.search(str(error)):
            error = RunError(
                f"a process that loads data has died at step {_get_progress(trainer)} ({died[0]}): if memory ran out,"
                f" try fewer of them, or none (data.workers=0 of data=datasets); {self._how_to_go_on(trainer)}"
            )
        if _NO_MEMORY.search(str(error)) or isinstance(error, MemoryError):
            error = RunError(
                f"memory ran out at step {_get_progress(trainer)} ({describe_cause(error)}): try a smaller"
                f" data.batch_size, with batch.effective for the same steps; {self._how_to_go_on(trainer)}"
            )
        why = str(error) if isinstance(error, RunError) else describe_cause(error)
        self._save_results(trainer, "failed", why)
        if not isinstance(error, RunError) and trainer.is_global_zero:
            write_traceback(error, self.folder / ERROR_LOG)
        _end_others(trainer)
        raise error

    def unanswered(self, trainer: Trainer, signum: int, where: str) -> str:
        """The same report as for an answered signal, while the main thread waits without an end."""
        kind = "interrupted" if signum == signal.SIGINT else "preempted"
        _end_others(trainer)
        said = f"stopped by {signal_name(signum)} {where}; {self._how_to_go_on(trainer)}"
        self._save_results(trainer, kind, said)
        for logger in trainer.loggers:
            with suppress(Exception):  # only its unwritten entries can be lost
                logger.finalize("failed")
        return said

    def _kill_process(self, trainer: Trainer, why: str) -> None:
        """End this process: its main thread waits for a dead process."""
        time.sleep(HOLD + 0.5)  # it may yet say why
        _end_others(trainer)
        self._save_results(trainer, "failed", why)
        sys.stdout.flush()
        os.write(2, f"lrkit: {why}\n".encode())
        os._exit(FAILED)

    def _save_results(self, trainer: Trainer, status: str, why: str) -> None:
        with suppress(RunError):  # on a full disk the first error is the useful one
            self.results.save(trainer, status, why)

    def _how_to_go_on(self, trainer: Trainer) -> str:
        last = self.preemption.last
        if last is None:
            return "no checkpoint was asked for"
        if self.preemption.saved:
            kept = "checkpoint saved"
        elif not last.exists():
            return "there was no checkpoint yet"
        else:
            kept = durable_io.describe_last_good(last)
        return f"{kept}; go on with: {resume_command(self.folder)}"


class _Watched:
    """The state of a training that the watchdog reads: see ``lrkit.base.watchdog.Training``."""

    least = 30.0  # seconds

    def __init__(self, ending: ExitReport, trainer: Trainer, rendezvous: Rendezvous) -> None:
        self.ending, self.trainer, self.rendezvous = ending, trainer, rendezvous

    def begun(self) -> bool:
        return self.ending.preemption.listens

    def ends(self) -> bool:
        return self.ending.preemption.ends

    def progress(self) -> object:
        loop = self.trainer.fit_loop.epoch_loop
        counts = (loop.batch_progress.total, loop.val_loop.batch_progress.total)
        return time.monotonic() if _is_saving() else [(count.ready, count.completed) for count in counts]

    def patience(self) -> float:
        return max(self.least, 3 * self.ending.preemption.longest)

    def describe_end(self, signum: int) -> str:
        if self.rendezvous.waits:
            where = f"while it waited for {self.rendezvous.missing()}"
        else:
            where = f"at step {_get_progress(self.trainer)}, which did not end"
        return self.ending.unanswered(self.trainer, signum, where)


def _is_saving() -> bool:
    """Whether the main thread is writing a checkpoint, which may take minutes."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and frame.f_code is not DurableIO.save_checkpoint.__code__:
        frame = frame.f_back
    return frame is not None


def _end_others(trainer: Trainer) -> None:
    """End the processes that Lightning has started for further devices: they would wait for this one."""
    if trainer.is_global_zero and trainer.strategy.launcher is not None:
        # Windows has no SIGKILL; there SIGTERM ends a process at once.
        trainer.strategy.launcher.kill(getattr(signal, "SIGKILL", signal.SIGTERM))


def _death_behind(error: Exception) -> Exception:
    """The death of a data-loading process if it broke the connection; otherwise the error itself.

    torch raises it when it learns of the death, which may be a moment later, at any place in this process.
    """
    if isinstance(error, ConnectionError | EOFError):
        try:
            time.sleep(0.5)
        except RuntimeError as death:
            return death
    return error


def _get_progress(trainer: Trainer) -> str:
    """The step and the number of steps, if the plan exists and has an end."""
    try:
        steps = plan_of(trainer).horizon.steps
    except ConfigError:
        steps = None
    return str(step_of(trainer)) + ("" if steps is None else f" of {steps}")

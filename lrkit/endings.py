"""How a training ends that does not come to its end: what is kept, and the one line that says how to go on."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lrkit import storage
from lrkit.callbacks import Results
from lrkit.command_line import resume_command
from lrkit.errors import ConfigError, RunError
from lrkit.failures import cause, keep_traceback
from lrkit.lightning import SIGTERMException, Trainer
from lrkit.module import scheduler_of
from lrkit.preemption import Preemption
from lrkit.signals import Terminated, name_of

__all__ = ["Ending"]

_WORKER_DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (is killed by signal: \w+|exited unexpectedly)")


class Ending:
    """Takes down in a run's folder how its training ended, where that was not as planned.

    Args:
        folder: the run's own.
        results: writes ``metrics.json``.
        preemption: knows whether a signal has come, and whether a checkpoint was saved for it.
    """

    def __init__(self, folder: Path, results: Results, preemption: Preemption) -> None:
        self.folder, self.results, self.preemption = folder, results, preemption

    @contextmanager
    def of(self, trainer: Trainer) -> Iterator[None]:
        """Around a fit.

        Raises:
            Terminated: SIGTERM or SIGUSR1; ``metrics.json`` says ``preempted``.
            KeyboardInterrupt: Ctrl-C; it says ``interrupted``.
            RunError: what nobody's code is to blame for; it says ``failed``, and why.
            Exception: any other as it was raised, with a note where its traceback is kept; it says ``failed``.
        """
        try:
            yield
        except ConfigError:
            raise
        except Terminated as ended:
            self._signalled(trainer, ended.signum)
        except (SystemExit, KeyboardInterrupt) as ended:  # Lightning turns the second into the first
            if isinstance(ended, SystemExit) and not trainer.interrupted:
                raise
            self._signalled(trainer, signal.SIGTERM if isinstance(ended, SIGTERMException) else signal.SIGINT)
        except Exception as error:
            if self.preemption.signum is not None:  # it went to processes that this one cannot do without, too
                self._signalled(trainer, self.preemption.signum)
            self._failed(trainer, _death_behind(error))

    def _signalled(self, trainer: Trainer, signum: int) -> None:
        kind = "interrupted" if signum == signal.SIGINT else "preempted"
        said = f"stopped by {name_of(signum)} at step {_progress(trainer)}; {self._how_to_go_on(trainer)}"
        self._keep(trainer, kind, said)
        if signum == signal.SIGINT:
            raise KeyboardInterrupt(said) from None
        raise Terminated(signum, said) from None

    def _failed(self, trainer: Trainer, error: Exception) -> None:
        if died := _WORKER_DIED.search(str(error)):
            error = RunError(
                f"a process that loads data has died at step {_progress(trainer)} ({died[0]}): where memory ran out,"
                f" try fewer of them or data.num_workers=0; {self._how_to_go_on(trainer)}"
            )
        why = str(error) if isinstance(error, RunError) else cause(error)
        self._keep(trainer, "failed", why)
        if not isinstance(error, RunError) and trainer.is_global_zero:
            keep_traceback(error, self.folder / "error.log")
        if trainer.is_global_zero and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)  # processes that would wait for this one
        raise error

    def _keep(self, trainer: Trainer, status: str, why: str) -> None:
        with suppress(RunError):  # on a full disk there is more to say than that this file, too, does not fit
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
            kept = storage.last_good(last)
        return f"{kept}; go on with: {resume_command(self.folder)}"


def _death_behind(error: Exception) -> Exception:
    """The death of a process that loads data, where that is why a connection broke; else the error itself.

    torch raises it when it hears of it, which may be a moment later, and then wherever this process is.
    """
    if isinstance(error, ConnectionError | EOFError):
        try:
            time.sleep(0.5)
        except RuntimeError as death:
            return death
    return error


def _progress(trainer: Trainer) -> str:
    """The step, and of how many, where the plan was made and has an end."""
    try:
        steps = scheduler_of(trainer).plan.horizon.steps
    except ConfigError:
        steps = None
    return str(trainer.global_step) + ("" if steps is None else f" of {steps}")

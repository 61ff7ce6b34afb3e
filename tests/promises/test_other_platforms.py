"""What Windows and macOS lack is absent here: modules, signals, functions and flags of Unix, and UTF-8 as the default.

This is not a run on those systems. It shows that no part of lrkit needs what they do not have.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

#: Takes away what Windows does not have, after the packages that need it are loaded: they have ways of their own there.
WITHOUT_UNIX = """
import os, signal, sys, warnings
for name in {loaded}:
    __import__(name)
for name in ("fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"):
    sys.modules[name] = None
for name in ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "pthread_sigmask",
             "setitimer", "sigwait"):
    delattr(signal, name)
for name in ("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "chown", "fork", "forkpty", "getloadavg",
             "getpgid", "getuid", "geteuid", "killpg", "mkfifo",
             "sched_getaffinity", "setsid", "statvfs", "sysconf", "uname"):
    delattr(os, name)
left = [signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGINT, signal.SIGSEGV, signal.SIGTERM]
signal.valid_signals = lambda: set(left)
warnings.filterwarnings("error", category=EncodingWarning, module="lrkit")
from lrkit.cli.main import main
"""


def run_without_unix(code: str, folder: Path, loaded: tuple[str, ...] = ()) -> str:
    """Run code in a Python without what only Unix has, and return its output."""
    lines = WITHOUT_UNIX.format(loaded=("subprocess", "hydra", "multiprocessing.forkserver", *loaded))
    text = lines + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", text], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_plan_is_shown_without_what_only_unix_has(tmp_path: Path) -> None:
    code = """
        assert main(["show", "schedule=cosine", "warmup=linear", "horizon.steps=100"]) == 0
        assert main(["completion", "bash"]) == 0
    """
    shown = run_without_unix(code, tmp_path)
    assert "lr 0.1" in shown


@pytest.mark.slow
def test_every_module_is_imported_and_a_run_is_trained_and_resumed(tmp_path: Path) -> None:
    code = """
        import importlib, pkgutil, lrkit
        from pytorch_lightning.trainer.connectors import signal_connector
        signal_connector._IS_WINDOWS = True
        for module in pkgutil.walk_packages(lrkit.__path__, "lrkit."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        small = ["trainer.max_epochs=1", "trainer.limit_train_batches=4", "trainer.limit_val_batches=1"]
        assert main(["train", *small, "hydra.run.dir=one", "guard=reduce"]) == 0
        assert main(["train", "resume.path=one", "resume.policy=extend", "trainer.max_epochs=2"]) == 0
        assert main(["compare", "one"]) == 0
    """
    run_without_unix(code, tmp_path, ("pytorch_lightning", "torch.utils.tensorboard", "matplotlib.pyplot"))
    assert (tmp_path / "one" / "metrics.json").is_file()

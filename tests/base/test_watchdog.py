"""A signal ends a process whose main thread does not answer. Each case is a separate process, without torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

#: The first lines of each process; ``hang`` waits in C code, where no Python handler is called.
BEGIN = """
import ctypes, os, signal, sys, threading, time
from lrkit.base import signals; from lrkit.base import watchdog
watchdog.GRACE, watchdog.REPEAT_WINDOW = 0.3, 0.3

class Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]

def hang(seconds=30.0):
    libc, mutex, until = ctypes.CDLL(None), ctypes.create_string_buffer(64), time.time() + seconds
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_timedlock(mutex, ctypes.byref(Timespec(int(until), int(until % 1 * 1e9))))

def save(seconds):
    try:
        hang(seconds)
    finally:
        print("saved")

class Training:
    def __init__(self, steps):
        self.until, self.over = time.monotonic() + steps, False
    def begun(self): return True
    def ends(self): return self.over
    def progress(self): return min(time.monotonic(), self.until)
    def patience(self): return 0.3
    def describe_end(self, signum): return f"ended by {signum}"

print("ready", flush=True)
"""
ENTER = "with watchdog.run_watchdog(), signals.raise_on_signals(signal.SIGTERM, signal.SIGINT):\n"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="waits by a mutex")


def ended(body: str, *when: tuple[float, int], env: dict[str, str] | None = None) -> tuple[int, float, str, str]:
    """Return the exit code, the seconds after the first signal, the output and the error output."""
    code = BEGIN + ENTER + "".join(f"    {line}\n" for line in body.splitlines())
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    begun = time.monotonic()
    for after, signum in when:
        time.sleep(max(0.0, begun + after - time.monotonic()))
        process.send_signal(signum)
    try:
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    return process.returncode, time.monotonic() - begun, out, err


@pytest.mark.parametrize(("signum", "code", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")])
def test_a_main_thread_that_does_not_answer_is_not_waited_for(signum: int, code: int, name: str) -> None:
    returned, seconds, _, err = ended("hang()", (0, signum))
    assert (returned, err) == (code, f"lrkit: stopped by {name}\n") and seconds < 5


def test_only_the_first_process_says_so() -> None:
    assert ended("hang()", (0, signal.SIGTERM), env={"LOCAL_RANK": "1"})[::3] == (143, "")


def test_whoever_has_answered_may_take_his_time() -> None:
    body = "try:\n    time.sleep(30)\nfinally:\n    save(0.8)"
    returned, seconds, out, err = ended(body, (0, signal.SIGTERM))
    assert (returned, out, err) == (143, "saved\n", "") and seconds >= 0.8


def test_a_training_has_as_long_as_it_makes_steps() -> None:
    returned, seconds, _, err = ended("with watchdog.watch_training(Training(0.8)): hang()", (0, signal.SIGTERM))
    assert (returned, err) == (143, "lrkit: ended by 15\n") and 0.8 < seconds < 8


def test_a_training_that_is_being_ended_is_let_be() -> None:
    body = "t = Training(0)\nt.over = True\nwith watchdog.watch_training(t): save(0.8)"
    returned, _, out, _ = ended(body, (0, signal.SIGTERM))
    assert (returned, out) == (143, "saved\n")  # Python calls the handler in the end


def test_a_second_signal_does_not_wait_for_a_step() -> None:
    body = "with watchdog.watch_training(Training(30)): hang()"
    returned, seconds, _, _ = ended(body, (0, signal.SIGTERM), (0.5, signal.SIGTERM))
    assert returned == 143 and 0.7 < seconds < 8


def test_the_same_signal_told_twice_is_one() -> None:
    body = "with watchdog.watch_training(Training(2)): save(0.8)"
    assert ended(body, (0, signal.SIGTERM), (0.05, signal.SIGTERM))[2] == "saved\n"


def test_a_farewell_that_hangs_too_is_cut_short() -> None:
    body = "watchdog._DESCRIBE_TIME = 0.3\nTraining.describe_end = lambda self, signum: hang()\n"
    body += "with watchdog.watch_training(Training(0)): hang()"
    returned, seconds, _, err = ended(body, (0, signal.SIGTERM))
    assert (returned, err) == (143, "lrkit: stopped by SIGTERM\n") and seconds < 8


#: A module with a slow import that swallows exceptions, as some imports in torch do.
SWALLOWS = """
import os, sys, tempfile
folder = tempfile.mkdtemp()
sys.path.insert(0, folder)
with open(os.path.join(folder, "swallows.py"), "w") as file:
    file.write("import time\\nuntil = time.monotonic() + {seconds}\\nwhile time.monotonic() < until:\\n"
               "    try: time.sleep(0.05)\\n    except BaseException: print('swallowed')\\n")
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_an_import(signum: int) -> None:
    body = SWALLOWS.format(seconds=0.8) + "watchdog.GRACE = 20\ntry: import swallows\n"
    body += "except BaseException: print('torn')\ntry: time.sleep(10)\nexcept BaseException: print('answered')"
    returned, seconds, out, _ = ended(body, (0, signum))
    assert (returned, out) == (0, "answered\n") and 0.5 < seconds < 8


def test_an_import_that_takes_too_long_is_not_waited_for() -> None:
    returned, seconds, out, err = ended(SWALLOWS.format(seconds=30) + "import swallows", (0, signal.SIGINT))
    assert (returned, out, err) == (130, "", "lrkit: stopped by Ctrl-C\n") and seconds < 8


def test_a_forked_process_does_not_speak_for_its_parent() -> None:
    body = "child = os.fork()\nif child == 0:\n    time.sleep(30)\n"
    body += "time.sleep(0.3)\nos.kill(child, 15)\nos.waitpid(child, 0)\n"
    assert ended(body + "hang(0.8)\nprint('goes on')")[::2] == (0, "goes on\n")


def test_everything_is_given_back() -> None:
    from lrkit.base import signals, watchdog

    before = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)]
    with watchdog.run_watchdog(), signals.raise_on_signals(signal.SIGTERM, signal.SIGINT):
        with watchdog.run_watchdog():  # one is enough
            pass
        assert signal.getsignal(signal.SIGINT) is not before[1]
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)] == before
    fd = signal.set_wakeup_fd(-1)
    assert fd == -1

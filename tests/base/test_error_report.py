"""Reports of failures: one line for each error, on each combination of open and closed streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lrkit.base import error_report
from lrkit.base.errors import ConfigError, SearchError
from lrkit.cli import main
from lrkit.cli.errors_in_one_line import report_errors


def raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as caught:
        return caught


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command line of the shell, in which ``lrkit`` is this one."""
    line = f'lrkit() {{ {sys.executable} -m lrkit "$@"; }}; {command}'
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env={**os.environ, **environment})


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("seed", "must be 1", 2), 2, "seed must be 1. Received: 2"),
        (SearchError("no rate was found"), 1, "no rate was found"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("a\n b\x1b[0m"), 1, "ValueError: a b\\x1b[0m; add --traceback to see the traceback"),
        (ValueError(), 1, "ValueError; add --traceback to see the traceback"),
        (ValueError("x" * 2000), 1, f"ValueError: {'x' * 600}...; add --traceback to see the traceback"),
        (
            RuntimeError("Caught KeyError in worker 0.\nOriginal Traceback (most recent call last):\n  a\nKeyError: 3"),
            1, "RuntimeError: Caught KeyError in worker 0: KeyError: 3; add --traceback to see the traceback",
        ),
    ],
)  # fmt: skip
def test_one_line(error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_report.report_failure(error) == code
    assert capsys.readouterr().err == f"lrkit: {line}\n"


def test_it_names_the_line_of_the_users_own_code() -> None:
    assert error_report.describe_cause(raised(KeyError("a"))).startswith("KeyError: 'a' (test_error_report.py, line ")


def test_a_note_says_where_the_traceback_is_and_stands_in_for_the_hint() -> None:
    error = ValueError("a")
    error.add_note("the traceback is in error.log")
    assert error_report.describe_error(error) == "ValueError: a; the traceback is in error.log"


def test_processes_that_are_started_know_that_tracebacks_are_wanted() -> None:
    assert not error_report.wants_traceback()
    with error_report.show_tracebacks(True):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from lrkit.base import error_report as failures; print(failures.wants_traceback())",
            ],
            capture_output=True,
            text=True,
        )
    assert done.stdout == "True\n" and not error_report.wants_traceback()


def test_whatever_a_command_raises_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object) -> int:
        raise ArithmeticError("no good")

    monkeypatch.setattr(main, "_dispatch", broken)
    assert main.main(["show"]) == 1
    assert capsys.readouterr().err.startswith("lrkit: ArithmeticError: no good (test_error_report.py, line ")
    assert main.main(["show", "--traceback"]) == 1
    assert capsys.readouterr().err.startswith("Traceback (most recent call last):")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full, and folders that can be deleted while they are used")
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("mkdir gone; cd gone; rmdir ../gone; lrkit show", 2, "lrkit: the current folder must exist: it was deleted"),
        ("lrkit show $'seed=\\xff'", 2, "lrkit: seed cannot be read"),
        ("lrkit show > /dev/full", 1, "No space left on device"),
        ("lrkit show >&-", 0, ""),
        ("lrkit show seed=a >&-", 2, "lrkit: seed must be a whole number"),
        ("lrkit show seed=a 2>&- <&-", 2, ""),
    ],
)
def test_streams(command: str, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = shell(command, PYTHONPATH=os.pathsep.join(sys.path))
    assert done.returncode == code and "Traceback" not in done.stderr
    assert said in done.stderr and bool(said) == bool(done.stderr)
    assert done.stdout == ""


def test_a_terminal_that_knows_ascii_alone() -> None:
    done = shell("lrkit show", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "") and "????" in done.stdout


def test_ctrl_c_is_told_as_such_whatever_a_library_made_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    def compose() -> int:
        try:
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as error:
                raise RuntimeError("ConfigCompositionException") from error  # as Hydra does
        except RuntimeError:
            raise ConfigError("config", "cannot be composed") from None

    assert report_errors(compose) == 130
    assert capsys.readouterr().err == "lrkit: interrupted\n"

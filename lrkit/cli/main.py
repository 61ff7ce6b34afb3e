"""The command ``lrkit``. Each part is loaded when it is needed: ``--help`` and ``show`` do not load torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["entry", "main"]


HELP = """\
lrkit: declarative learning rates for PyTorch Lightning

  lrkit train [overrides]    train; -m sweeps: lrkit train -m schedule=step,cosine
  lrkit find  [overrides]    the rate to train with: a range test, confirmed by short runs
  lrkit show  [overrides]    the plan and its curve, without data or torch; format=text|csv|json|png
  lrkit compare PATH...      rank and draw the runs of sweeps; metric=NAME by=best|final out=FOLDER
  lrkit board   PATH         TensorBoard on runs; port=6006

An override is key=value: lrkit train schedule=cosine warmup=linear optimizer.lr=0.05
  lrkit train --help         every group, option and key
  --traceback                with any command: show the Python traceback of an error
  lrkit --version
"""

COMMANDS = ("train", "find", "show", "compare", "board")


def entry() -> None:
    """Run the command line of this process. This is the entry point of the console script.

    This file imports almost nothing, so that Ctrl-C prints one line from the first moment.
    """
    code = 130
    try:
        import signal

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _exit_interrupted)  # an import must not be interrupted
        from lrkit.base import standard_streams

        code = standard_streams.guard_streams(lambda: main(sys.argv[1:]))
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)  # the command has finished; a second Ctrl-C must not raise
    except KeyboardInterrupt:
        _exit_interrupted()
    sys.exit(code)


def _exit_interrupted(*_: object) -> None:
    """End this process, which has not started any work yet."""
    os.write(2, b"lrkit: interrupted\n")
    os._exit(130)


def main(argv: Sequence[str]) -> int:
    """Run one command line and return the exit code. Every error is one line."""
    import signal

    from lrkit.base import command_line, error_report
    from lrkit.cli.errors_in_one_line import report_errors

    if signal.getsignal(signal.SIGINT) is _exit_interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on the command handles it
    words = [word for word in argv if word != "--traceback"]
    with error_report.show_tracebacks(len(words) < len(argv)), command_line.command_line_of(argv):
        return report_errors(lambda: _dispatch(words))


def _dispatch(argv: list[str]) -> int:
    """Answer ``--help`` and ``--version``, or run the command that ``argv`` names."""
    from lrkit.base.errors import ConfigError
    from lrkit.base.exit_codes import OK
    from lrkit.base.launcher_environment import global_rank

    if not argv or argv[0] in ("--help", "-h", "help"):
        if global_rank() == 0:
            print(HELP, end="")
        return OK
    if argv[0] == "--version":
        from importlib import metadata

        if global_rank() == 0:
            print(metadata.version("lrkit"))
        return OK
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the current folder", "must be one that exists: it was deleted") from None
    return OK if global_rank() > 0 and argv[0] not in _TOGETHER else _run_command(argv[0], argv[1:])


#: Commands that every process of a launcher runs; any other command runs only in the first process.
_TOGETHER = ("train", "find", "search", "join")


def _run_command(command: str, rest: list[str]) -> int:
    """Run one command. Imports only the modules of that command."""
    if command == "show":
        from lrkit.cli.show import run_show

        return run_show(rest)
    if command == "train":
        from lrkit.cli.train import run_train

        return run_train(rest)
    if command == "find":
        from lrkit.cli.find import run_find

        return run_find(rest)
    if command == "compare":
        from lrkit.cli.compare import run_compare

        return run_compare(rest)
    if command == "board":
        from lrkit.cli.board import run_board

        return run_board(rest)
    if command == "search":  # a process that a running `lrkit find` started for a device
        from lrkit.cli.arguments import folder_and_file
        from lrkit.cli.find import join_search

        return join_search(*folder_and_file(rest), quiet=bool(rest[2:]))
    if command == "join":  # a process that a running `lrkit train` started for one more device
        from lrkit.cli.arguments import folder_and_file
        from lrkit.cli.train import join_run

        return join_run(*folder_and_file(rest))
    from lrkit.base.errors import ConfigError, did_you_mean

    raise ConfigError("lrkit", f"has no command {command!r}. {did_you_mean(command, COMMANDS)}")

"""The command ``lrkit``. Each part is loaded when it is needed: ``--help`` and ``show`` do not load torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["entry", "main"]


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
    from lrkit.base.errors import ConfigError, did_you_mean
    from lrkit.base.exit_codes import OK
    from lrkit.base.launcher_environment import global_rank
    from lrkit.cli.commands import COMMANDS

    name, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if name in ("--help", "-h") or argv == ["help"]:
        from lrkit.cli.help import print_overview

        if global_rank() == 0:
            print_overview()
        return OK
    if name in ("--version", "-V"):
        from importlib import metadata

        if global_rank() == 0:
            print(metadata.version("lrkit"))
        return OK
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the current folder", "must exist: it was deleted") from None
    if name in _INTERNAL:
        return _run_internal(name, rest)
    if name not in COMMANDS:
        if global_rank() > 0:
            return OK
        raise ConfigError("lrkit", f"has no command {name!r}. {did_you_mean(name, COMMANDS)}")
    if "--help" in rest or "-h" in rest:
        from lrkit.cli.help import print_command_help

        return print_command_help(name, rest)
    return OK if global_rank() > 0 and not COMMANDS[name].together else COMMANDS[name].load()(rest)


#: Commands that lrkit, or a shell, calls itself.
_INTERNAL = ("search", "join", "complete")


def _run_internal(name: str, rest: list[str]) -> int:
    """Run a command that lrkit or a shell calls, not the user."""
    if name == "complete":  # a shell that completes a command line
        from lrkit.cli.completion import print_candidates

        return print_candidates(rest)
    from lrkit.cli.arguments import parse_process_arguments

    if name == "search":  # a process that a running `lrkit find` started for a device
        from lrkit.cli.find import join_search

        return join_search(*parse_process_arguments(rest), quiet=bool(rest[2:]))
    from lrkit.cli.train import join_run  # a process that a running `lrkit train` started for one more device

    return join_run(*parse_process_arguments(rest))

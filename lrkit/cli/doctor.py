"""`lrkit doctor`: what is installed, what a run would use here, and what is broken; one line a finding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.base.exit_codes import FAILED, OK
from lrkit.base.plural import plural
from lrkit.base.terminal_width import find_width, wrap_text
from lrkit.cli.arguments import refuse_flags, split_arguments
from lrkit.cli.environment_checks import CHECKS, Finding

__all__ = ["run_doctor"]

_MARK = 9  # columns of the mark


def run_doctor(words: list[str]) -> int:
    """Print the findings as they are made. Exit code 0, or 1 if something is broken.

    Args:
        words: overrides, such as ``trainer.precision=bf16-mixed``: what a run with them would use.
    """
    flags, overrides, config_dir = split_arguments(words)
    refuse_flags("doctor", flags)
    broken = 0
    config: Mapping[str, Any] = {}
    try:
        from lrkit.config.compose import compose

        config = compose(overrides, config_dir)
    except ConfigError:
        raise
    except Exception as error:  # Hydra, OmegaConf or YAML is broken
        broken += _print_finding(Finding("problem", f"a config cannot be composed: {_describe(error)}"))
    for check in CHECKS:
        try:
            for finding in check(config):
                broken += _print_finding(finding)
        except (Exception, SystemExit) as error:
            about = check.__name__.removeprefix("check_").replace("_", " ")
            broken += _print_finding(Finding("problem", f"{about}: {_describe(error)}"))
    print()
    print(plural(broken, "problem") if broken else "no problem")
    return FAILED if broken else OK


def _print_finding(finding: Finding) -> bool:
    """Print a finding, and return whether it is a problem."""
    from lrkit.base.escaping import escape_terminal

    line = f"{finding.mark:<{_MARK}}{escape_terminal(finding.text)}"
    print(wrap_text(line, find_width(), _MARK), flush=True)
    return finding.mark == "problem"


def _describe(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return said if isinstance(error, ConfigError) else f"{type(error).__name__}: {said}"[:300]

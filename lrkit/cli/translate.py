"""`lrkit translate`: the base rate of one schedule and length, carried to another."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lrkit.base.command_line import quote_path
from lrkit.base.errors import ConfigError
from lrkit.base.exit_codes import OK
from lrkit.base.terminal_width import print_line
from lrkit.cli.arguments import refuse_flags, split_arguments, split_format

if TYPE_CHECKING:
    from lrkit.planning.plan import Plan

__all__ = ["run_translate"]

_FROM = "from."


def run_translate(argv: list[str]) -> int:
    """Translate the rate of a run, or a number; the last printed line is the override to type."""
    from lrkit.planning.rate_translation import translate

    flags, words, config_dir = split_arguments(argv)
    refuse_flags("translate", flags)
    form, words = split_format("translate", words)
    known, *overrides = words or [""]
    source, target = _read_plans(known, overrides, config_dir)
    found = translate(source, target)
    if form == "json":
        print(json.dumps({**dataclasses.asdict(found), "factor": found.factor}, indent=2))
        return OK
    for line in str(found).splitlines():
        print_line(line)
    print_line("note: the interval was measured on small tasks; see docs/translate.md")
    print(f"optimizer.lr={found.lr:g}")
    return OK


def _read_plans(known: str, overrides: Sequence[str], config_dir: str | None) -> tuple[Plan, Plan]:
    """Return the plan whose rate is known, and that of the new run."""
    from lrkit.config import compose as configs
    from lrkit.config.translated_rate import load_plan

    about_known = [word.removeprefix(_FROM) for word in overrides if word.startswith(_FROM)]
    changes = [word for word in overrides if not word.startswith(_FROM)]
    for word in (*about_known, *changes):
        if word.lstrip("+~").startswith("optimizer.lr="):
            raise ConfigError("optimizer.lr", "must not be set: the first word says the known rate", word)
    if _is_number(known):
        if not about_known:
            must = "must say what the known rate was found with, such as from.schedule=constant"
            raise ConfigError("from", must)
        rate = f"optimizer.lr={known}"
        kept = [word for word in changes if not any(_replaces(said, word) for said in about_known)]
        source = configs.plan(configs.compose([*kept, *about_known, rate], config_dir))
        return source, configs.plan(configs.compose([*changes, rate], config_dir))
    if "=" in known and not Path(known).exists():
        raise ConfigError("lrkit translate", "needs a rate or the folder of a run before the overrides", known)
    if about_known:
        raise ConfigError(f"{_FROM}*", "must not be set: the run says what its rate was found with", about_known[0])
    source = load_plan(known, "lrkit translate")
    return source, configs.plan(configs.compose([f"resume.path={quote_path(known)}", *changes], config_dir))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _replaces(said: str, word: str) -> bool:
    """Return whether an override of the known rate stands in place of an override of the new run.

    >>> _replaces("schedule=constant", "schedule.end=0.1"), _replaces("horizon.steps=9", "horizon.batch_size=8")
    (True, False)
    """
    key, other = (each.lstrip("+~").partition("=")[0] for each in (said, word))
    return other == key or other.startswith(f"{key}.")

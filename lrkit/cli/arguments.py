"""The words of the command line: flags, overrides, and the folder of the user's configs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lrkit.base.command_line import CONFIG_FILE, SWEEP_KEYS, quote_path
from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.run_files import CONFIG_JSON, CONFIG_YAML
from lrkit.cli.commands import COMMANDS, FLAG_VALUES
from lrkit.config.trusted_targets import check_trust

__all__ = [
    "asks_for_information",
    "check_format",
    "check_hydra_overrides",
    "parse_process_arguments",
    "refuse_flags",
    "refuse_sweep_keys",
    "split_arguments",
    "split_format",
    "suggest_override",
]


def check_hydra_overrides(overrides: Sequence[str]) -> None:
    """Refuse overrides of Hydra that would bypass lrkit's checks."""
    for override in overrides:
        if override.lstrip("+~").startswith("hydra.mode"):
            raise ConfigError("hydra.mode", "must not be set: -m makes a sweep", override)


def refuse_sweep_keys(overrides: Sequence[str], what: str) -> None:
    """Refuse keys that only a sweep reads, other than with their defaults; ``what``: one run, or a search."""
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key in SWEEP_KEYS and value.strip("'\"") != SWEEP_KEYS[key]:
            must = f"is for a sweep, lrkit train -m, and has no effect on {what}"
            raise ConfigError(key, must, value)


def parse_process_arguments(rest: Sequence[str]) -> tuple[Path, Path]:
    """Return the folder and the config file in the command line of a process that lrkit starts; refuse another one."""
    folder, file, *_ = [*rest, "", ""]
    return Path(folder), Path(file)


def split_arguments(argv: Sequence[str]) -> tuple[list[str], list[str], str | None]:
    """Split words into flags, overrides (``--config`` and ``--trust`` become one) and the folder of own configs."""
    flags: list[str] = []
    overrides: list[str] = []
    trust: list[str] = []
    config_dir: str | None = None
    config: str | None = None
    words = iter(argv)
    for word in words:
        name, has_value, value = word.partition("=")
        if not word.startswith("-"):
            overrides.append(word)
        elif name in ("--config-dir", "-cd"):
            config_dir = value if has_value else next(words, None)
            if config_dir is None or not os.path.isdir(config_dir):
                raise ConfigError("--config-dir", "must be an existing folder", config_dir)
        elif name == "--config":
            if config is not None:
                raise ConfigError("--config", "is given twice")
            config = _check_config_file(value if has_value else next(words, None))
        elif name == "--trust":
            trust.append(value if has_value else next(words, ""))
        elif name in ("--cfg", "-c", "--info", "-i", "--package", "-p", "--config-name", "-cn") and not has_value:
            flags.append(f"{name}={next(words, '')}")
        else:
            flags.append(word)
    if trust:
        overrides.append(f"trust=[{','.join(check_trust(trust, '--trust'))}]")
    given = [] if config is None else [f"{CONFIG_FILE}={quote_path(config)}"]
    return flags, [*given, *overrides], config_dir


def _check_config_file(path: str | None) -> str:
    """Return the path of ``--config``, if a file is there."""
    if path and os.path.isfile(path):
        return path
    inside = [os.path.join(path, name) for name in (CONFIG_YAML, CONFIG_JSON)] if path else []
    advice = next((f": {file} is one" for file in inside if os.path.isfile(file)), ": outputs/runs/RUN/config.yaml")
    raise ConfigError("--config", f"must be a file with the config of a run{advice}", path)


def asks_for_information(flags: Sequence[str]) -> bool:
    """Return whether the flags of ``lrkit train`` only ask for information. Check all, because Hydra would exit."""
    given: dict[str, str] = {}
    for flag in flags:
        written, equals, value = flag.partition("=")
        name = _SHORT.get(written, written)
        if name == "--experimental-rerun":
            raise ConfigError(name, "is refused: it would execute code of the file")
        if name in ("-sc", "--shell-completion"):  # Hydra's script calls the command without its subcommand
            raise ConfigError(written, "is refused: lrkit completion bash prints the script, also for zsh and fish")
        if name not in _FLAGS:
            hint = suggest_override(flag) or f". {did_you_mean(written, _FLAGS)}"
            raise ConfigError(written, f"is not a flag of lrkit train{hint}")
        if name in given:
            raise ConfigError(written, "is given twice")
        choices = _INFORMING.get(name, ("", ()))[1]
        if choices and value not in choices:
            raise ConfigError(written, f"must be followed by {', '.join(choices[:-1])} or {choices[-1]}", value)
        if name == "--package" and not value:
            raise ConfigError(written, "must be followed by a group, such as optimizer")
        if equals and name != "--package" and not choices:
            raise ConfigError(written, "takes no value", value)
        given[name] = written
    doing = [written for name, written in given.items() if name in (*_INFORMING, "--multirun", "--run")]
    if len(doing) > 1:
        raise ConfigError(doing[0], f"and {doing[1]} cannot be used together")
    for name in ("--resolve", "--package"):
        if name in given and "--cfg" not in given:
            raise ConfigError(given[name], "has an effect only with --cfg: lrkit train --cfg job")
    return bool(given.keys() & _INFORMING.keys())


def refuse_flags(command: str, flags: Sequence[str]) -> None:
    """Refuse flags that a command does not take, with the override that the user may mean, or the command's flags.

    >>> refuse_flags("help", ["--lr=0.1"])
    Traceback (most recent call last):
    lrkit.base.errors.ConfigError: --lr=0.1 is not a flag of lrkit help: write optimizer.lr=0.1.
    """
    for flag in flags:
        *others, last = COMMANDS[command].flag_names
        takes = f": it takes {', '.join(others)}{' and ' if others else ''}{last}"
        raise ConfigError(flag, f"is not a flag of lrkit {command}{suggest_override(flag) or takes}")


def split_format(command: str, words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the value of ``format=``, or ``text``, and the other words.

    >>> split_format("show", ["seed=1", "format=csv"])
    ('csv', ['seed=1'])
    """
    given = [word.partition("=")[2] for word in words if word.startswith("format=")]
    return check_format(command, given[-1] if given else "text"), [w for w in words if not w.startswith("format=")]


def check_format(command: str, form: str) -> str:
    """Return a format; refuse one that the command does not write."""
    formats = next(key.values for key in COMMANDS[command].keys if key.name == "format")
    if form not in formats:
        raise ConfigError("format", f"is not a format. {did_you_mean(form, formats)}", form)
    return form


def suggest_override(flag: str) -> str:
    """A hint for a flag that is a key of a run, as in ``--lr 0.1``; empty for any other one.

    >>> suggest_override("--lr"), suggest_override("--epochs=3"), suggest_override("--foo")
    (': write optimizer.lr=...', ': write trainer.max_epochs=3', '')
    """
    from lrkit.config.unknown_keys import key_of_name

    name, _, value = flag.lstrip("-").partition("=")
    key = key_of_name(name) if flag.startswith("--") else ""
    return f": write {key}" if "=" in key else f": write {key}={value or '...'}" if key else ""


# Hydra's flags that print something and run nothing: the short form of each, and the form with its argument.
_INFORMING: dict[str, tuple[str, tuple[str, ...]]] = {
    "--help": ("-h", ()),
    "--hydra-help": ("", ()),
    "--version": ("", ()),
    "--cfg": ("-c", FLAG_VALUES["--cfg"]),
    "--info": ("-i", FLAG_VALUES["--info"]),
}

_SHORT = {short: name for name, (short, _) in _INFORMING.items() if short} | {
    "-m": "--multirun", "-r": "--run", "-p": "--package", "-cd": "--config-dir",
}  # fmt: skip

_FLAGS = {*_INFORMING, *_SHORT, *_SHORT.values(), "--resolve", "--trust", "--config"}

"""The command line of this process, as the user typed it, for messages that say which command resumes the run."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["CONFIG_FILE", "SWEEP_KEYS", "command_line_of", "current_command", "quote_path", "resume_command"]

_current_words: list[str] = []

#: The override that ``--config`` becomes: the whole config in a file.
CONFIG_FILE = "config_file"
#: The keys that only a sweep reads, with their defaults.
SWEEP_KEYS = {"jobs": "auto", "on_error": "continue", "timeout": "null", "stack": "off"}
#: Overrides that do not belong to the next run: a resumed run has its own config, and is no sweep.
_OF_ONE_RUN = ("resume.", "hydra.", f"{CONFIG_FILE}=", *(f"{key}=" for key in SWEEP_KEYS))
#: Flags of a sweep, flags with a value in the next word, and flags with a value that belong to one run.
_MANY, _TAKES_VALUE, _FLAG = ("-m", "--multirun"), ("--config-dir", "-cd", "--trust"), "--config"
#: A name that says that its value is secret, and the value: ``api_key=123``, ``{token: 123}``, ``--password``.
_SECRET_NAME = r"(?:^|(?<=[\W_]))(?:api[_-]?key|token|password|passwd|secret|credentials?)"
_SECRET = re.compile(rf"({_SECRET_NAME}\s*[:=]\s*)(?:'[^']*'|[^\s,}}\]]+)", re.IGNORECASE)
_SECRET_FLAG = re.compile(rf"-.*{_SECRET_NAME}", re.IGNORECASE)


@contextmanager
def command_line_of(words: Sequence[str]) -> Iterator[None]:
    """Within this context, ``words`` are the user's words after ``lrkit``."""
    global _current_words
    before, _current_words = _current_words, list(words)
    try:
        yield
    finally:
        _current_words = before


def resume_command(folder: Path, changed_values: Mapping[str, str] | None = None) -> str:
    """Return the command that resumes the run in ``folder``: the user's command with its flags and ``resume.path``.

    It has no ``--config``: a resumed run keeps its own config.

    ``changed_values``: keys with another value than in the user's command.

    >>> with command_line_of(["train", "--config-dir", "my configs", "warmup=linear", "resume.path=old"]):
    ...     resume_command(Path("outputs/runs/a"))
    "lrkit train --config-dir 'my configs' warmup=linear resume.path=outputs/runs/a"

    A job of a sweep is resumed alone, without the keys that only a sweep reads.

    >>> with command_line_of(["train", "jobs=2", "stack=auto", "seed=1"]):
    ...     resume_command(Path("sweep/0"))
    'lrkit train seed=1 resume.path=sweep/0'
    """
    words = _current_words[1:] if _current_words[:1] == ["train"] else []
    # These policies changed the plan. The changed plan is in the new checkpoints, but not in the words.
    changed = {"extend", "cooldown", "restore"} & {w.partition("=")[2] for w in words if w.startswith("resume.policy=")}
    here = Path.cwd()
    near = folder.relative_to(here) if folder.is_relative_to(here) else folder
    policy = ["resume.policy=restore"] if changed else []
    values = changed_values or {}
    words = [word for word in words if word.lstrip("+").partition("=")[0] not in values]
    more = [f"resume.path={quote_path(str(near))}", *policy, *(f"{key}={value}" for key, value in values.items())]
    return shlex.join(["lrkit", "train", *_keep_words(words), *more])


def current_command() -> str:
    """Return the command line of this process, quoted for a shell; a value whose key says that it is secret is hidden.

    A program that calls lrkit has the command line of the program.

    >>> with command_line_of(["train", "config_file='a b.yaml'", "logger.wandb.api_key=123", "optimizer.lr=0.1"]):
    ...     current_command()
    "lrkit train --config 'a b.yaml' 'logger.wandb.api_key=***' optimizer.lr=0.1"
    """
    words: list[str] = ["lrkit"] if _current_words else []
    for word in _current_words or sys.orig_argv:
        key, _, value = word.partition("=")
        words += [_FLAG, value.strip("'")] if key == CONFIG_FILE else [word]
    pairs = zip(["", *words], words, strict=False)
    return shlex.join(
        "***" if _SECRET_FLAG.fullmatch(before) else _SECRET.sub(r"\1***", word) for before, word in pairs
    )


def _keep_words(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    takes_value = leaves_out = False
    for word in words:
        flag = word.startswith("-") and word not in _MANY
        if leaves_out or word == _FLAG or word.startswith(f"{_FLAG}="):
            leaves_out = word == _FLAG
            continue
        if takes_value or flag or not (word in _MANY or word.lstrip("+~").startswith(_OF_ONE_RUN)):
            kept.append(word)
        takes_value = not takes_value and word in _TAKES_VALUE
    return kept


def quote_path(path: str) -> str:
    """Return a path, quoted for Hydra's override grammar if needed.

    >>> quote_path("outputs/runs/a"), quote_path("a=1, b")
    ('outputs/runs/a', "'a=1, b'")
    """
    if all(c.isalnum() or c in "/-_.:+%\\" or c == " " for c in path) and path == path.strip():
        return path
    return "'" + path.replace("\\", "\\\\").replace("'", "\\'") + "'"

"""The command line of this process, as the user typed it, for messages that say which command resumes the run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["command_line_of", "resume_command"]

_current_words: list[str] = []

#: Overrides that belong to one run and not to the next.
_OF_ONE_RUN = ("resume.", "hydra.")
#: Flags of a sweep, and flags with a value in the next word.
_MANY, _TAKES_VALUE = ("-m", "--multirun"), ("--config-dir", "-cd", "--trust")


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

    ``changed_values``: keys with another value than in the user's command.

    >>> with command_line_of(["train", "--config-dir", "my configs", "warmup=linear", "resume.path=old"]):
    ...     resume_command(Path("outputs/runs/a"))
    "lrkit train --config-dir 'my configs' warmup=linear resume.path=outputs/runs/a"
    """
    words = _current_words[1:] if _current_words[:1] == ["train"] else []
    # These policies changed the plan. The changed plan is in the new checkpoints, but not in the words.
    changed = {"extend", "cooldown", "restore"} & {w.partition("=")[2] for w in words if w.startswith("resume.policy=")}
    here = Path.cwd()
    near = folder.relative_to(here) if folder.is_relative_to(here) else folder
    policy = ["resume.policy=restore"] if changed else []
    values = changed_values or {}
    words = [word for word in words if word.lstrip("+").partition("=")[0] not in values]
    more = [f"resume.path={_quote_path(str(near))}", *policy, *(f"{key}={value}" for key, value in values.items())]
    return shlex.join(["lrkit", "train", *_keep_words(words), *more])


def _keep_words(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    takes_value = False
    for word in words:
        flag = word.startswith("-") and word not in _MANY
        if takes_value or flag or not (word in _MANY or word.lstrip("+~").startswith(_OF_ONE_RUN)):
            kept.append(word)
        takes_value = not takes_value and word in _TAKES_VALUE
    return kept


def _quote_path(path: str) -> str:
    """Return a path, quoted for Hydra's override grammar if needed."""
    if all(c.isalnum() or c in "/-_.:+%\\" or c == " " for c in path) and path == path.strip():
        return path
    return "'" + path.replace("\\", "\\\\").replace("'", "\\'") + "'"

"""The command line that this process runs: as it was typed, for whoever tells the user what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["command_line_of", "resume_command"]

_given: list[str] = []

#: Overrides that belong to one run and not to the next.
_OF_ONE_RUN = ("resume.", "hydra.")
#: Flags that make several runs of one, or whose value follows.
_MANY, _TAKES_VALUE = ("-m", "--multirun"), ("--config-dir", "-cd", "--trust")


@contextmanager
def command_line_of(words: Sequence[str]) -> Iterator[None]:
    """Within it, ``words`` are what was typed behind ``lrkit``."""
    global _given
    before, _given = _given, list(words)
    try:
        yield
    finally:
        _given = before


def resume_command(folder: Path) -> str:
    """What to type to go on with the run in ``folder``: the whole command with all of its flags, and where it was.

    >>> with command_line_of(["train", "--config-dir", "my configs", "warmup=linear", "resume.path=old"]):
    ...     resume_command(Path("outputs/runs/a"))
    "lrkit train --config-dir 'my configs' warmup=linear resume.path=outputs/runs/a"
    """
    words = _given[1:] if _given[:1] == ["train"] else []
    # A plan that was bent to fit a checkpoint is in the new checkpoints, and not in the words.
    bent = {"extend", "cooldown", "restore"} & {w.partition("=")[2] for w in words if w.startswith("resume.policy=")}
    here = Path.cwd()
    near = folder.relative_to(here) if folder.is_relative_to(here) else folder
    policy = ["resume.policy=restore"] if bent else []
    return shlex.join(["lrkit", "train", *_kept(words), f"resume.path={_quoted(str(near))}", *policy])


def _kept(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    takes_value = False
    for word in words:
        flag = word.startswith("-") and word not in _MANY
        if takes_value or flag or not (word in _MANY or word.lstrip("+~").startswith(_OF_ONE_RUN)):
            kept.append(word)
        takes_value = not takes_value and word in _TAKES_VALUE
    return kept


def _quoted(path: str) -> str:
    """The path as Hydra's grammar takes it."""
    if all(c.isalnum() or c in "/-_.:+%\\" or c == " " for c in path) and path == path.strip():
        return path
    return "'" + path.replace("\\", "\\\\").replace("'", "\\'") + "'"

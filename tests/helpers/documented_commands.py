"""Commands, files and outputs that README and the tutorials show, and whether an output is the one that is shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lrkit.config.compose import check, compose
from lrkit.config.sweep_values import expand_jobs
from lrkit.config.swept_config import check_sweep
from lrkit.sweep.sweep import apply_preset

__all__ = [
    "Command", "File", "Script", "check_overrides", "is_shown_output", "plain_commands", "read_blocks",
    "readme_steps", "shown_commands",
]  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A command of shell, and the lines that are shown as its output. A backslash continues a command."""

    line: str
    output: tuple[str, ...]


@dataclass(frozen=True)
class File:
    """A block with a caption: the reader saves it under that name."""

    name: str
    text: str


@dataclass(frozen=True)
class Script:
    """A block of Python that the reader runs."""

    text: str


def shown_commands(block: str) -> Iterator[Command]:
    """The commands of a block, each after ``$``, with the lines below it up to the next command."""
    for shown in re.split(r"^\$ ", block, flags=re.M)[1:]:
        lines = shown.rstrip().split("\n")
        last = next(i for i, line in enumerate(lines) if not line.endswith("\\"))
        yield Command("\n".join(lines[: last + 1]), tuple(lines[last + 1 :]))


def plain_commands(block: str) -> Iterator[Command]:
    """The commands of a block without outputs: one a line, with its comment left out."""
    for line in block.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield Command(shlex.join(words), ())


def readme_steps(page: str) -> list[Command | File | Script]:
    """What README has the reader do, in order. A block below a paragraph that names a file in backticks is that file.

    Blocks of ``shell`` are commands to copy, those of ``console`` have outputs, and those of ``text`` are outputs.
    """
    steps: list[Command | File | Script] = []
    for before, info, body in re.findall(r"([^\n]*\n?[^\n]*)\n\n```(\w+)\n(.*?)^```$", page, flags=re.M | re.S):
        named = re.findall(r"`([\w/]+\.(?:py|yaml))`", before)
        if info in ("python", "yaml") and named:
            steps.append(File(named[-1], body))
        elif info == "python":
            steps.append(Script(body))
        elif info in ("shell", "console"):
            steps += shown_commands(body) if info == "console" else plain_commands(body)
        else:
            assert info == "text", info
    return steps


def read_blocks(page: str) -> list[Command | File | Script]:
    """What a page in Markdown has the reader do, in order; every block of shell or Python belongs to it."""
    steps: list[Command | File | Script] = []
    for info, body in re.findall(r"^```(\S[^\n]*)\n(.*?)^```$", page, flags=re.M | re.S):
        caption = re.match(r":caption: (\S+)\n\n", body)
        if info.startswith("{code-block}"):
            assert caption, f"a code-block is a file and has a caption: {body[:60]}"
            steps.append(File(caption[1], body[caption.end() :]))
        elif info == "console":
            assert body.startswith("$ "), f"a console begins with a command: {body[:60]}"
            steps += shown_commands(body)
        elif info == "python":
            steps.append(Script(body))
        else:
            assert info in ("yaml", "text"), f"shell is written as console, with its commands after $: {info}"
    return steps


def check_overrides(line: str) -> int:
    """Compose and check what a line of ``lrkit train``, ``show`` or ``find`` says; return the number of its jobs.

    Of a sweep, each value is checked once, as the command itself does.
    """
    words = shlex.split(line.replace("\\\n", " "))[2:]
    overrides = [word for word in words if not word.startswith(("-", "format=", "resume.", "hydra."))]
    if "-m" not in words:
        check(compose(overrides))
        return 1
    swept = apply_preset(overrides, None)
    check_sweep(swept)
    return len(expand_jobs(swept))


def is_shown_output(shown: Sequence[str], received: Sequence[str], *, exact: bool) -> bool:
    """Whether the output is what is shown. ``...`` stands for any lines, or for any rest of its line.

    Not ``exact``: measured numbers (those after the name of a metric, and around ``±``) and times match any
    numbers, dates match any date, and spaces that align a table count as one. Rates and steps must be as shown.

    >>> is_shown_output(["lr 0.1", "...", "step 2  val/loss 0.5"], ["lr 0.1", "a", "step 2 val/loss 0.7"], exact=False)
    True
    >>> is_shown_output(["lr 0.1", "step 2  val/loss 0.5"], ["lr 0.2", "step 2  val/loss 0.5"], exact=False)
    False
    """
    parts = []
    for line in shown:
        pattern = re.escape(_blurred(line, exact=exact)).replace(re.escape("..."), ".*")
        parts.append(r"(?:.*\n)*?" if line == "..." else pattern + r"\n")
    text = "".join(f"{_blurred(line, exact=exact)}\n" for line in received)
    return re.fullmatch("".join(parts), text) is not None


def _blurred(line: str, *, exact: bool) -> str:
    line = line.rstrip()
    if exact:
        return line
    number = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
    line = re.sub(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", "DATE", line)
    line = re.sub(rf"{number} ± {number}", "N ± N", line)
    line = re.sub(rf"((?:train|val|test)/\w+)((?: +{number})+)", lambda m: m[1] + re.sub(number, "N", m[2]), line)
    line = re.sub(rf"{number} s\b", "N s", line)
    return re.sub(r"(?<=\S) {2,}", " ", line)

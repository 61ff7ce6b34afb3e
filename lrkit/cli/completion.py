"""`lrkit completion`: scripts that complete command lines in bash, zsh and fish, and their candidates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.exit_codes import OK
from lrkit.cli.commands import COMMANDS

__all__ = ["print_candidates", "run_completion", "split_line"]

_MEANING = 60  # characters of a meaning that a shell shows beside a candidate
_SPECIAL = re.compile(r"([\s'\"\\$&;()<>|`*?!#])")


def run_completion(words: list[str]) -> int:
    """Print the script for a shell."""
    shells = COMMANDS["completion"].words
    if len(words) != 1 or words[0] not in shells:
        shell = " ".join(words)
        raise ConfigError("lrkit completion", f"needs a shell. {did_you_mean(shell, shells)}", shell)
    print((Path(__file__).parent / f"completion.{words[0]}").read_text(encoding="utf-8"), end="")
    return OK


def print_candidates(words: list[str]) -> int:
    """Print the candidates for the last word, one a line, in the form of the script of a shell.

    Args:
        words: for bash, ``bash``, the line up to the cursor, and bash's characters between words; for the others the
            shell, the words after ``lrkit``, and the current word. An error prints nothing: it would be on the line.
    """
    try:
        shell, *given = words
        if shell == "bash":
            lines = _candidates_for_bash(*given)
        else:
            lines = _candidates_with_meanings([_unquote(word)[0] for word in given], shell)
    except Exception:  # such as a config file of the user's that cannot be read
        return OK
    for line in lines:
        print(line)
    return OK


def _candidates_with_meanings(words: Sequence[str], shell: str) -> list[str]:
    """Return candidates as ``word<tab>meaning``. For zsh a complete word ends with a space; fish adds it itself."""
    from lrkit.cli.completion_candidates import find_candidates

    lines = []
    for each in find_candidates(words[:-1], words[-1]):
        space = " " if each.final and shell == "zsh" else ""
        lines.append(f"{each.text}{space}\t{_shorten(each.meaning)}")
    return lines


def _shorten(meaning: str) -> str:
    text = "".join(c for c in meaning if c.isprintable())
    return text if len(text) <= _MEANING else f"{text[: _MEANING - 3].rpartition(' ')[0]}..."


def _candidates_for_bash(line: str, breaks: str) -> list[str]:
    """Return candidates without the part of the word that bash keeps: up to the last of its characters between words,
    such as ``=`` and ``:``, or to an open quote."""
    from lrkit.cli.completion_candidates import find_candidates

    words, raw = split_line(line)
    current, quote = _unquote(raw)
    if quote:
        kept = raw[: raw.rindex(quote) + 1]
    else:
        ends = [i for i, c in enumerate(raw) if c in breaks and not _unquote(raw[:i])[1] and raw[i - 1 : i] != "\\"]
        kept = raw[: ends[-1] + (raw[ends[-1]] != "@")] if ends else ""  # readline keeps an @ in the next word
    skipped = len(_unquote(kept)[0])
    lines = []
    for each in find_candidates(words[1:], current):
        rest = each.text[skipped:]
        lines.append(rest if quote else _SPECIAL.sub(r"\\\1", rest) + " " * each.final)
    return lines


def split_line(line: str) -> tuple[list[str], str]:
    """Return the words of a line without their quotes, and the last word unchanged; the last word may be empty.

    >>> split_line("lrkit train 'a={b: 1}' sche")
    (['lrkit', 'train', 'a={b: 1}'], 'sche')
    >>> split_line("lrkit train ")
    (['lrkit', 'train'], '')
    """
    pieces = re.findall(r"(?:'[^']*(?:'|$)|\"(?:\\.|[^\"])*(?:\"|$)|\\.|[^\s'\"\\])+|\\$", line, re.S)
    last = pieces.pop() if pieces and line.endswith(pieces[-1]) and not line[-1].isspace() else ""
    if pieces and not last and line.endswith(pieces[-1]):  # an open quote with a space in it
        last = pieces.pop()
    return [_unquote(piece)[0] for piece in pieces], last


def _unquote(raw: str) -> tuple[str, str]:
    """Return a word without its quotes and backslashes, and the open quote at its end."""
    text, quote, i = "", "", 0
    while i < len(raw):
        c = raw[i]
        if quote == "'" or (quote and c == quote) or (not quote and c in "'\""):
            if quote == "'" and c != "'":
                text += c
            else:
                quote = "" if quote else c
        elif c == "\\" and i + 1 < len(raw):
            i += 1
            text += raw[i]
        else:
            text += c
        i += 1
    return text, quote

"""The words that can come next on a command line: commands, flags, groups, options, keys, values and paths.

Each press of Tab computes them from the commands and the YAML files, without Hydra and torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lrkit.cli.commands import COMMANDS, FLAG_VALUES, Command
from lrkit.config.documented_options import DocumentedGroup, DocumentedKey, DocumentedOptions, split_prefix

__all__ = ["Candidate", "find_candidates"]

_SHORT = {"-c": "--cfg", "-i": "--info", "-cd": "--config-dir"}
#: Keys of Hydra's that a user of lrkit sets.
_HYDRA = [
    DocumentedKey("hydra.run.dir", "null", "folder of the run"),
    DocumentedKey("hydra.sweep.dir", "null", "folder of the sweep"),
]
#: Values that a comment lists, such as "norm or value; null: norm".
_LISTED = re.compile(r"(?:^|: )(\w+(?:, \w+)*) or (\w+)(?=[;:]|$)")
#: Comments of keys whose value is a path.
_PATH = re.compile(r"^(the |text )?(run's |\.npz )?(file|folder)\b|^the \.npz\b")


@dataclass(frozen=True)
class Candidate:
    """A word that can come next.

    Args:
        text: the whole word.
        meaning: its meaning; may be empty.
        final: whether the word is complete, so that a space follows.
    """

    text: str
    meaning: str = ""
    final: bool = True


def find_candidates(words: Sequence[str], current: str) -> list[Candidate]:
    """Return the candidates for the word ``current`` after ``lrkit`` and ``words``.

    >>> [each.text for each in find_candidates(["train"], "sche")]
    ['schedule=']
    >>> [each.text for each in find_candidates(["train"], "schedule=co")]
    ['schedule=constant', 'schedule=cosine']
    """
    words = [word for word in words if word != "--traceback"]
    return [each for each in _list_candidates(words, current) if each.text.startswith(current)]


def _list_candidates(words: Sequence[str], current: str) -> Iterator[Candidate]:
    if not words:
        if current.startswith("-"):
            yield from (Candidate(flag) for flag in ("--help", "--version"))
        else:
            yield from (Candidate(name, command.sentence) for name, command in COMMANDS.items())
        return
    command = COMMANDS.get(words[0])
    if command is None:
        return
    last = _SHORT.get(words[-1], words[-1])
    options = DocumentedOptions(_find_config_dir(words))
    if last in FLAG_VALUES:
        yield from (Candidate(value) for value in FLAG_VALUES[last])
    elif last == "--config-dir":
        yield from _list_paths("", current, folders=True)
    elif last == "--config":
        yield from _list_paths("", current)
    elif last == "--trust":
        return
    elif current.startswith("-"):
        yield from _list_flags(command, current)
    elif words[0] == "help":
        yield from _list_names(options)
    else:
        yield from (Candidate(word) for word in command.words)
        yield from _list_words(command, words[1:], current, options)


def _find_config_dir(words: Sequence[str]) -> str | None:
    """Return the folder of the user's own options on the command line, if it exists."""
    for i, word in enumerate(words):
        name, has_value, value = word.partition("=")
        if name in ("--config-dir", "-cd"):
            folder = value if has_value else "".join(words[i + 1 : i + 2])
            return folder if os.path.isdir(folder) else None
    return None


def _list_flags(command: Command, current: str) -> Iterator[Candidate]:
    for flag in ("--config-dir=", "--config="):
        if current.startswith(flag):
            yield from _list_paths(flag, current.partition("=")[2], folders=flag == "--config-dir=")
            return
    for flags, meaning in command.flags.items():
        yield from (Candidate(flag, meaning) for flag in re.findall(r"-[\w-]+", flags))
    yield Candidate("--help", "this command: groups, keys, flags, examples")


def _list_names(options: DocumentedOptions) -> Iterator[Candidate]:
    """Yield the names that ``lrkit help`` explains."""
    yield from (Candidate(name, command.sentence) for name, command in COMMANDS.items())
    yield from (Candidate(key.path, key.comment) for key in options.settings)
    for group in options.groups:
        if "@" in group.name:
            continue
        yield Candidate(group.name, group.comment)
        seen: set[str] = set()
        for name in options.names(group.name):
            option = options.read(group.name, name)
            yield Candidate(f"{group.name}.{name}", option.comment)
            for key in (*option.keys, *option.shared):
                if key.path not in seen and not group.added:
                    seen.add(key.path)
                    yield Candidate(key.path, key.comment)


# --- overrides, keys of the command, paths --------------------------------------------------------


def _list_words(
    command: Command, typed: Sequence[str], current: str, options: DocumentedOptions
) -> Iterator[Candidate]:
    """Yield the words of a command with keys, overrides or paths."""
    sign, bare = split_prefix(current)
    name, equals, value = bare.partition("=")
    own = next((key for key in command.keys if key.name == name), None)
    if equals and own is not None:
        if own.values == ("FOLDER",):
            yield from _list_paths(f"{name}=", value, folders=True)
        yield from (Candidate(f"{name}={each}") for each in own.values if each != each.upper())
    elif equals and command.overrides:
        yield from _list_values(f"{sign}{name}=", name, value, typed, options)
    elif not equals:
        yield from (Candidate(f"{key.name}=", key.meaning, final=False) for key in command.keys)
        if command.overrides:
            yield from _list_keys(sign, bare, typed, options)
    if command.paths and not (equals and own is not None):
        yield from _list_paths("", current, folders=True)


def _list_keys(sign: str, bare: str, typed: Sequence[str], options: DocumentedOptions) -> Iterator[Candidate]:
    """Yield groups and keys, except those that the line already has."""
    given = {split_prefix(word)[1].partition("=")[0] for word in typed}
    if "." not in bare or "@" in bare:
        for group in options.groups:
            if group.name in given or group.added != (sign == "+") or ("@" in group.name) != ("@" in bare):
                continue
            names = options.names(group.name)
            end = "=" if len(names) > 1 or group.added else "."
            yield Candidate(f"{sign}{group.name}{end}", group.comment, final=False)
        sections = {key.path for key in options.sections}
        for key in options.settings:
            if "." not in key.path and key.path not in given and not sign:
                yield Candidate(f"{key.path}{'.' if key.path in sections else '='}", key.comment, final=False)
        return
    section = bare.partition(".")[0]
    for key in _keys_of_section(section, typed, options):
        if key.path not in given and "." in key.path:
            yield Candidate(f"{sign}{key.path}=", key.comment, final=False)


def _keys_of_section(section: str, typed: Sequence[str], options: DocumentedOptions) -> Iterable[DocumentedKey]:
    """Return the keys below a section or a group: those of the chosen options on the line, or of the default.

    If these options have no keys, such as ``warmup=none``, return the keys of all options of the group.
    """
    found = [key for key in [*options.settings, *_HYDRA] if key.path.startswith(f"{section}.")]
    for group in options.groups:
        at = group.name.partition("@")[2] or group.name
        if at.partition(".")[0] != section:
            continue
        chosen = group.chosen(typed) & {*options.names(group.name)}
        if not chosen and "@" in group.name:
            continue
        keys = _keys_of_options(group, sorted(chosen), options)
        found += keys or _keys_of_options(group, options.names(group.name), options)
    return list({key.path: key for key in found}.values())


def _keys_of_options(group: DocumentedGroup, names: Sequence[str], options: DocumentedOptions) -> list[DocumentedKey]:
    read = [options.read(group.name, name) for name in names]
    return [key for option in read for key in (*option.keys, *option.shared)]


def _list_values(
    begin: str, name: str, value: str, typed: Sequence[str], options: DocumentedOptions
) -> Iterator[Candidate]:
    """Yield the values of a group or a key, also for the last member of a list ``[a,b`` or of a sweep ``a,b``."""
    before = value[: max(value.rfind(","), value.rfind("[")) + 1]
    group = options.group(name)
    if group is None and "@" in name:
        group = DocumentedGroup(name, "", "") if options.group(name.partition("@")[0]) else None
    if group is not None:
        names, taken = options.names(group.name), before.strip("[").split(",")
        for each in names:
            if each not in taken:
                meaning = options.comment(group.name, each)
                yield Candidate(f"{begin}{before}{each}", meaning, final="[" not in before)
        return
    keys = _keys_of_section(name.partition(".")[0], typed, options) if "." in name else options.settings
    key = next((key for key in keys if key.path == name), None)
    if key is None:
        return
    if _PATH.match(key.comment):
        yield from _list_paths(begin, value)
        return
    for each in _values_of_key(key):
        yield Candidate(f"{begin}{before}{each}", key.comment)


def _values_of_key(key: DocumentedKey) -> list[str]:
    """Return the values of a key if its comment lists them, or its default."""
    if key.default in ("true", "false"):
        return ["true", "false"]
    listed = _LISTED.search(key.comment)
    if listed:
        return [*listed[1].split(", "), listed[2]]
    return [key.default] if re.fullmatch(r"[\w.%/-]+|\[[\w., -]*\]", key.default) and key.default != "null" else []


def _list_paths(begin: str, typed: str, folders: bool = False) -> Iterator[Candidate]:
    """Yield the files and folders that complete a path; a folder ends with ``/``, so that its content comes next."""
    folder, _, name = typed.rpartition("/")
    above = f"{folder}/" if "/" in typed else ""
    try:
        with os.scandir(os.path.expanduser(above) or ".") as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError:
        return
    for entry, is_folder in found:
        if entry.startswith(name) and (name or not entry.startswith(".")) and entry.isprintable():
            if is_folder:
                yield Candidate(f"{begin}{above}{entry}/", final=False)
            elif not folders:
                yield Candidate(f"{begin}{above}{entry}")

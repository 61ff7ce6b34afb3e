"""The groups, options and keys of a run, with the comments of their YAML files. No Hydra, no OmegaConf, no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lrkit.base.errors import ConfigError
from lrkit.config import yaml_screening
from lrkit.config.conf_folder import CONF_DIR, SHARED

__all__ = ["DocumentedGroup", "DocumentedKey", "DocumentedOption", "DocumentedOptions", "split_prefix"]

#: Keys of Hydra's, not the user's.
_NOT_KEYS = ("defaults", "hydra")
_SWEPT = "hydra.sweeper.params."
#: The groups that the list of defaults does not have: nothing of them is chosen until ``+GROUP=OPTION``.
_ADDED = {
    "experiment": "a prepared training",
    "sweep": "the values of a prepared sweep",
    "launcher": "the engine that runs the jobs of a sweep",
}


@dataclass(frozen=True)
class DocumentedKey:
    """A key of a config file.

    Args:
        path: the key as the user types it, such as ``schedule.end``.
        default: its value in the file, as YAML.
        comment: meaning, unit, range and source; empty if the file has no comment for it.
    """

    path: str
    default: str
    comment: str

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class DocumentedOption:
    """An option of a group.

    Args:
        group: its group, such as ``schedule``.
        name: its name, such as ``cosine``.
        comment: the comment at the beginning of its file.
        target: the class that it names; empty if it names none.
        choices: the options of other groups that it chooses, such as ``data=mnist1d``.
        keys: its keys.
        shared: the keys that it shares with the other options of its group.
    """

    group: str
    name: str
    comment: str
    target: str
    choices: tuple[str, ...]
    keys: tuple[DocumentedKey, ...]
    shared: tuple[DocumentedKey, ...]

    def at(self, package: str) -> DocumentedOption:
        """The option, mounted elsewhere: ``schedule@coschedule.momentum`` has the keys ``coschedule.momentum.end``."""
        keys, shared = ([replace(key, path=package + key.path.removeprefix(self.group)) for key in keys]
                        for keys in (self.keys, self.shared))  # fmt: skip
        return replace(self, keys=tuple(keys), shared=tuple(shared))


@dataclass(frozen=True)
class DocumentedGroup:
    """A group of options.

    Args:
        name: such as ``schedule``, or ``schedule@coschedule.momentum`` for options that are mounted elsewhere.
        default: the option that a run begins with; empty for none.
        comment: the purpose of the group.
        added: whether an option must be added, by ``+experiment=...``.
    """

    name: str
    default: str
    comment: str
    added: bool = False

    @property
    def word(self) -> str:
        """The group as the user types it before ``=``."""
        return f"+{self.name}" if self.added else self.name

    def chosen(self, words: Sequence[str]) -> set[str]:
        """The options of the group on a command line, also those of a list or a sweep; without one, the default.

        >>> sorted(DocumentedGroup("logger", "tensorboard", "").chosen(["seed=1", "logger=[csv,wandb]"]))
        ['csv', 'wandb']
        """
        chosen: set[str] = set()
        for word in words:
            name, equals, value = split_prefix(word)[1].partition("=")
            if equals and name == self.name:
                chosen |= {each.strip() for each in value.strip("[]'\"").split(",")}
        return chosen or {self.default}


class DocumentedOptions:
    """The options of lrkit, and those of a folder of the user's own, which come first.

    Args:
        config_dir: the folder of ``--config-dir``; None for none.

    >>> options = DocumentedOptions()
    >>> options.read("schedule", "cosine").keys[1]
    DocumentedKey(path='schedule.end', default='0.0', comment='multiplier of the base learning rate at the end, >= 0; 0: the learning rate ends at zero')
    >>> options.names("batch_scaling")
    ['auto', 'linear', 'none', 'sqrt']
    """  # noqa: E501

    def __init__(self, config_dir: str | None = None) -> None:
        self.own = Path(config_dir) if config_dir else None
        self.folders = [CONF_DIR] if self.own is None else [self.own, CONF_DIR]
        self._read: dict[tuple[str, str], DocumentedOption] = {}

    @cached_property
    def groups(self) -> list[DocumentedGroup]:
        """The groups: those of the list of defaults first, in its order."""
        listed = list(_read_defaults_list(self._train))
        known = {group.name for group in listed}
        found = {path.name for folder in self.folders for path in folder.iterdir() if any(path.glob("*.yaml"))}
        others = sorted(name for name in found - known if not name.startswith(("_", ".")) and name != "hydra")
        order = [name for name in _ADDED if name in others] + [name for name in others if name not in _ADDED]
        return listed + [DocumentedGroup(name, "", _ADDED.get(name, ""), added=True) for name in order]

    def group(self, name: str) -> DocumentedGroup | None:
        return next((group for group in self.groups if group.name == name), None)

    def names(self, group: str) -> list[str]:
        """The names of the options of a group."""
        folder = group.partition("@")[0]
        return sorted({file.stem for root in self.folders for file in (root / folder).glob("*.yaml")})

    def read(self, group: str, name: str) -> DocumentedOption:
        """An option of a group.

        Raises:
            ConfigError: the file is the user's, and cannot be read or is refused.
        """
        if (group, name) not in self._read:
            self._read[group, name] = self._read_option(group, name)
        return self._read[group, name]

    def _read_option(self, group: str, name: str) -> DocumentedOption:
        folder, _, package = group.partition("@")
        path = f"{folder}/{name}"
        lines = _read_lines(self._find(path), self._is_own(path))
        root = _compose(lines)
        header = next((m[1] for line in lines if (m := re.match(r"# *@package +(\S+)", line))), "")
        prefix = "" if header == "_global_" else folder
        keys = [key for key in _read_keys(root, lines, prefix) if key.name != "_target_" or key.default == "???"]
        entries = [text for text, _ in _read_sequence(root, "defaults", lines)]
        shared_file = f"{SHARED}/{folder}"
        shared: list[DocumentedKey] = []
        if any(entry.startswith(f"/{shared_file}@") for entry in entries):
            shared_lines = _read_lines(self._find(shared_file), self._is_own(shared_file))
            shared = list(_read_keys(_compose(shared_lines), shared_lines, folder))
        targets = [key.default for key in _read_keys(root, lines, prefix) if key.name == "_target_"]
        option = DocumentedOption(
            folder, name, _read_header(lines), "" if "???" in targets else next(iter(targets), ""),
            tuple(choice for entry in entries if (choice := _read_choice(entry, folder))),
            tuple(replace(key, path=key.path.removeprefix(_SWEPT)) for key in keys), tuple(shared),
        )  # fmt: skip
        return option.at(package) if package else option

    def comment(self, group: str, name: str) -> str:
        """The comment at the beginning of an option's file, without reading its keys."""
        path = f"{group.partition('@')[0]}/{name}"
        return _read_header(_read_lines(self._find(path), self._is_own(path)))

    @cached_property
    def header(self) -> str:
        """The comment at the beginning of ``train.yaml``."""
        return _read_header(self._train)

    @cached_property
    def settings(self) -> list[DocumentedKey]:
        """The keys of ``train.yaml``, which belong to no option: ``seed``, ``horizon.steps``; sections first."""
        keys = _read_keys(_compose(self._train), self._train, "", sections=True)
        return [key for key in keys if key.path.partition(".")[0] not in _NOT_KEYS]

    @property
    def sections(self) -> list[DocumentedKey]:
        """The keys of ``train.yaml`` that hold others, such as ``horizon``."""
        return [key for key in self.settings if any(other.path.startswith(f"{key.path}.") for other in self.settings)]

    @cached_property
    def _train(self) -> list[str]:
        """The lines of lrkit's ``train.yaml``."""
        return _read_lines(CONF_DIR / "train.yaml", own=False)

    def _find(self, path: str) -> Path:
        return next(file for folder in self.folders if (file := folder / f"{path}.yaml").is_file())

    def _is_own(self, path: str) -> bool:
        return self.own is not None and (self.own / f"{path}.yaml").is_file()


def split_prefix(word: str) -> tuple[str, str]:
    """The sign of an override, and the rest.

    >>> split_prefix("++optimizer.x=1"), split_prefix("seed=1")
    (('++', 'optimizer.x=1'), ('', 'seed=1'))
    """
    bare = word.lstrip("+~")
    return word[: len(word) - len(bare)], bare


def _read_lines(file: Path, own: bool) -> list[str]:
    """The lines of a file; one of the user's is screened before."""
    text = yaml_screening.read_screened(file) if own else file.read_text(encoding="utf-8")
    return text.splitlines()


def _compose(lines: Sequence[str]) -> Any:
    """The nodes of a file, with their positions. Nothing is constructed."""
    try:
        return yaml.compose("\n".join(lines), yaml_screening.LOADER)
    except yaml.YAMLError as error:
        raise ConfigError("a config file", f"is not YAML: {' '.join(str(error).split())}") from None


def _read_header(lines: Sequence[str]) -> str:
    """The comment at the beginning of a file."""
    words = []
    for line in lines:
        if not line.startswith("#"):
            break
        if not re.match(r"# *@package\b", line):
            words.append(line.lstrip("#").strip())
    return " ".join(words)


def _read_keys(
    node: Any, lines: Sequence[str], prefix: str, *, sections: bool = False, depth: int = 0
) -> Iterator[DocumentedKey]:
    """The keys of a mapping and of the mappings in it, in their order.

    Args:
        node: the mapping.
        lines: of the file.
        prefix: path of the mapping; empty at the top.
        sections: whether to include the keys that hold others.
        depth: how deep the mapping is.
    """
    if not isinstance(node, yaml.MappingNode) or depth > yaml_screening.DEEPEST:
        return
    for key, value in node.value:
        if depth == 0 and key.value == "defaults":
            continue
        path = f"{prefix}.{key.value}" if prefix else str(key.value)
        comment = _comment_of(key, value, lines)
        if not isinstance(value, yaml.MappingNode) or not value.value or (value.flow_style and prefix):
            yield DocumentedKey(path, _source_of(value, lines), comment)
        elif value.flow_style:  # optimizer: {lr: 0.1, momentum: 0.9} has one comment, which is about its first key
            for i, (inner, each) in enumerate(value.value):
                yield DocumentedKey(f"{path}.{inner.value}", _source_of(each, lines), "" if i else comment)
        else:
            if sections:
                yield DocumentedKey(path, "", comment)
            yield from _read_keys(value, lines, path, sections=sections, depth=depth + 1)


def _comment_of(key: Any, value: Any, lines: Sequence[str]) -> str:
    """The comment after a key, with the lines that continue it below, or the comment on the lines above it."""
    is_block = isinstance(value, yaml.CollectionNode) and not value.flow_style
    end = key.end_mark if is_block else value.end_mark
    row, text = end.line, lines[end.line] if end.line < len(lines) else ""
    at = text.find("#", end.column)
    if at >= 0:
        words = [text[at + 1 :].strip()]
        while (row := row + 1) < len(lines) and lines[row].strip().startswith("#") and lines[row].index("#") >= at:
            words.append(lines[row].strip().lstrip("#").strip())
        return " ".join(words)
    above: list[str] = []
    row, column = key.start_mark.line - 1, key.start_mark.column
    while row >= 0 and lines[row].strip().startswith("#") and lines[row].index("#") == column:
        above.insert(0, lines[row].strip().lstrip("#").strip())
        row -= 1
    return " ".join(above) if row >= 0 else ""  # a comment at the beginning of the file is the option's


def _source_of(node: Any, lines: Sequence[str]) -> str:
    """A value as the file has it; a list in several lines becomes one line."""
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return f"[{', '.join(_source_of(child, lines) for child in node.value)}]"
    first, last = node.start_mark, node.end_mark
    if first.line == last.line:
        return str(lines[first.line][first.column : last.column])
    parts = [lines[first.line][first.column :], *lines[first.line + 1 : last.line]]
    if last.line < len(lines):
        parts.append(lines[last.line][: last.column])
    return " ".join(part.strip() for part in parts if part.strip())


def _read_sequence(root: Any, key: str, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The entries of a list, each as the file has it, with its comment."""
    for name, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if name.value == key and isinstance(value, yaml.SequenceNode):
            for entry in value.value:
                scalar = entry.value[-1][1] if isinstance(entry, yaml.MappingNode) and entry.value else entry
                start, end = entry.start_mark, scalar.end_mark
                yield lines[start.line][start.column : end.column].strip("{} "), _comment_of(entry, scalar, lines)


def _read_defaults_list(lines: Sequence[str]) -> Iterator[DocumentedGroup]:
    """The groups of the list of defaults of ``train.yaml``."""
    for entry, comment in _read_sequence(_compose(lines), "defaults", lines):
        group, colon, option = (part.strip() for part in entry.partition(":"))
        if colon and " " not in group and group.partition("/")[0] != "hydra":
            yield DocumentedGroup(group, "" if option == "null" else option, comment)


def _read_choice(entry: str, group: str) -> str:
    """An entry of an option's defaults as the user would type it; empty for the shared keys and for ``_self_``."""
    words = re.sub(r"^(override|optional) +", "", entry)
    name, colon, option = (part.strip() for part in words.partition(":"))
    if name.startswith("_") or f"/{SHARED}/" in f"/{name}".replace("//", "/"):
        return ""
    return f"{name.lstrip('/')}={option}" if colon else f"{group}={name}"

"""Checks config files before Hydra reads them: the files in ``--config-dir`` may be untrusted.

Hydra sets up logging, environment and callbacks by the node ``hydra`` before the application can check it, and
OmegaConf expands every alias and interpolation without a limit. lrkit therefore reads a file first as a stream of YAML
events, which builds no objects, and then as plain data. It refuses a file that could do more than describe a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lrkit.base.errors import ConfigError
from lrkit.base.files import read_file

__all__ = [
    "check_interpolations",
    "check_package_header",
    "count_expanded",
    "load_plain",
    "parse_plain",
    "read_bounded",
    "read_screened",
]

LARGEST = 2**20  #: bytes of a file
MOST = 10_000  #: nodes of a file, each alias counted with the nodes of its anchor
DEEPEST = 32
WIDEST = 1_000  #: values of all interpolations of a config

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")} | {"!"}

#: References by name, and resolvers that need only names: the names can be checked before they are resolved.
_REFERENCE = re.compile(r"\$\{\s*(?:(?:oc\.select|lrkit\.name|lrkit\.direction):)?\s*([\w.\[\]/@-]*)\s*\}")
_HARMLESS = re.compile(r"\$\{\s*now:[\w%:. -]*\}")


def read_screened(file: Path) -> str:
    """Return the text of a config file; refuse a file that could do more than describe a run.

    The caller reads this text and not the file, which another process may have replaced since.

    Raises:
        ConfigError: with the file and the key in it.
    """
    name = str(file)
    try:
        text = read_bounded(file)
        _screen(name, parse_plain(name, text))
        return text.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(name, f"cannot be read: {error}") from None


def _screen(name: str, content: Any) -> None:
    check_interpolations(name, content)
    if not isinstance(content, Mapping):
        return
    if "trust" in content:
        raise ConfigError(name, "must not set trust: only the command line may, by --trust")
    _check_hydra(name, content.get("hydra"))
    entries = content.get("defaults")
    for entry in entries if isinstance(entries, list) else []:
        for option in entry.items() if isinstance(entry, Mapping) else [(entry, "")]:
            _check_default(name, *(str(part) for part in option))


def check_interpolations(name: str, content: Any) -> None:
    """Refuse interpolations that do more than refer to a key.

    Raises:
        ConfigError: naming the file, and the key in it.
    """
    for key, text in _find_texts(content):
        _check_interpolation(name, key, text)


def load_plain(file: Path) -> Any:
    """Read a YAML file as plain data: only numbers, texts, lists and mappings.

    Raises:
        ConfigError: the file is too large, nested too deeply, or not plain data.
        OSError: the file cannot be read.
    """
    return parse_plain(str(file), read_bounded(file))


def read_bounded(file: Path) -> bytes:
    """Return the content of a config file.

    Raises:
        ConfigError: the file is too large.
        OSError: the file cannot be read.
    """
    if (size := file.stat().st_size) > LARGEST:
        raise ConfigError(str(file), f"must not be larger than {LARGEST} bytes", size)
    return read_file(file, LARGEST)


def parse_plain(name: str, text: bytes) -> Any:
    """Parse YAML as plain data, for messages that begin with ``name``.

    Raises:
        ConfigError: the text is nested too deeply, or not plain data.
    """
    try:
        _check_events(name, text)
        return yaml.load(text, LOADER)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = "" if where is None else f" (line {where.line + 1})"
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        if "nesting depth" in problem:  # PyYAML 6.0.4 has a limit of its own, and reads ahead of the events
            raise ConfigError(name, f"must not be nested deeper than {DEEPEST}") from None
        raise ConfigError(name, f"is not YAML: {' '.join(problem.split())}{line}") from None


def _check_events(name: str, text: bytes) -> None:
    """Count the nodes before any is built; an alias counts with all nodes of its anchor."""
    sizes: dict[str, int] = {}
    stack: list[tuple[str | None, int, set[str] | None]] = [(None, 0, None)]  # anchor, nodes so far, keys seen
    expects_key: list[bool] = [False]

    def node(size: int, anchor: str | None = None) -> None:
        above, before, keys = stack[-1]
        stack[-1] = (above, before + size, keys)
        if anchor is not None:
            sizes[anchor] = size
        if before + size > MOST:
            raise ConfigError(name, f"must have at most {MOST} nodes, each alias counted with the nodes of its anchor")

    for event in yaml.parse(text, LOADER):
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _PLAIN_TAGS:
            must = f"must be plain data without tags: it has the tag {tag} (line {event.start_mark.line + 1})"
            raise ConfigError(name, must)
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            if len(stack) > DEEPEST:
                raise ConfigError(name, f"must not be nested deeper than {DEEPEST}")
            stack.append((event.anchor, 1, set() if isinstance(event, yaml.MappingStartEvent) else None))
            expects_key.append(isinstance(event, yaml.MappingStartEvent))
            continue
        if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            anchor, size, _ = stack.pop()
            expects_key.pop()
            node(size, anchor)
        elif isinstance(event, yaml.ScalarEvent):
            keys = stack[-1][2]
            if expects_key[-1] and keys is not None:
                if event.value in keys:
                    raise ConfigError(name, f"has the key {event.value} twice (line {event.start_mark.line + 1})")
                keys.add(event.value)
            node(1, event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:  # the anchor is missing, or contains the alias
                raise ConfigError(name, f"has an alias before the end of its anchor: *{event.anchor}")
            node(sizes[event.anchor])
        else:
            continue
        if stack[-1][2] is not None:
            expects_key[-1] = not expects_key[-1]


def _find_texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text, including the keys of mappings, with its key."""
    if isinstance(node, Mapping):
        for name, inner in node.items():
            below = f"{key}.{name}" if key else str(name)
            yield below, str(name)
            yield from _find_texts(inner, below)
    elif isinstance(node, list):
        for i, inner in enumerate(node):
            yield from _find_texts(inner, f"{key}[{i}]")
    elif isinstance(node, str):
        yield key, node


def _check_interpolation(name: str, key: str, text: str) -> None:
    """Refuse interpolations of the environment, which has secrets, and of functions: a run's files save the results."""
    if "${" not in text:
        return
    if "oc.env" in text:
        must = f"must not read the environment in {key}: set the key on the command line"
        raise ConfigError(name, must, text)
    if "${" in _HARMLESS.sub("", _REFERENCE.sub("", text)):
        raise ConfigError(name, f"must refer only to keys, such as ${{seed}}, in {key}", text)


def _check_hydra(name: str, node: Any) -> None:
    """Refuse keys of the node ``hydra`` other than the swept values."""
    sweeper = node.get("sweeper") if isinstance(node, Mapping) else None
    params = sweeper.get("params") if isinstance(sweeper, Mapping) else None
    if node is None or (isinstance(params, Mapping) and node == {"sweeper": {"params": params}}):
        return
    inner = next((key for key, _ in _find_texts(node, "hydra") if not key.startswith("hydra.sweeper.params")), "hydra")
    raise ConfigError(name, f"must not set {inner}, only hydra.sweeper.params: set it on the command line")


def _check_default(name: str, group: str, option: str) -> None:
    parts = re.split(r"[\s/@:.]+", f"{group}/{option}")
    if "hydra" in parts:
        must = f"must not choose {group}: {option} in its defaults" if option else f"must not include {group}"
        raise ConfigError(name, f"{must}: only the command line may choose Hydra's own options")
    if "$" in group or ".." in f"{group}/{option}":
        raise ConfigError(name, "must have plain names of groups and options in its defaults", f"{group}: {option}")


def check_package_header(file: Path, header: str | None) -> None:
    """Refuse a ``# @package`` inside of the node ``hydra`` or ``trust``."""
    parts = set((header or "").split("."))
    if parts & {"hydra", "trust"} or "$" in (header or ""):
        raise ConfigError(str(file), "must not have this @package", header)


def count_expanded(config: Mapping[str, Any]) -> int:
    """Return the number of values of all interpolations of a config, each resolved completely.

    OmegaConf resolves each of them separately, so twenty lines can expand to a million values.

    >>> count_expanded({"a": 1, "b": "${a}", "c": ["${b}", "${b}"]})
    8
    """
    known: dict[str, int] = {}

    def weigh(node: Any, at: tuple[str, ...]) -> int:
        if isinstance(node, Mapping):
            return sum(weigh(inner, (*at, str(name))) for name, inner in node.items())
        if isinstance(node, list):
            return sum(weigh(inner, (*at, str(i))) for i, inner in enumerate(node))
        found = _REFERENCE.findall(node) if isinstance(node, str) and "${" in node else []
        return sum(1 + followed(*_resolve_reference(reference, at)) for reference in found)

    def followed(*path: str) -> int:
        key = ".".join(path)
        if key not in known:
            known[key] = 0  # a reference to itself, which OmegaConf refuses
            node = _read_path(config, path)
            known[key] = 1 if node is None else max(1, weigh(node, path))
            if isinstance(node, Mapping | list):
                known[key] += sum(1 for _ in _find_texts(node))
        return min(known[key], WIDEST + 1)

    return weigh(config, ())


def _resolve_reference(reference: str, at: tuple[str, ...]) -> tuple[str, ...]:
    dots = len(reference) - len(reference.lstrip("."))
    inner = tuple(part for part in re.split(r"[.\[\]]+", reference) if part)
    return (*at[: len(at) - dots], *inner) if dots else inner


def _read_path(node: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if isinstance(node, Mapping):
            node = node.get(part)
        elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return None
    return node

"""Config files, checked before Hydra reads them: the files below ``--config-dir`` may be untrusted.

Hydra acts on what it reads before an application has a say: it sets up logging, environment and callbacks by the node
``hydra``, and OmegaConf follows every alias and interpolation, however many that makes. So a file is first read as a
stream of events, which builds nothing, and then as plain data; what could do more than describe a run is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lrkit.base.errors import ConfigError
from lrkit.base.files import read_file

__all__ = ["check_interpolations", "count_expanded", "load_plain", "package_of_file", "screen_text"]

LARGEST = 2**20  #: bytes of a file
MOST = 10_000  #: nodes of a file, each alias counted as what it stands for
DEEPEST = 32
WIDEST = 1_000  #: values that the interpolations of a config may stand for

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")} | {"!"}

#: References by name, and resolvers that compute from names alone. What they name is seen before it is looked up.
_REFERENCE = re.compile(r"\$\{\s*(?:(?:oc\.select|lrkit\.name|lrkit\.direction):)?\s*([\w.\[\]/@-]*)\s*\}")
_HARMLESS = re.compile(r"\$\{\s*now:[\w%:. -]*\}")


def screen_text(file: Path) -> None:
    """Refuse a config file that could do more than describe a run.

    Raises:
        ConfigError: naming the file, and the key in it.
    """
    name = str(file)
    try:
        content = load_plain(file)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(name, f"cannot be read: {error}") from None
    check_interpolations(name, content)
    if not isinstance(content, Mapping):
        return
    if "trust" in content:
        raise ConfigError(name, "must not set trust: only the command line says whom you trust, by --trust")
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
    """A YAML file as plain data: only numbers, texts, lists and mappings.

    Raises:
        ConfigError: it is too large, too deep, or not plain.
        OSError: it cannot be read.
    """
    if (size := file.stat().st_size) > LARGEST:
        raise ConfigError(str(file), f"must not be larger than {LARGEST} bytes", size)
    text = read_file(file, LARGEST)
    try:
        _check_events(str(file), text)
        return yaml.load(text, _LOADER)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = "" if where is None else f" (line {where.line + 1})"
        said = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise ConfigError(str(file), f"is not YAML: {' '.join(said.split())}{line}") from None


def _check_events(name: str, text: bytes) -> None:
    """Count the nodes before any is built; an alias counts as its whole target."""
    sizes: dict[str, int] = {}
    stack: list[tuple[str | None, int, set[str] | None]] = [(None, 0, None)]  # anchor, nodes so far, keys seen
    expects_key: list[bool] = [False]

    def node(size: int, anchor: str | None = None) -> None:
        above, before, keys = stack[-1]
        stack[-1] = (above, before + size, keys)
        if anchor is not None:
            sizes[anchor] = size
        if before + size > MOST:
            raise ConfigError(name, f"must not have more than {MOST} nodes, aliases counted as what they stand for")

    for event in yaml.parse(text, _LOADER):
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _PLAIN_TAGS:
            must = f"must be plain data, and has the tag {tag} (line {event.start_mark.line + 1})"
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
    """Every text, keys of mappings included, by its key."""
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
    """Allow only harmless interpolations: the environment holds secrets, and a run's files would keep them."""
    if "${" not in text:
        return
    if "oc.env" in text:
        must = f"must not read the environment, as its {key} does: say it on the command line"
        raise ConfigError(name, must, text)
    if "${" in _HARMLESS.sub("", _REFERENCE.sub("", text)):
        raise ConfigError(name, f"may only refer to keys, such as ${{seed}}, and its {key} does more", text)


def _check_hydra(name: str, node: Any) -> None:
    """Refuse keys of the node ``hydra`` other than the swept values."""
    sweeper = node.get("sweeper") if isinstance(node, Mapping) else None
    params = sweeper.get("params") if isinstance(sweeper, Mapping) else None
    if node is None or (isinstance(params, Mapping) and node == {"sweeper": {"params": params}}):
        return
    inner = next((key for key, _ in _find_texts(node, "hydra") if not key.startswith("hydra.sweeper.params")), "hydra")
    raise ConfigError(name, f"must not set {inner}, only hydra.sweeper.params: say it on the command line")


def _check_default(name: str, group: str, option: str) -> None:
    parts = re.split(r"[\s/@:.]+", f"{group}/{option}")
    if "hydra" in parts:
        must = f"must not choose {group}: {option} in its defaults" if option else f"must not include {group}"
        raise ConfigError(name, f"{must}: of Hydra's own options the command line decides")
    if "$" in group or ".." in f"{group}/{option}":
        raise ConfigError(name, "must name groups and options plainly in its defaults", f"{group}: {option}")


def package_of_file(file: Path, header: str | None) -> None:
    """Refuse a ``# @package`` that leads into the node ``hydra``, or into ``trust``."""
    parts = set((header or "").split("."))
    if parts & {"hydra", "trust"} or "$" in (header or ""):
        raise ConfigError(str(file), "must not be of this package", header)


def count_expanded(config: Mapping[str, Any]) -> int:
    """The number of values of all interpolations of a config, each resolved fully.

    OmegaConf resolves each of them anew, so that twenty lines can stand for a million values.

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
        return sum(1 + followed(*_absolute_path(reference, at)) for reference in found)

    def followed(*path: str) -> int:
        key = ".".join(path)
        if key not in known:
            known[key] = 0  # a circle, which OmegaConf refuses
            node = _read_path(config, path)
            known[key] = 1 if node is None else max(1, weigh(node, path))
            if isinstance(node, Mapping | list):
                known[key] += sum(1 for _ in _find_texts(node))
        return min(known[key], WIDEST + 1)

    return weigh(config, ())


def _absolute_path(reference: str, at: tuple[str, ...]) -> tuple[str, ...]:
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

"""The config of a run as dotted keys with plain values."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from lrkit.runs.untrusted_values import escape_text

__all__ = ["flatten_config", "resolve_reference"]

_MAX_DEPTH, _MAX_NODES = 16, 5000
_LONG_LIST = 60  # characters of a list, which are followed by its checksum


def flatten_config(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values, without nulls; a list of plain values, or a table of them, is one value.

    Number and depth are limited.
    """
    remaining = _MAX_NODES

    def walk(node: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
        nonlocal remaining
        remaining -= 1
        if remaining <= 0 or depth > _MAX_DEPTH or node is None:
            return
        if isinstance(node, list) and not all(_is_plain_row(inner) for inner in node):
            node = dict(enumerate(node))
        if isinstance(node, Mapping):
            for key, value in node.items():
                yield from walk(value, escape_text(f"{prefix}.{key}" if prefix else str(key)), depth + 1)
        else:
            yield prefix, _plain_value(node)

    return walk(config, "", 0)


def _is_plain_row(node: Any) -> bool:
    """Whether a member of a list is a plain value, or a list of them."""
    return not any(isinstance(inner, list | Mapping) for inner in (node if isinstance(node, list) else [node]))


def _plain_value(value: Any) -> Any:
    if isinstance(value, list) and len(text := str(value)) > _LONG_LIST:
        return escape_text(f"{text[:_LONG_LIST]}... ({len(value)} values, {zlib.crc32(text.encode()):08x})")
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?e[+-]?\d+", value, re.IGNORECASE):
        return float(value)  # PyYAML reads 1e-3 as text
    return value if isinstance(value, int | float) else escape_text(str(value))


def resolve_reference(value: Any, config: Mapping[str, Any]) -> Any:
    """The value of ``${key}`` in the config; an interpolation that would call a resolver stays text."""
    reference = re.fullmatch(r"\$\{(\w+(?:\.\w+)*)\}", value) if isinstance(value, str) else None
    node: Any = config
    for part in reference[1].split(".") if reference else ():
        node = node.get(part) if isinstance(node, Mapping) else None
    return value if isinstance(node, Mapping) or node is None else node

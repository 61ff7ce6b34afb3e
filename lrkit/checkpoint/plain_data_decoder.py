"""Restores the saved values of a checkpoint from its plain data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from lrkit.checkpoint.plain_data_format import DEPTH, KEY, Path
from lrkit.checkpoint.value_types import DECODERS, USER_CLASSES, restore_user_class

__all__ = ["from_plain_data"]

_HERE = object()
_LIVE = object()  #: no file can contain it


def from_plain_data(
    checkpoint: Any, packages: Collection[str] = (), live: Callable[[Path, Any], tuple[Any] | None] | None = None
) -> Any:
    """Return a checkpoint with the values that ``to_plain_data`` converted, where possible; changes ``checkpoint``.

    Args:
        checkpoint: the content of the file.
        packages: the packages whose enums, dataclasses and named tuples are restored.
        live: called with the place of a text that replaces an object, and the text; returns the object in a tuple,
            or None.

    A note that contradicts the file is ignored: the plain value remains.
    """
    notes = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(notes, dict):
        return checkpoint
    tree: dict[Any, Any] = {}
    with suppress(Exception):  # a damaged file may raise any error
        for at, value in notes["left_out"]:
            functools.reduce(lambda place, step: place[step], at[:-1], checkpoint)[at[-1]] = value
        for at, kind, more in notes["types"]:
            node = functools.reduce(lambda node, step: node.setdefault(step, {}), at, tree)
            if kind == "text" and live is not None:
                found = None
                with suppress(LookupError, TypeError):  # a note may name a place that does not exist
                    found = live(tuple(at), functools.reduce(lambda place, step: place[step], at, checkpoint))
                kind, more = (_LIVE, found[0]) if found is not None else (kind, more)
            node.setdefault(_HERE, []).append((kind, more))
    return _restore_types(checkpoint, tree, frozenset(packages), 0)


def _restore_types(value: Any, node: Mapping[Any, Any], packages: frozenset[str], depth: int) -> Any:
    """Return a value with the types that its notes name, the inner values first."""
    for step, inner in node.items():
        if step is _HERE or depth > 2 * DEPTH:
            continue
        with suppress(Exception):
            new = _restore_types(value[step], inner, packages, depth + 1)
            if new is value[step]:
                continue
            if isinstance(value, tuple):
                value = (*value[:step], new, *value[step + 1 :])
            else:
                value[step] = new
    for kind, more in node.get(_HERE, ()):
        with suppress(Exception):
            if kind is _LIVE:
                value = more
            elif kind == "keys":
                value = _restore_keys(value, more[0], more[1], packages)
            else:
                value = (
                    restore_user_class(kind, value, more, packages)
                    if kind in USER_CLASSES
                    else DECODERS[kind](value, more)
                )
    return value


def _restore_keys(value: dict[Any, Any], keys: list[Any], notes: list[Any], packages: frozenset[str]) -> dict[Any, Any]:
    """Return a dict with the types of its keys restored."""
    notes = [[["keys", *at], *rest] for at, *rest in notes]
    made = from_plain_data({"keys": keys, KEY: {"types": notes, "left_out": []}}, packages)["keys"]
    return dict(zip(made, value.values(), strict=True))

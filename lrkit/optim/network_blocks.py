"""The blocks of a network: its repeated parts, found in the tree of its modules.

A block is one of several modules of one class in a row: in an ``nn.Sequential`` or an ``nn.ModuleList``, or children
whose names differ only in a number (``layer1``, ``layer2``). Modules inside a block do not count. A stage, which mainly
contains a row of blocks, is counted by its blocks. A network without blocks is counted by its plain layers, one for
each weight matrix or kernel. A frozen row does not count beside a row with trainable parameters.

If there are several rows, their order must be clear from the module tree: one after the other, or side by side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lrkit.base.errors import name_some

__all__ = [
    "Block",
    "Part",
    "Row",
    "Towers",
    "UnclearLayers",
    "block_depth",
    "block_paths",
    "describe_blocks",
    "is_inside",
]

#: A name with a number at its end: ``encoder_layer_3``, ``inception4a``, ``3``.
NUMBERED = re.compile(r"(.*?)(\d+[a-z]?)")


class UnclearLayers(ValueError):
    """The order of the blocks is unclear from the module tree."""


@dataclass(frozen=True)
class Block:
    """One block, by the dotted path of its module."""

    path: str


@dataclass(frozen=True)
class Row:
    """Parts one after the other, from the input to the output."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Towers:
    """Parts side by side, each with the paths of its modules, including its embeddings."""

    parts: tuple[tuple[tuple[str, ...], Part], ...]


Part = Block | Row | Towers


def block_paths(part: Part | None) -> list[str]:
    """Return the paths of all blocks in a part."""
    if part is None:
        return []
    if isinstance(part, Block):
        return [part.path]
    inner = part.parts if isinstance(part, Row) else [tower for _, tower in part.parts]
    return [path for each in inner for path in block_paths(each)]


def block_depth(part: Part) -> int:
    """Return the number of blocks one after the other."""
    if isinstance(part, Block):
        return 1
    if isinstance(part, Row):
        return sum(map(block_depth, part.parts))
    return max(block_depth(tower) for _, tower in part.parts)


def is_inside(name: str, path: str) -> bool:
    """Return whether a dotted name is a module or inside it."""
    return not path or name == path or name.startswith(f"{path}.")


def describe_blocks(blocks: Sequence[str], most: int = 8) -> str:
    """Return blocks in few words, with at most ``most`` rows.

    >>> describe_blocks(["blocks.0", "blocks.1", "blocks.2", "layer2.0", "layer2.1", "tail"])
    'blocks.0-2, layer2.0-1, tail'
    """
    words: list[str] = []
    rows: list[tuple[str, list[str]]] = []
    for path in blocks:
        stem, number = match.groups() if (match := NUMBERED.fullmatch(path)) else (path, "")
        if number and rows and rows[-1][0] == stem:
            rows[-1][1].append(number)
        else:
            rows.append((stem, [number]))
    for stem, numbers in rows:
        first, last = numbers[0], numbers[-1]
        in_order = all(n.isdigit() for n in numbers) and int(last) - int(first) == len(numbers) - 1
        if len(numbers) > 4 and not in_order:
            words.append(f"{stem}{first}..{last}")
        else:
            words.append(stem + (f"{first}-{last}" if len(numbers) > 1 and in_order else ", ".join(numbers)))
    return name_some(words, most)

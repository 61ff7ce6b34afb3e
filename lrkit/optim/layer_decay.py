"""Layers for layer-wise decay: the level of each parameter, from the input of a network to its output.

Each block has a level (``lrkit.optim.network_blocks``). Parameters before the first block (embeddings, the stem, class
and register tokens, positions) have the level below all blocks; parameters after the last block (final norm, heads)
have the level above them. Between two blocks, a module with a matrix (downsampling) has the level of the block after
it, as in timm and in ConvNeXt's own code; a module without one (a norm) has the level of the block before it. Towers
are side by side: their last blocks have the level below the top. A decoder is above its encoder.

ELECTRA (Clark et al. 2020) and BEiT (Bao et al. 2022) count layers in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from lrkit.base.errors import name_some
from lrkit.optim.block_search import find_blocks
from lrkit.optim.network_blocks import (
    NUMBERED,
    Block,
    Part,
    Row,
    Towers,
    UnclearLayers,
    block_depth,
    block_paths,
    describe_blocks,
    is_inside,
)

__all__ = ["LayerLevels", "find_layers"]

#: Names of parameters outside of blocks that are used after them: projections, and the temperature of a loss.
_ABOVE = re.compile(r"(?<!in_)proj|head|logit")


@dataclass(frozen=True)
class LayerLevels:
    """The levels of a network.

    Args:
        of: the level of each parameter; a frozen parameter may be above ``top``.
        top: the highest level with a trainable parameter; it has the full learning rate.
        line: the levels in a sentence.
    """

    of: Mapping[str, int]
    top: int
    line: str


def find_layers(module: nn.Module, among: Collection[str] | None = None) -> LayerLevels:
    """Return the levels of a network's parameters.

    Args:
        module: the network.
        among: the names of the optimizer's parameters, if it does not have all parameters of the module.

    Raises:
        UnclearLayers: the network has no blocks, or the order of its blocks is unclear from the module tree.

    >>> from torch.nn import Linear
    >>> blocks = nn.ModuleList([nn.Sequential(Linear(2, 2), Linear(2, 2)) for _ in range(3)])
    >>> print(find_layers(nn.ModuleDict({"embed": Linear(2, 2), "blocks": blocks, "head": Linear(2, 2)})).line)
    5 layers: blocks.0-2 are 1-3; below: embed (2 parameters); above: head (2)
    """
    parameters = {name: p for name, p in module.named_parameters() if among is None or name in among}
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    part = find_blocks(module, trained)
    if part is None:
        children = name_some([name for name, _ in module.named_children()]) or "no modules"
        raise UnclearLayers(
            "layers are counted by blocks (modules of one class in an nn.ModuleList, in an "
            f"nn.Sequential or with numbered names), and there are none in {children}"
        )
    places = _Places(module, part)
    of = {name: places.level(name) for name in parameters}
    lowest = min(of.values())
    of = {name: level - lowest for name, level in of.items()}
    if len(set(of.values())) < 2:
        raise UnclearLayers(f"{describe_blocks(block_paths(part))} is the only layer")
    top = max((of[name] for name in trained), default=0)
    return LayerLevels(of, top, places.line(of, lowest))


class _Places:
    """The positions of parameters relative to the blocks."""

    def __init__(self, module: nn.Module, part: Part) -> None:
        self.modules = dict(module.named_modules())
        self.part, self.depth = part, block_depth(part)
        self.blocks: dict[str, int] = {}  # path -> level, 1 for the lowest
        self.towers: list[tuple[tuple[str, ...], list[str]]] = []  # scope, blocks
        self.put(part, self.depth)
        self.parameters = dict(module.named_parameters())
        self.block_of = {name: path for name in self.parameters for path in _list_parents(name) if path in self.blocks}
        self.order = {name: i for i, name in enumerate(self.parameters)}
        self.aligned = self.alignments()

    def put(self, part: Part, level: int) -> None:
        """Assign a level to the last block of a part, and lower levels to the blocks before it."""
        if isinstance(part, Block):
            self.blocks[part.path] = level
        elif isinstance(part, Row):
            for each in reversed(part.parts):
                self.put(each, level)
                level -= block_depth(each)
        else:
            for scope, tower in part.parts:
                self.towers.append((scope, block_paths(tower)))
                self.put(tower, level)

    def level(self, name: str) -> int:
        """Return the level of a parameter."""
        if name in self.block_of:
            return self.blocks[self.block_of[name]]
        scope, blocks = self.scope(name)
        bottom, top = min(self.blocks[path] for path in blocks) - 1, self.depth + 1
        owner, _, own = name.rpartition(".")
        if isinstance(self.modules[owner], nn.Embedding):
            return bottom
        direct = any(is_inside(path, owner) for path in blocks)  # a parameter of a module that contains blocks
        if direct and (self.parameters[name].numel() == 1 or _ABOVE.search(own)):
            return top
        if (level := self.beside_a_stage(name, bottom)) is not None:
            return level
        place = self.order[name]
        held = [(self.order[other], path) for other, path in self.block_of.items() if path in blocks]
        before, after = (
            sorted(each for each in held if each[0] < place),
            sorted(each for each in held if each[0] > place),
        )
        if not before:
            return bottom
        unit = self.unit(name, [path for _, path in (before[-1], *after[:1])])
        if "embed" in unit.rpartition(".")[2] and not self.has_matrix(unit):
            return bottom  # the norm of embeddings
        if not after:
            return top
        lower, upper = before[-1][1], after[0][1]
        if any(lower in tower and upper not in tower for _, tower in self.towers) and scope == ("",):
            return top  # between two towers, in neither
        return self.blocks[upper] if self.has_matrix(unit) else self.blocks[lower]

    def scope(self, name: str) -> tuple[tuple[str, ...], Sequence[str]]:
        """Return the smallest tower that contains a parameter, and its blocks; otherwise the whole network."""
        found = [(path, (scope, blocks)) for scope, blocks in self.towers for path in scope if is_inside(name, path)]
        return max(found, key=lambda each: len(each[0]), default=("", (("",), list(self.blocks))))[1]

    def unit(self, name: str, blocks: Sequence[str]) -> str:
        """Return the outermost module around a parameter that contains none of ``blocks``; otherwise the parameter."""
        return next((path for path in _list_parents(name) if not any(is_inside(block, path) for block in blocks)), name)

    def has_matrix(self, unit: str) -> bool:
        return any(is_inside(name, unit) and parameter.ndim >= 2 for name, parameter in self.parameters.items())

    def alignments(self) -> list[tuple[list[str], list[str]]]:
        """Return rows with as many members as a row of stages: ConvNeXt's downsampling layers beside its stages.

        Each item has the paths of the row's members, and the paths of the stages.
        """
        rows: dict[tuple[str, str], list[str]] = {}
        for path in self.modules:
            if match := NUMBERED.fullmatch(path):
                parent, _, stem = match[1].removesuffix(".").rpartition(".")
                rows.setdefault((parent, stem), []).append(path)
        alike = {
            key: row
            for key, row in rows.items()
            if len(row) > 1 and len({type(self.modules[path]) for path in row}) == 1
            if not isinstance(self.modules.get(key[0]), nn.Sequential)  # there, they follow each other
        }
        return [
            (row, stages)
            for (parent, _), stages in alike.items()
            if all(map(self.holds, stages))
            for (other, _), row in alike.items()
            if other == parent and len(row) == len(stages) and not any(map(self.holds, row))
        ]

    def holds(self, path: str) -> bool:
        return any(is_inside(block, path) for block in self.blocks)

    def beside_a_stage(self, name: str, bottom: int) -> int | None:
        """Return the level of a parameter in a row beside the stages: that of the stage with the same number."""
        for row, stages in self.aligned:
            for i, (path, stage) in enumerate(zip(row, stages, strict=True)):
                if not is_inside(name, path):
                    continue
                levels = [level for block, level in self.blocks.items() if is_inside(block, stage)]
                first = min(self.order[other] for other in self.block_of if is_inside(other, stages[0]))
                if self.order[name] < first:
                    return min(levels) if i else bottom
                return None if self.has_matrix(path) else max(levels)
        return None

    def line(self, of: Mapping[str, int], lowest: int) -> str:
        """Return the levels as a sentence."""
        count = max(of.values()) + 1
        words = [f"{count} layers: {self.said(self.part, lowest)}"]
        outside: dict[str, dict[str, int]] = {}
        levels = [level - lowest for level in self.blocks.values()]
        bottoms = {min(levels) - 1, *(min(self.blocks[b] for b in tower) - lowest - 1 for _, tower in self.towers)}
        for name, level in of.items():
            if name in self.block_of:
                continue
            where = "above" if level > max(levels) else "below" if level in bottoms else "between"
            unit = self.unit(name, list(self.blocks)) + (f" at {level}" if where == "between" else "")
            units = outside.setdefault(where, {})
            units[unit] = units.get(unit, 0) + 1
        for where in ("below", "between", "above"):
            if where in outside:
                number = sum(outside[where].values())
                unit_word = "" if len(words) > 1 else " parameter" if number == 1 else " parameters"
                words.append(f"{where}: {name_some(list(outside[where]))} ({number}{unit_word})")
        return "; ".join(words)

    def said(self, part: Part, lowest: int) -> str:
        """Return the levels of blocks, in words."""
        if isinstance(part, Towers):
            return ", beside ".join(self.said(tower, lowest) for _, tower in part.parts)
        blocks = block_paths(part)
        levels = [self.blocks[block] - lowest for block in blocks]
        if len(blocks) == 1:
            return f"{blocks[0]} is {levels[0]}"
        return f"{describe_blocks(blocks)} are {min(levels)}-{max(levels)}"


def _list_parents(name: str) -> list[str]:
    """Return the paths of the modules around a parameter, the outermost first."""
    parts = name.split(".")[:-1]
    return [".".join(parts[: i + 1]) for i in range(len(parts))]

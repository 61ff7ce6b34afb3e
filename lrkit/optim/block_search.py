"""Finds the blocks of a network in the tree of its modules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from lrkit.optim.blocks import (
    NUMBERED,
    Block,
    Part,
    Row,
    Towers,
    UnclearLayers,
    block_paths,
    describe_blocks,
    is_inside,
)

__all__ = ["find_blocks"]

#: What a module is called by what it does to others, from the bottom up.
ORDER = {"backbone": 0, "encoder": 1, "encoders": 1, "down": 1, "downs": 1}
LAST = ("decoder", "decoders", "up", "ups")
#: What towers are called by what they read.
KINDS_OF_INPUT = ("vision", "visual", "image", "img", "text", "txt", "language", "audio", "speech", "video")
#: The share of the largest row's parameters below which a row is a part of what is around it.
MINOR = 0.1
#: Embeddings of what a network brings along itself: positions, and the queries of a decoder.
_NO_INPUT = re.compile("pos|quer")
_LISTS = (nn.Sequential, nn.ModuleList)
#: Containers that say nothing of what they hold.
_BARE = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

Child = tuple[str, nn.Module]


def find_blocks(module: nn.Module, trained: Collection[str]) -> Part | None:
    """The blocks of a network that is to be trained; None where there are none.

    Args:
        trained: names of the parameters that are. A row of blocks that has none of them does not count, unless no row
            has any: below a head that is trained alone, they say that it is above them.

    Raises:
        UnclearLayers: there are several rows of blocks, and nothing says how they stand to each other.

    >>> mlp = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> describe_blocks(block_paths(find_blocks(nn.ModuleDict({"body": mlp}), ["body.2.weight"])))
    'body.0, 2'
    """
    frozen = None
    for search in (_Blocks(module, trained), _Layers(module, trained)):
        part = search.within("", module)
        if part is not None and search.trains(part):
            return part
        frozen = frozen or part
    return frozen


class _Search:
    """What both ways to look for blocks have in common."""

    def __init__(self, module: nn.Module, trained: Collection[str]) -> None:
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.trained = {id(parameter) for name, parameter in module.named_parameters() if name in trained}
        self.counts: dict[int, int] = {}

    def within(self, path: str, module: nn.Module) -> Part | None:
        """The blocks somewhere in a module."""
        children = _children(path, module)
        if isinstance(module, _LISTS):
            return self.row(children, module)
        families = _families(children)
        parts: list[tuple[tuple[str, ...], Part]] = []
        for child, inner in children:
            family = families.get(child)
            if family is None:
                found = self.within(child, inner)
                parts += [((child,), found)] if found is not None else []
            elif family[0][0] == child:
                found = self.row(family, module)
                parts += [(tuple(name for name, _ in family), found)] if found is not None else []
        return self.joined(path, module, parts)

    def row(self, children: Sequence[Child], owner: nn.Module) -> Part | None:
        """The blocks of modules that are in order."""
        raise NotImplementedError

    def joined(self, path: str, owner: nn.Module, parts: list[tuple[tuple[str, ...], Part]]) -> Part | None:
        """What was found in several children of a module, which has no order of its own."""
        training = [(scope, part) for scope, part in parts if self.trains(part)]
        parts = training or parts
        if len(parts) < 2:
            return parts[0][1] if parts else None
        ranks = [_rank(scope[0].rpartition(".")[2]) for scope, _ in parts]
        if len(set(ranks)) == len(ranks) and (None not in ranks or min(r for r in ranks if r is not None) in (0, 2)):
            # Whatever has no rank is above a backbone and below a decoder.
            order = sorted(range(len(parts)), key=lambda i: 1.5 if (rank := ranks[i]) is None else rank)
            return Row(tuple(parts[i][1] for i in order))
        if (towers := self.towers(path, parts)) is not None:
            return towers
        if (part := self.in_sequence(parts)) is not None:
            return part
        sizes = [self.size(part) for _, part in parts]
        if len(large := [each for each, size in zip(parts, sizes, strict=True) if size >= MINOR * max(sizes)]) == 1:
            return large[0][1]
        found = " and ".join(describe_blocks(block_paths(part), most=2) for _, part in parts)
        raise UnclearLayers(
            f"{found} are blocks, and nothing says whether they are one above the other or side by side"
        )

    def towers(self, path: str, parts: list[tuple[tuple[str, ...], Part]]) -> Towers | None:
        """Parts side by side, if they are: each reads an input of its own, or is called by what it reads."""
        reads = [self.reads(scope, part) for scope, part in parts]
        told = [not set(_words(scope[0].rpartition(".")[2])).isdisjoint(KINDS_OF_INPUT) for scope, _ in parts]
        kinds = {type(self.modules[block]).__name__ for _, part in parts for block in block_paths(part)}
        if not (all(reads) or all(told) or (len(parts) == 2 and any(told) and len(kinds) == 1)):
            return None
        if reads.count(False) == 1:  # the embeddings that are beside all of them are that one's
            i = reads.index(False)
            parts = [*parts[:i], ((path,), parts[i][1]), *parts[i + 1 :]]
        return Towers(tuple(parts))

    def in_sequence(self, parts: list[tuple[tuple[str, ...], Part]]) -> Part | None:
        """The parts as one, where their order is plain."""
        return None

    def reads(self, scope: Sequence[str], part: Part) -> bool:
        """Whether a tower has embeddings, or a convolution, below its blocks."""
        blocks = block_paths(part)
        for root in scope:
            for name, module in self.modules[root].named_modules():
                path = ".".join(filter(None, (root, name)))
                if any(is_inside(path, block) for block in blocks):
                    break  # from here on, it is above them or among them
                if isinstance(module, _ConvNd) or (isinstance(module, nn.Embedding) and not _NO_INPUT.search(name)):
                    return True
        return False

    def trains(self, part: Part) -> bool:
        """Whether any block of a part has a parameter that is trained."""
        return any(id(p) in self.trained for path in block_paths(part) for p in self.modules[path].parameters())

    def size(self, part: Part) -> int:
        """The number of parameters in the blocks of a part."""
        return sum(p.numel() for path in block_paths(part) for p in self.modules[path].parameters())

    def matrices(self, module: nn.Module) -> int:
        """How many matrices or kernels a module has."""
        if id(module) not in self.counts:
            self.counts[id(module)] = sum(p.ndim >= 2 for p in module.parameters())
        return self.counts[id(module)]

    def beside(self, module: nn.Module, part: Part) -> int:
        """How many matrices a module has beside its blocks."""
        return self.matrices(module) - sum(self.matrices(self.modules[block]) for block in block_paths(part))


class _Blocks(_Search):
    """Looks for blocks of two matrices and more."""

    def row(self, children: Sequence[Child], owner: nn.Module, staged: bool = False) -> Part | None:
        stages = [child for child in children if _is_stage(child[1])]
        if len(stages) > 1 and (staged or self.in_order(stages, owner)):
            parts = [self.row(_children(path, stage), stage, staged=True) for path, stage in stages]
            found = [part for part in parts if part is not None]
            if any(self.matrices(self.modules[path]) > 1 for part in found for path in block_paths(part)):
                return _row(found)
        kinds = Counter(type(module).__name__ for _, module in children)
        alike = [
            (path, module)
            for path, module in children
            if (kinds[type(module).__name__] > 1 and self.matrices(module) > 1)
            or (staged and type(module) not in _BARE)
        ]
        if any(type(module) not in _BARE for _, module in alike):
            alike = [(path, module) for path, module in alike if type(module) not in _BARE]
        elif not staged and not self.in_order(alike, owner):
            alike = []
        expanded = self.stages(alike)
        order, chosen = [path for path, _ in children], [path for path, _ in alike]
        found = []
        for i, (path, module) in enumerate(children):
            if path in chosen:
                found.append(expanded.get(path, Block(path)))
            elif (part := self.within(path, module)) is not None:
                found.append(part)
            elif chosen and not expanded and order.index(chosen[0]) < i < order.index(chosen[-1]):
                # One of another class among them: hybrids alternate.
                found += [Block(path)] if type(module) not in _BARE and self.matrices(module) > 1 else []
        if expanded and not isinstance(owner, nn.Sequential) and self.are_networks(alike, found):
            return Towers(tuple(((path,), part) for (path, _), part in zip(alike, found, strict=False)))
        return _row(found)

    def stages(self, alike: Sequence[Child]) -> dict[str, Part]:
        """The stages among modules of one kind, with the blocks that they hold."""
        stages = {path: part for path, module in alike if (part := self.stage(path, module)) is not None}
        kinds = {type(self.modules[block]).__name__ for part in stages.values() for block in block_paths(part)}
        for path, module in alike:  # a stage of one block has no row of its own, but the others say what to look for
            if path not in stages and kinds:
                held = [name for name, inner in module.named_modules() if type(inner).__name__ in kinds and name]
                outermost = [
                    name for name in held if not any(is_inside(name, other) for other in held if other != name)
                ]
                part = _row([Block(f"{path}.{name}") for name in outermost])
                if part is not None and self.holds(module, part) and not isinstance(module, _LISTS):
                    stages[path] = part
        return stages

    def stage(self, path: str, module: nn.Module) -> Part | None:
        """The blocks that a module holds, if it is a stage; else it is a block itself."""
        try:
            part = None if type(module) in _BARE else self.within(path, module)
        except UnclearLayers:
            return None
        if part is None or isinstance(part, Towers) or not self.holds(module, part):
            return None
        direct = [self.modules[block] for block in block_paths(part) if block.rpartition(".")[0] == path]
        if direct and not isinstance(module, _BARE):  # children with numbers in their names may be branches
            return part if self.beside(module, part) == 0 and not any(type(each) in _BARE for each in direct) else None
        return part

    def holds(self, module: nn.Module, part: Part) -> bool:
        """Whether a module holds little else than blocks: what is beside them has fewer matrices than one of them.

        Experts, heads and branches are in rows too, but beside them a block has its attention or its router.
        """
        return self.beside(module, part) < max(self.matrices(self.modules[block]) for block in block_paths(part))

    def are_networks(self, alike: Sequence[Child], found: Sequence[Part]) -> bool:
        """Whether modules of one kind are whole networks, with embeddings of their own, and no stages."""
        return len(alike) == len(found) and all(
            any(isinstance(inner, nn.Embedding) for inner in module.modules()) and self.reads((path,), part)
            for (path, module), part in zip(alike, found, strict=True)
        )

    def in_order(self, members: Sequence[Child], owner: nn.Module) -> bool:
        """Whether bare containers are one above the other: in a list they are, as children where they fit."""
        return isinstance(owner, _LISTS) or _fit([module for _, module in members])


class _Layers(_Search):
    """Looks for plain layers: whatever has a matrix or a kernel and is in order."""

    def row(self, children: Sequence[Child], owner: nn.Module) -> Part | None:
        having = [(path, module) for path, module in children if self.matrices(module)]
        if len(having) == 1 and _children(*having[0]):
            inner = self.within(*having[0])
            wrapper = inner is not None and self.beside(having[0][1], inner) <= 1  # a head at most
            return inner if wrapper else Block(having[0][0])
        if not isinstance(owner, _LISTS) and not _fit([module for _, module in having]):
            return None
        found: list[Part] = []
        for path, module in having:
            part = self.row(_children(path, module), module) if type(module) in _LISTS else Block(path)
            found += [part] if part is not None else []
        return _row(found)

    def in_sequence(self, parts: list[tuple[tuple[str, ...], Part]]) -> Part | None:
        """In the order in which the module has them, if each fits what is before it.

        Linear layers fit behind convolutions, for what these give is flattened in between. Outputs of the same width
        could as well be compared with each other.
        """
        for (_, lower), (_, upper) in pairwise(parts):
            last, first = self.modules[block_paths(lower)[-1]], self.modules[block_paths(upper)[0]]
            if not (_fit([last, first]) or (_convolves(last) and not _convolves(first))):
                return None
            if _shapes(last)[-1][0] == _shapes(self.modules[block_paths(upper)[-1]])[-1][0]:
                return None
        return _row([part for _, part in parts])


def _row(parts: Sequence[Part]) -> Part | None:
    return None if not parts else parts[0] if len(parts) == 1 else Row(tuple(parts))


def _children(path: str, module: nn.Module) -> list[Child]:
    """The children that have parameters."""
    return [
        (f"{path}.{name}" if path else name, child)
        for name, child in module.named_children()
        if next(child.parameters(), None) is not None
    ]


def _families(children: Sequence[Child]) -> dict[str, list[Child]]:
    """For each child, those whose names differ from its own in the number alone, if some are of one class."""
    families: dict[str, list[Child]] = {}
    for path, module in children:
        if match := NUMBERED.fullmatch(path):
            families.setdefault(match[1], []).append((path, module))
    return {
        path: family
        for family in families.values()
        if max(Counter(type(module).__name__ for _, module in family).values()) > 1
        for path, _ in family
    }


def _is_stage(module: nn.Module) -> bool:
    """Whether a bare container holds blocks of one kind: none of them is a single layer."""
    if type(module) not in _BARE:
        return False
    held = [child for _, child in _children("", module)]
    kinds = Counter(type(child).__name__ for child in held)
    return all(_children("", child) for child in held) and (len(held) == 1 or max(kinds.values(), default=0) > 1)


def _fit(modules: Sequence[nn.Module]) -> bool:
    """Whether the output of each is as wide as the input of the next, judged by their outermost kernels."""
    shapes = [_shapes(module) for module in modules]
    return all(a and b and a[-1][0] == b[0][1] for a, b in pairwise(shapes))


def _shapes(module: nn.Module) -> list[torch.Size]:
    """The shapes of the matrices and kernels of a module: outputs, inputs, ..."""
    return [parameter.shape for parameter in module.parameters() if parameter.ndim >= 2]


def _convolves(module: nn.Module) -> bool:
    return any(isinstance(inner, _ConvNd) for inner in module.modules())


def _words(name: str) -> Iterator[str]:
    return (word for word in re.split(r"[^a-z]+", name.lower()) if word)


def _rank(name: str) -> int | None:
    """Where a part stands by its name: a backbone or an encoder below, a decoder above."""
    for word in _words(name):
        if word in LAST:
            return 2
        if word in ORDER:
            return ORDER[word]
    return None

"""Finds the blocks of a network in the tree of its modules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from lrkit.optim.network_blocks import (
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

#: Names of modules by their position, from the input to the output.
ORDER = {"backbone": 0, "encoder": 1, "encoders": 1, "down": 1, "downs": 1}
LAST = ("decoder", "decoders", "up", "ups")
#: Names of towers by the kind of their input.
KINDS_OF_INPUT = ("vision", "visual", "image", "img", "text", "txt", "language", "audio", "speech", "video")
#: A row with a smaller share of the largest row's parameters is a part of the module around it.
MINOR = 0.1
#: Embeddings that read no input: positions, and the queries of a decoder.
_NO_INPUT = re.compile("pos|quer")
_LISTS = (nn.Sequential, nn.ModuleList)
#: Containers whose class says nothing about their content.
_BARE = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

Child = tuple[str, nn.Module]


def find_blocks(module: nn.Module, trained: Collection[str]) -> Part | None:
    """Return the blocks of a network; None if it has none.

    Args:
        module: the network.
        trained: the names of the trainable parameters. A row of blocks without them does not count, unless all rows are
            frozen: then they show that the trained head is above them.

    Raises:
        UnclearLayers: there are several rows of blocks, and their order is unclear.

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
    """The part of the search that is common to blocks and plain layers."""

    def __init__(self, module: nn.Module, trained: Collection[str]) -> None:
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.trained = {id(parameter) for name, parameter in module.named_parameters() if name in trained}
        self.counts: dict[int, int] = {}

    def within(self, path: str, module: nn.Module) -> Part | None:
        """Return the blocks anywhere in a module."""
        children = _list_children(path, module)
        if isinstance(module, _LISTS):
            return self.row(children, module)
        families = _group_by_number(children)
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
        """Return the blocks of modules that follow each other."""
        raise NotImplementedError

    def joined(self, path: str, owner: nn.Module, parts: list[tuple[tuple[str, ...], Part]]) -> Part | None:
        """Combine the blocks in several children of a module, whose order is not known."""
        training = [(scope, part) for scope, part in parts if self.trains(part)]
        parts = training or parts
        if len(parts) < 2:
            return parts[0][1] if parts else None
        ranks = [_rank_by_name(scope[0].rpartition(".")[2]) for scope, _ in parts]
        if len(set(ranks)) == len(ranks) and (None not in ranks or min(r for r in ranks if r is not None) in (0, 2)):
            # A part without a rank is above a backbone and below a decoder.
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
            f"{found} are blocks, and it is unclear whether they are one after the other or side by side"
        )

    def towers(self, path: str, parts: list[tuple[tuple[str, ...], Part]]) -> Towers | None:
        """Return parts as towers, if each has its own input, or a name for the kind of its input; otherwise None."""
        reads = [self.reads(scope, part) for scope, part in parts]
        told = [not set(_split_words(scope[0].rpartition(".")[2])).isdisjoint(KINDS_OF_INPUT) for scope, _ in parts]
        kinds = {type(self.modules[block]).__name__ for _, part in parts for block in block_paths(part)}
        if not (all(reads) or all(told) or (len(parts) == 2 and any(told) and len(kinds) == 1)):
            return None
        if reads.count(False) == 1:  # the embeddings outside of all parts belong to this part
            i = reads.index(False)
            parts = [*parts[:i], ((path,), parts[i][1]), *parts[i + 1 :]]
        return Towers(tuple(parts))

    def in_sequence(self, parts: list[tuple[tuple[str, ...], Part]]) -> Part | None:
        """Return the parts as one row, if their order is clear."""
        return None

    def reads(self, scope: Sequence[str], part: Part) -> bool:
        """Return whether a tower has embeddings or a convolution before its blocks."""
        blocks = block_paths(part)
        for root in scope:
            for name, module in self.modules[root].named_modules():
                path = ".".join(filter(None, (root, name)))
                if any(is_inside(path, block) for block in blocks):
                    break  # the next modules are after the first block
                if isinstance(module, _ConvNd) or (isinstance(module, nn.Embedding) and not _NO_INPUT.search(name)):
                    return True
        return False

    def trains(self, part: Part) -> bool:
        """Return whether a block of a part has a trainable parameter."""
        return any(id(p) in self.trained for path in block_paths(part) for p in self.modules[path].parameters())

    def size(self, part: Part) -> int:
        """Return the number of parameters in the blocks of a part."""
        return sum(p.numel() for path in block_paths(part) for p in self.modules[path].parameters())

    def matrices(self, module: nn.Module) -> int:
        """Return the number of matrices and kernels in a module."""
        if id(module) not in self.counts:
            self.counts[id(module)] = sum(p.ndim >= 2 for p in module.parameters())
        return self.counts[id(module)]

    def beside(self, module: nn.Module, part: Part) -> int:
        """Return the number of matrices in a module outside of its blocks."""
        return self.matrices(module) - sum(self.matrices(self.modules[block]) for block in block_paths(part))


class _Blocks(_Search):
    """The search for blocks with two or more matrices."""

    def row(self, children: Sequence[Child], owner: nn.Module, staged: bool = False) -> Part | None:
        stages = [child for child in children if _is_stage(child[1])]
        if len(stages) > 1 and (staged or self.in_order(stages, owner)):
            parts = [self.row(_list_children(path, stage), stage, staged=True) for path, stage in stages]
            found = [part for part in parts if part is not None]
            if any(self.matrices(self.modules[path]) > 1 for part in found for path in block_paths(part)):
                return _make_row(found)
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
                # A block of another class between them: hybrid networks alternate.
                found += [Block(path)] if type(module) not in _BARE and self.matrices(module) > 1 else []
        if expanded and not isinstance(owner, nn.Sequential) and self.are_networks(alike, found):
            return Towers(tuple(((path,), part) for (path, _), part in zip(alike, found, strict=False)))
        return _make_row(found)

    def stages(self, alike: Sequence[Child]) -> dict[str, Part]:
        """Return the stages among modules of one kind, with their blocks."""
        stages = {path: part for path, module in alike if (part := self.stage(path, module)) is not None}
        kinds = {type(self.modules[block]).__name__ for part in stages.values() for block in block_paths(part)}
        for path, module in alike:  # a stage of one block has no row: search it for the blocks of the others
            if path not in stages and kinds:
                held = [name for name, inner in module.named_modules() if type(inner).__name__ in kinds and name]
                outermost = [
                    name for name in held if not any(is_inside(name, other) for other in held if other != name)
                ]
                part = _make_row([Block(f"{path}.{name}") for name in outermost])
                if part is not None and self.holds(module, part) and not isinstance(module, _LISTS):
                    stages[path] = part
        return stages

    def stage(self, path: str, module: nn.Module) -> Part | None:
        """Return the blocks of a module, if it is a stage; None if it is a block."""
        try:
            part = None if type(module) in _BARE else self.within(path, module)
        except UnclearLayers:
            return None
        if part is None or isinstance(part, Towers) or not self.holds(module, part):
            return None
        direct = [self.modules[block] for block in block_paths(part) if block.rpartition(".")[0] == path]
        if direct and not isinstance(module, _BARE):  # numbered children may be branches
            return part if self.beside(module, part) == 0 and not any(type(each) in _BARE for each in direct) else None
        return part

    def holds(self, module: nn.Module, part: Part) -> bool:
        """Whether a module holds little else than blocks: what is beside them has fewer matrices than one of them.

        Experts, heads and branches are in rows too, but beside them a block has its attention or its router.
        """
        return self.beside(module, part) < max(self.matrices(self.modules[block]) for block in block_paths(part))

    def are_networks(self, alike: Sequence[Child], found: Sequence[Part]) -> bool:
        """Return whether modules of one kind are complete networks with their own embeddings, not stages."""
        return len(alike) == len(found) and all(
            any(isinstance(inner, nn.Embedding) for inner in module.modules()) and self.reads((path,), part)
            for (path, module), part in zip(alike, found, strict=True)
        )

    def in_order(self, members: Sequence[Child], owner: nn.Module) -> bool:
        """Return whether bare containers follow each other: always in a list, and as children if their shapes match."""
        return isinstance(owner, _LISTS) or _has_matching_shapes([module for _, module in members])


class _Layers(_Search):
    """The search for plain layers: modules with a matrix or a kernel that follow each other."""

    def row(self, children: Sequence[Child], owner: nn.Module) -> Part | None:
        having = [(path, module) for path, module in children if self.matrices(module)]
        if len(having) == 1 and _list_children(*having[0]):
            inner = self.within(*having[0])
            wrapper = inner is not None and self.beside(having[0][1], inner) <= 1  # a head at most
            return inner if wrapper else Block(having[0][0])
        if not isinstance(owner, _LISTS) and not _has_matching_shapes([module for _, module in having]):
            return None
        found: list[Part] = []
        for path, module in having:
            part = self.row(_list_children(path, module), module) if type(module) in _LISTS else Block(path)
            found += [part] if part is not None else []
        return _make_row(found)

    def in_sequence(self, parts: list[tuple[tuple[str, ...], Part]]) -> Part | None:
        """Return the parts as a row in the order of the module, if the shape of each one matches the part before it.

        A linear layer matches a convolution, because the output is flattened between them. Two parts with outputs of
        the same width do not match: their outputs could be compared with each other.
        """
        for (_, lower), (_, upper) in pairwise(parts):
            last, first = self.modules[block_paths(lower)[-1]], self.modules[block_paths(upper)[0]]
            if not (_has_matching_shapes([last, first]) or (_has_convolution(last) and not _has_convolution(first))):
                return None
            if _list_shapes(last)[-1][0] == _list_shapes(self.modules[block_paths(upper)[-1]])[-1][0]:
                return None
        return _make_row([part for _, part in parts])


def _make_row(parts: Sequence[Part]) -> Part | None:
    return None if not parts else parts[0] if len(parts) == 1 else Row(tuple(parts))


def _list_children(path: str, module: nn.Module) -> list[Child]:
    """Return the children with parameters."""
    return [
        (f"{path}.{name}" if path else name, child)
        for name, child in module.named_children()
        if next(child.parameters(), None) is not None
    ]


def _group_by_number(children: Sequence[Child]) -> dict[str, list[Child]]:
    """Return for each child those whose names differ from its own only in the number, if some have the same class."""
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
    """Return whether a bare container contains blocks of one kind, none of which is a single layer."""
    if type(module) not in _BARE:
        return False
    held = [child for _, child in _list_children("", module)]
    kinds = Counter(type(child).__name__ for child in held)
    return all(_list_children("", child) for child in held) and (len(held) == 1 or max(kinds.values(), default=0) > 1)


def _has_matching_shapes(modules: Sequence[nn.Module]) -> bool:
    """Return whether the output of each module is as wide as the input of the next, by their first and last kernels."""
    shapes = [_list_shapes(module) for module in modules]
    return all(a and b and a[-1][0] == b[0][1] for a, b in pairwise(shapes))


def _list_shapes(module: nn.Module) -> list[torch.Size]:
    """Return the shapes of the matrices and kernels in a module: (outputs, inputs, ...)."""
    return [parameter.shape for parameter in module.parameters() if parameter.ndim >= 2]


def _has_convolution(module: nn.Module) -> bool:
    return any(isinstance(inner, _ConvNd) for inner in module.modules())


def _split_words(name: str) -> Iterator[str]:
    return (word for word in re.split(r"[^a-z]+", name.lower()) if word)


def _rank_by_name(name: str) -> int | None:
    """Return the rank of a part by its name: a backbone 0, an encoder 1, a decoder 2; None for other names."""
    for word in _split_words(name):
        if word in LAST:
            return 2
        if word in ORDER:
            return ORDER[word]
    return None

"""From a checkpoint to plain data that ``torch.load(weights_only=True)`` reads."""

from __future__ import annotations

import enum
import functools
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lrkit.checkpoint.object_tensors import find_tensors, is_wrapper_tensor
from lrkit.checkpoint.object_text import describe_object, text_for
from lrkit.checkpoint.plain_data_format import DEPTH, KEY, PLAIN_TENSORS, Content, Path, Replaced
from lrkit.checkpoint.value_types import OF_A_CLASS, TYPES, class_of, name_of

__all__ = ["to_plain_data"]

REPEATS = 1_000  #: of things that are not plain data: what comes more often becomes text
_NOTED = object()

#: Read as they are, whatever their value; but of integers those of at most 255 bytes.
ATOMS = frozenset({
    type(None), bool, float, complex, str, bytearray, torch.dtype, torch.device, torch.Size, torch.layout,
    torch.UntypedStorage, torch.TypedStorage,
})  # fmt: skip
_ATOMS_OR_INT = ATOMS | {int}
_INT_BITS = 2039


def to_plain_data(
    checkpoint: Mapping[str, Any], leave_out: Collection[Path] = (), packages: Collection[str] = ()
) -> Content:
    """The same checkpoint as plain data. Nothing in it is changed; what need not be copied is not.

    Args:
        checkpoint: what is to be written.
        leave_out: places where a missing value is better than a text: arguments that must be given.
        packages: whose classes ``from_plain_data`` will make again.

    >>> import pathlib
    >>> import numpy as np
    >>> from lrkit.checkpoint.plain_data_decoder import from_plain_data
    >>> values = {"width": np.int64(8), "folder": pathlib.Path("a/b"), "act": torch.relu}
    >>> made = to_plain_data({"hyper_parameters": values})
    >>> made.checkpoint["hyper_parameters"]["width"], made.checkpoint["hyper_parameters"]["folder"]
    (8, 'a/b')
    >>> [each.name for each in made.apart]
    ['hyper_parameters.act']
    >>> type(from_plain_data(made.checkpoint)["hyper_parameters"]["width"]).__name__
    'int64'
    """
    walk = _Encoder(frozenset(packages))
    made = dict(walk.of(dict(checkpoint), ()))
    left_out = []
    for *parents, name in leave_out:
        place = functools.reduce(lambda value, step: value.get(step, {}), parents, made)
        if any(each.at == (*parents, name) for each in walk.apart) and name in place:
            left_out.append([[*parents, name], place[name]])
            made = _without(made, [*parents, name])
    if walk.types or walk.tensors:
        tensors = [[list(at), found] for at, found in walk.tensors]
        made[KEY] = {"types": walk.types, "left_out": left_out, "tensors": tensors}
    return Content(made, walk.apart)


class _Encoder:
    """One way through a checkpoint: makes plain values, and takes down types, texts and tensors on the way."""

    def __init__(self, packages: frozenset[str] = frozenset()) -> None:
        self.packages = packages
        self.again = 0  # how often something with notes was met again: each time is another way through it
        self.types: list[list[Any]] = []  # [where, which type, what else it takes], the inner before the outer
        self.apart: list[Replaced] = []
        self.tensors: list[tuple[Path, dict[str, Tensor]]] = []
        self.inside: set[int] = set()
        self.made: dict[int, tuple[Any, Any]] = {}  # what is there twice stays one; the first keeps an id from reuse

    def of(self, value: Any, at: Path) -> Any:
        kind = type(value)
        if kind in ATOMS or (kind is int and value.bit_length() <= _INT_BITS) or (kind is bytes and value):
            return value
        if isinstance(value, Tensor):
            return self._tensor(value, at)
        if id(value) in self.inside or self.again > REPEATS:
            return self._text(value, at, look=False)
        if len(at) > DEPTH:
            return self._text(value, at)
        before = self.made.get(id(value))
        if before is not None and before[1] is not _NOTED:
            return before[1]
        self.again += before is not None
        self.inside.add(id(value))
        notes = len(self.types), len(self.apart)
        try:
            found = self._known(value, kind, at)
        finally:
            self.inside.remove(id(value))
        # A note says where something is, so it is written for each place; other things that are there twice stay one.
        self.made[id(value)] = value, found if notes == (len(self.types), len(self.apart)) else _NOTED
        return found

    def _known(self, value: Any, kind: type, at: Path) -> Any:
        if kind in (dict, OrderedDict, Counter):
            return self._dict(value, kind, at)
        if kind in (list, tuple):
            return self._sequence(value, kind, at)
        if kind in (set, frozenset):
            return self._set(value, kind, at)
        for name, fits, parts in TYPES:
            if fits(value, kind):
                made = None
                with suppress(Exception):  # from an attribute of the user's class
                    made = parts(value)
                if made is None:
                    break
                inner, more = made
                found = self.of(inner, at) if not isinstance(inner, Tensor) else inner
                self.types.append([list(at), name, more])
                if name in OF_A_CLASS:
                    again = class_of(name_of(kind), self.packages) is kind
                    self.apart.append(Replaced(at, f"{name_of(kind)}, as {type(found).__name__}", again))
                return found
        for base in (str, int, float, bytes, dict, list, tuple, set):
            if isinstance(value, base) and not isinstance(value, enum.Enum):
                self.apart.append(Replaced(at, f"{name_of(kind)}, as {base.__name__}"))
                return self.of(_as(base, value), at)
        return self._text(value, at)

    def _dict(self, value: Mapping[Any, Any], kind: type, at: Path) -> Any:
        keys = set(map(type, value))
        if not keys <= {str, int, float, bool, type(None)} or any(
            type(key) is int and key.bit_length() > _INT_BITS for key in value
        ):
            return self._keyed(value, at)
        if kind is dict and set(map(type, value.values())) <= ATOMS:
            return value
        if kind is not dict and vars(value) and _Encoder().of(vars(value), ()) is not vars(value):
            return self._dict({**value}, dict, at)  # what hangs on a dict is not of it
        made = {key: self.of(each, (*at, key)) for key, each in value.items()}
        if all(made[key] is each for key, each in value.items()):
            return value
        return made if kind is dict else _like(kind(made), value)

    def _keyed(self, value: Mapping[Any, Any], at: Path) -> Any:
        """A dict with keys that are not plain: with plain ones, where they differ; otherwise a list of pairs."""
        keys = _Encoder(self.packages)
        names = [keys.of(key, (i,)) for i, key in enumerate(value)]
        with suppress(TypeError):  # of a key that is a list now
            if len({*names}) == len(names):
                made = {name: self.of(each, (*at, name)) for name, each in zip(names, value.values(), strict=True)}
                self.apart += [each._replace(at=(*at, "keys", *each.at)) for each in keys.apart]
                if keys.types:
                    self.types.append([list(at), "keys", [names, keys.types]])
                return made
        pairs = [self.of([key, each], (*at, i)) for i, (key, each) in enumerate(value.items())]
        self.types.append([list(at), "pairs", None])
        return pairs

    def _sequence(self, value: Sequence[Any], kind: type, at: Path) -> Any:
        found = set(map(type, value))
        if found <= ATOMS or (found <= _ATOMS_OR_INT and all(
            each.bit_length() <= _INT_BITS for each in value if type(each) is int
        )):  # fmt: skip
            return value
        made = [self.of(each, (*at, i)) for i, each in enumerate(value)]
        if all(new is old for new, old in zip(made, value, strict=True)):
            return value
        return made if kind is list else tuple(made)

    def _set(self, value: Collection[Any], kind: type, at: Path) -> Any:
        walked = _Encoder(self.packages)
        made = [walked.of(each, (i,)) for i, each in enumerate(value)]
        if kind is set and not walked.types and not walked.apart:
            return value
        self.types += [[[*at, *where], name, more] for where, name, more in walked.types]
        self.apart += [each._replace(at=(*at, *each.at)) for each in walked.apart]
        self.types.append([list(at), kind.__name__, None])
        return made

    def _tensor(self, value: Tensor, at: Path) -> Any:
        kind = type(value)
        if is_lazy(value):
            return self._text(value, at, look=False)
        if kind in PLAIN_TENSORS:
            more = value.__dict__
            if not more or _Encoder().of(more, ()) is more:
                return value
            bare = value.detach()  # what hangs on a tensor is not of it
            return bare if kind is Tensor else nn.Parameter(bare, value.requires_grad)
        if is_wrapper_tensor(value):
            return value  # made of other tensors: the reader knows it, or says that it does not
        self.apart.append(Replaced(at, f"{name_of(kind)}, as Tensor"))
        return value.detach().as_subclass(Tensor)

    def _text(self, value: Any, at: Path, *, look: bool = True) -> str:
        text = text_for(value)
        self.apart.append(Replaced(at, describe_object(value), text=text))
        self.types.append([list(at), "text", None])
        if look:
            found = dict(find_tensors(value))
            if found:
                self.tensors.append((at, found))
        return text


def _like(made: Any, before: Any) -> Any:
    """The copy of a dict, with what hangs on it: torch keeps the versions of modules there."""
    made.__dict__.update(vars(before))
    return made


def _without(made: dict[str, Any], at: Sequence[Any]) -> dict[str, Any]:
    """A copy of nested dicts without one of their values."""
    head, *rest = at
    if not rest:
        return {name: value for name, value in made.items() if name != head}
    return {**made, head: _without(made[head], rest)}


def _as(base: type, value: Any) -> Any:
    """The value of a subclass as its base has it, whatever methods the subclass has."""
    if base in (list, tuple, set):
        return base(base.__iter__(value))
    if base is dict:
        return {key: dict.__getitem__(value, key) for key in dict.__iter__(value)}
    if base is str:
        return str.__str__(value)
    if base is bytes:
        return bytes.__getitem__(value, slice(None))
    return int.__int__(value) if base is int else float.__float__(value)

"""Converts a checkpoint to plain data, which ``torch.load(weights_only=True)`` can read."""

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

from lrkit.checkpoint.object_placeholder import describe_object, make_placeholder
from lrkit.checkpoint.plain_data_format import DEPTH, KEY, PLAIN_TENSORS, Content, Path, Replaced
from lrkit.checkpoint.tensors_in_object import find_tensors, is_wrapper_tensor
from lrkit.checkpoint.value_types import TYPES, USER_CLASSES, find_class, get_class_name

__all__ = ["to_plain_data"]

REPEATS = 1_000  #: repeated references to values that are not plain data; further ones become a text
_NOTED = object()

#: Types that ``torch.load`` reads unchanged; integers up to 255 bytes as well.
ATOMS = frozenset({
    type(None), bool, float, complex, str, bytearray, torch.dtype, torch.device, torch.Size, torch.layout,
    torch.UntypedStorage, torch.TypedStorage,
})  # fmt: skip
_ATOMS_OR_INT = ATOMS | {int}
_INT_BITS = 2039


def to_plain_data(
    checkpoint: Mapping[str, Any], leave_out: Collection[Path] = (), packages: Collection[str] = ()
) -> Content:
    """Return a checkpoint as plain data. Changes nothing in ``checkpoint``, and copies only the containers that differ.

    Args:
        checkpoint: the content to write.
        leave_out: places where a missing value is better than a text: required arguments.
        packages: the packages whose classes ``from_plain_data`` will restore.

    >>> import pathlib
    >>> import numpy as np
    >>> from lrkit.checkpoint.plain_data_decoder import from_plain_data
    >>> values = {"width": np.int64(8), "folder": pathlib.Path("a/b"), "act": torch.relu}
    >>> made = to_plain_data({"hyper_parameters": values})
    >>> made.checkpoint["hyper_parameters"]["width"], made.checkpoint["hyper_parameters"]["folder"]
    (8, 'a/b')
    >>> [each.name for each in made.replaced]
    ['hyper_parameters.act']
    >>> type(from_plain_data(made.checkpoint)["hyper_parameters"]["width"]).__name__
    'int64'
    """
    encoder = _Encoder(frozenset(packages))
    made = dict(encoder.encode(dict(checkpoint), ()))
    left_out = []
    for *parents, name in leave_out:
        place = functools.reduce(lambda value, step: value.get(step, {}), parents, made)
        if any(each.at == (*parents, name) for each in encoder.replaced) and name in place:
            left_out.append([[*parents, name], place[name]])
            made = _remove_value(made, [*parents, name])
    if encoder.types or encoder.tensors:
        tensors = [[list(at), found] for at, found in encoder.tensors]
        made[KEY] = {"types": encoder.types, "left_out": left_out, "tensors": tensors}
    return Content(made, encoder.replaced)


class _Encoder:
    """Converts the values of a checkpoint one after the other, and records their types, texts and tensors."""

    def __init__(self, packages: frozenset[str] = frozenset()) -> None:
        self.packages = packages
        self.again = 0  # repeated references to values with notes: each one is converted again
        self.types: list[list[Any]] = []  # [place, name of the type, other data], the inner value before the outer
        self.replaced: list[Replaced] = []
        self.tensors: list[tuple[Path, dict[str, Tensor]]] = []
        self.inside: set[int] = set()
        self.made: dict[int, tuple[Any, Any]] = {}  # id -> value (so that its id is not reused), plain value

    def encode(self, value: Any, at: Path) -> Any:
        kind = type(value)
        if kind in ATOMS or (kind is int and value.bit_length() <= _INT_BITS) or (kind is bytes and value):
            return value
        if isinstance(value, Tensor):
            return self._encode_tensor(value, at)
        if id(value) in self.inside or self.again > REPEATS:
            return self._replace_by_text(value, at, look=False)
        if len(at) > DEPTH:
            return self._replace_by_text(value, at)
        before = self.made.get(id(value))
        if before is not None and before[1] is not _NOTED:
            return before[1]
        self.again += before is not None
        self.inside.add(id(value))
        notes = len(self.types), len(self.replaced)
        try:
            found = self._encode_known_type(value, kind, at)
        finally:
            self.inside.remove(id(value))
        # A note names a place, so a value with notes is converted for each place; other values are shared.
        self.made[id(value)] = value, found if notes == (len(self.types), len(self.replaced)) else _NOTED
        return found

    def _encode_known_type(self, value: Any, kind: type, at: Path) -> Any:
        if kind in (dict, OrderedDict, Counter):
            return self._encode_dict(value, kind, at)
        if kind in (list, tuple):
            return self._encode_sequence(value, kind, at)
        if kind in (set, frozenset):
            return self._encode_set(value, kind, at)
        for name, fits, parts in TYPES:
            if fits(value, kind):
                made = None
                with suppress(Exception):  # raised by an attribute of the user's class
                    made = parts(value)
                if made is None:
                    break
                inner, more = made
                found = self.encode(inner, at) if not isinstance(inner, Tensor) else inner
                self.types.append([list(at), name, more])
                if name in USER_CLASSES:
                    again = find_class(get_class_name(kind), self.packages) is kind
                    self.replaced.append(Replaced(at, f"{get_class_name(kind)}, as {type(found).__name__}", again))
                return found
        for base in (str, int, float, bytes, dict, list, tuple, set):
            if isinstance(value, base) and not isinstance(value, enum.Enum):
                self.replaced.append(Replaced(at, f"{get_class_name(kind)}, as {base.__name__}"))
                return self.encode(_convert_to_base(base, value), at)
        return self._replace_by_text(value, at)

    def _encode_dict(self, value: Mapping[Any, Any], kind: type, at: Path) -> Any:
        keys = set(map(type, value))
        if not keys <= {str, int, float, bool, type(None)} or any(
            type(key) is int and key.bit_length() > _INT_BITS for key in value
        ):
            return self._encode_keys(value, at)
        if kind is dict and set(map(type, value.values())) <= ATOMS:
            return value
        if kind is not dict and vars(value) and _Encoder().encode(vars(value), ()) is not vars(value):
            return self._encode_dict({**value}, dict, at)  # drops the attributes of the dict
        made = {key: self.encode(each, (*at, key)) for key, each in value.items()}
        if all(made[key] is each for key, each in value.items()):
            return value
        return made if kind is dict else _copy_attributes(kind(made), value)

    def _encode_keys(self, value: Mapping[Any, Any], at: Path) -> Any:
        """Return a dict with plain keys; a list of pairs if several keys have the same plain key."""
        keys = _Encoder(self.packages)
        names = [keys.encode(key, (i,)) for i, key in enumerate(value)]
        with suppress(TypeError):  # a plain key is a list
            if len({*names}) == len(names):
                made = {name: self.encode(each, (*at, name)) for name, each in zip(names, value.values(), strict=True)}
                self.replaced += [each._replace(at=(*at, "keys", *each.at)) for each in keys.replaced]
                if keys.types:
                    self.types.append([list(at), "keys", [names, keys.types]])
                return made
        pairs = [self.encode([key, each], (*at, i)) for i, (key, each) in enumerate(value.items())]
        self.types.append([list(at), "pairs", None])
        return pairs

    def _encode_sequence(self, value: Sequence[Any], kind: type, at: Path) -> Any:
        found = set(map(type, value))
        if found <= ATOMS or (found <= _ATOMS_OR_INT and all(
            each.bit_length() <= _INT_BITS for each in value if type(each) is int
        )):  # fmt: skip
            return value
        made = [self.encode(each, (*at, i)) for i, each in enumerate(value)]
        if all(new is old for new, old in zip(made, value, strict=True)):
            return value
        return made if kind is list else tuple(made)

    def _encode_set(self, value: Collection[Any], kind: type, at: Path) -> Any:
        members = _Encoder(self.packages)
        made = [members.encode(each, (i,)) for i, each in enumerate(value)]
        if kind is set and not members.types and not members.replaced:
            return value
        self.types += [[[*at, *where], name, more] for where, name, more in members.types]
        self.replaced += [each._replace(at=(*at, *each.at)) for each in members.replaced]
        self.types.append([list(at), kind.__name__, None])
        return made

    def _encode_tensor(self, value: Tensor, at: Path) -> Any:
        kind = type(value)
        if is_lazy(value):
            return self._replace_by_text(value, at, look=False)
        if kind in PLAIN_TENSORS:
            more = value.__dict__
            if not more or _Encoder().encode(more, ()) is more:
                return value
            bare = value.detach()  # drops the attributes of the tensor
            return bare if kind is Tensor else nn.Parameter(bare, value.requires_grad)
        if is_wrapper_tensor(value):
            return value  # consists of other tensors: torch.load reads it, or refuses it
        self.replaced.append(Replaced(at, f"{get_class_name(kind)}, as Tensor"))
        return value.detach().as_subclass(Tensor)

    def _replace_by_text(self, value: Any, at: Path, *, look: bool = True) -> str:
        text = make_placeholder(value)
        self.replaced.append(Replaced(at, describe_object(value), text=text))
        self.types.append([list(at), "text", None])
        if look:
            found = dict(find_tensors(value))
            if found:
                self.tensors.append((at, found))
        return text


def _copy_attributes(made: Any, before: Any) -> Any:
    """Return the copy of a dict with its attributes, where torch stores the versions of modules."""
    made.__dict__.update(vars(before))
    return made


def _remove_value(made: dict[str, Any], at: Sequence[Any]) -> dict[str, Any]:
    """Return a copy of nested dicts without one of their values."""
    head, *rest = at
    if not rest:
        return {name: value for name, value in made.items() if name != head}
    return {**made, head: _remove_value(made[head], rest)}


def _convert_to_base(base: type, value: Any) -> Any:
    """Return a value of a subclass as its base type, without calling a method of the subclass."""
    if base in (list, tuple, set):
        return base(base.__iter__(value))
    if base is dict:
        return {key: dict.__getitem__(value, key) for key in dict.__iter__(value)}
    if base is str:
        return str.__str__(value)
    if base is bytes:
        return bytes.__getitem__(value, slice(None))
    return int.__int__(value) if base is int else float.__float__(value)

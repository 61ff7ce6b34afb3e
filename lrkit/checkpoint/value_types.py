"""The types of values that a checkpoint notes beside a plain value: how each is known, written, and made again.

Nothing that a file names is imported or called: what makes a value stands in ``MAKE``. Of enums, dataclasses and named
tuples the class is looked for among what the program has imported by itself, and no method of it is called.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import decimal
import enum
import fractions
import io
import pathlib
import sys
import types
import uuid
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["MAKE", "OF_A_CLASS", "TYPES", "class_of", "made_of_a_class", "name_of"]

#: Enums, dataclasses and named tuples: of classes that only their owner has.
OF_A_CLASS = ("enum", "dataclass", "namedtuple")
_FACTORIES = {each.__name__: each for each in (int, float, str, list, dict, set, tuple, bool)}
_PATHS = {each.__name__: each for each in (type(pathlib.Path()), pathlib.PurePosixPath, pathlib.PureWindowsPath)}

Parts = tuple[Any, Any] | None


def _of_array(value: np.ndarray[Any, Any]) -> Parts:
    """A tensor, where torch has the type; the objects of one of objects; bytes otherwise."""
    dtype = value.dtype
    if dtype.hasobject:
        return ([*value.ravel()], ["object", list(value.shape)]) if dtype.fields is None else None
    with suppress(TypeError, ValueError):  # a type, or an order of bytes, that torch has not
        return torch.from_numpy(np.array(value, order="C")), [dtype.str, None]
    data = torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8) if value.size else torch.zeros(0)
    return data, [np.lib.format.dtype_to_descr(dtype), list(value.shape)]


def _to_array(value: Any, more: Any) -> Any:
    named, shape = more
    if named == "object":
        made = np.empty(len(value), dtype=object)
        for i, each in enumerate(value):  # not at once, or lists of one length would be taken for rows
            made[i] = each
        return made.reshape(shape)
    if shape is None:
        return value.detach().cpu().numpy().astype(np.dtype(named), copy=False)
    dtype = np.lib.format.descr_to_dtype(named)
    if dtype.hasobject:
        raise TypeError("bytes are no objects")
    return np.frombuffer(value.cpu().numpy().tobytes(), dtype).reshape(shape).copy()


def _of_scalar(value: np.generic) -> Parts:
    item = value.item()
    if type(item) in (bool, int, float, complex, str):
        return item, value.dtype.str
    made = _of_array(np.asarray(value))
    return None if made is None else (made[0], made[1])


def _to_scalar(value: Any, more: Any) -> Any:
    return np.dtype(more).type(value) if isinstance(more, str) else _to_array(value, more).reshape(())[()]


def _of_config(value: Any) -> Parts:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for resolve in (True, False):
        with suppress(OmegaConfBaseException):
            return OmegaConf.to_container(value, resolve=resolve), None
    return None


def _to_config(value: Any, more: Any) -> Any:
    from omegaconf import OmegaConf

    # What could not be resolved by the program that wrote it is not by the one that reads it; nor is a text parsed.
    return OmegaConf.create(value) if isinstance(value, dict | list) and "${" not in str(value) else value


def _is_config(value: Any, kind: type) -> bool:
    return kind.__module__ in ("omegaconf.dictconfig", "omegaconf.listconfig")


def _of_date(value: Any) -> Parts:
    zone = getattr(value, "tzinfo", None)
    if zone is not None and type(zone) is not datetime.timezone:
        return None
    return value.isoformat(), getattr(value, "fold", 0)


def _to_date(kind: Any) -> Callable[[Any, Any], Any]:
    return lambda value, fold: kind.fromisoformat(value).replace(fold=fold) if fold else kind.fromisoformat(value)


def _is(*kinds: type) -> Callable[[Any, type], bool]:
    return lambda value, kind: kind in kinds


def _is_namedtuple(value: Any, kind: type) -> bool:
    return isinstance(value, tuple) and isinstance(getattr(kind, "_fields", None), tuple)


def _is_dataclass(value: Any, kind: type) -> bool:
    return dataclasses.is_dataclass(kind) and not isinstance(value, nn.Module | dict | list | tuple | Tensor)


def _of_dataclass(value: Any) -> Parts:
    names = [field.name for field in dataclasses.fields(value)]
    if not {*getattr(value, "__dict__", {})} <= {*names}:
        return None  # there is more in it than its fields
    return {name: getattr(value, name) for name in names if hasattr(value, name)}, name_of(type(value))


def _of_enum(value: enum.Enum) -> Parts:
    """The name; of one that is a text or a number as well, that."""
    mixed = isinstance(value, str | int | float) and type(value._value_) in (str, int, float)
    return value._value_ if mixed else value._name_, [name_of(type(value)), value._name_]


def _of_dtype(value: np.dtype[Any]) -> Parts:
    return (value.str, None) if value.isbuiltin == 1 else None


#: A type's name in the file, how it is known, and what of it is written: a value that takes its place, and what else.
TYPES: tuple[tuple[str, Callable[[Any, type], bool], Callable[[Any], Parts]], ...] = (
    ("path", lambda value, kind: kind in _PATHS.values(), lambda value: (str(value), type(value).__name__)),
    ("enum", lambda value, kind: isinstance(value, enum.Enum), _of_enum),
    ("scalar", lambda value, kind: isinstance(value, np.generic), _of_scalar),
    ("array", _is(np.ndarray), _of_array),
    ("dtype", lambda value, kind: isinstance(value, np.dtype), _of_dtype),
    ("config", _is_config, _of_config),
    ("namespace", _is(argparse.Namespace), lambda value: (dict(vars(value)), None)),
    ("simplenamespace", _is(types.SimpleNamespace), lambda value: (dict(vars(value)), None)),
    ("mappingproxy", _is(types.MappingProxyType), lambda value: (dict(value), None)),
    ("defaultdict", lambda value, kind: kind is defaultdict and value.default_factory in (None, *_FACTORIES.values()),
     lambda value: (dict(value), value.default_factory and value.default_factory.__name__)),
    ("deque", _is(deque), lambda value: (list(value), value.maxlen)),
    ("namedtuple", _is_namedtuple, lambda value: (tuple(tuple.__iter__(value)), name_of(type(value)))),
    ("dataclass", _is_dataclass, _of_dataclass),
    ("datetime", _is(datetime.datetime), _of_date),
    ("date", _is(datetime.date), _of_date),
    ("time", _is(datetime.time), _of_date),
    ("timedelta", _is(datetime.timedelta), lambda value: ([value.days, value.seconds, value.microseconds], None)),
    ("timezone", lambda value, kind: kind is datetime.timezone, lambda value: (value.utcoffset(None), None)),
    ("slice", _is(slice), lambda value: ([value.start, value.stop, value.step], None)),
    ("range", _is(range), lambda value: ([value.start, value.stop, value.step], None)),
    ("decimal", _is(decimal.Decimal), lambda value: (str(value), None)),
    ("fraction", _is(fractions.Fraction), lambda value: ([value.numerator, value.denominator], None)),
    ("uuid", _is(uuid.UUID), lambda value: (str(value), None)),
    ("bytesio", _is(io.BytesIO), lambda value: (value.getvalue(), None)),
    ("bytes", lambda value, kind: kind is bytes, lambda value: ("", None)),
    ("int", lambda value, kind: kind is int, lambda value: (hex(value), None)),
    ("generator", _is(torch.Generator), lambda value: (value.get_state(), str(value.device))),
    ("ellipsis", _is(type(...)), lambda value: ("...", None)),
)  # fmt: skip

#: How each is made again, of the value and of what else was written.
MAKE: dict[str, Callable[[Any, Any], Any]] = {
    "text": lambda value, more: value,
    "path": lambda value, more: _PATHS[more](value),
    "scalar": _to_scalar,
    "array": _to_array,
    "dtype": lambda value, more: np.dtype(str(value)),
    "config": _to_config,
    "namespace": lambda value, more: argparse.Namespace(**value),
    "simplenamespace": lambda value, more: types.SimpleNamespace(**value),
    "mappingproxy": lambda value, more: types.MappingProxyType(value),
    "defaultdict": lambda value, more: defaultdict(None if more is None else _FACTORIES[more], value),
    "deque": deque,
    "datetime": _to_date(datetime.datetime),
    "date": _to_date(datetime.date),
    "time": _to_date(datetime.time),
    "timedelta": lambda value, more: datetime.timedelta(*value),
    "timezone": lambda value, more: datetime.timezone(value),
    "slice": lambda value, more: slice(*value),
    "range": lambda value, more: range(*value),
    "decimal": lambda value, more: decimal.Decimal(value),
    "fraction": lambda value, more: fractions.Fraction(*value),
    "uuid": lambda value, more: uuid.UUID(value),
    "bytesio": lambda value, more: io.BytesIO(value),
    "bytes": lambda value, more: b"",
    "int": lambda value, more: int(value, 16),
    "generator": lambda value, more: torch.Generator(more).set_state(value),
    "ellipsis": lambda value, more: ...,
    "set": lambda value, more: set(value),
    "frozenset": lambda value, more: frozenset(value),
    "pairs": lambda value, more: dict(value),
}


def name_of(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def made_of_a_class(kind: str, value: Any, more: Any, packages: frozenset[str]) -> Any:
    """A member of an enum, a dataclass or a named tuple; the value as it is where its class is not at hand."""
    name, member = more if kind == "enum" else (more, "")
    found = class_of(name, packages)
    if found is None:
        return value
    if kind == "enum":
        return found._member_map_.get(member, value) if issubclass(found, enum.Enum) else value
    if kind == "namedtuple":
        fits = issubclass(found, tuple) and len(getattr(found, "_fields", ())) == len(value)
        return tuple.__new__(found, value) if fits else value
    if not dataclasses.is_dataclass(found) or not {*value} <= {field.name for field in dataclasses.fields(found)}:
        return value
    made = object.__new__(found)
    try:
        object.__getattribute__(made, "__dict__").update(value)  # past any method of the class
    except AttributeError:  # it has slots
        for each, part in value.items():
            object.__setattr__(made, each, part)
    return made


def class_of(name: str, packages: frozenset[str]) -> type | None:
    """A class by its name, among what is imported already; nothing is imported or called for it."""
    if name.partition(".")[0] not in packages:
        return None
    words = name.split(".")
    for n in range(len(words) - 1, 0, -1):
        module = sys.modules.get(".".join(words[:n]))
        if module is not None:
            place: Any = module
            for word in words[n:]:
                # Not getattr, which a module may answer by importing.
                place = vars(place).get(word) if isinstance(place, type | types.ModuleType) else None
            return place if isinstance(place, type) else None
    return None

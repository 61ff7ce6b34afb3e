"""The known types of values in a checkpoint: for each, a test, its plain value, and the function that restores it.

No name in a file is imported or called: the functions that restore values are listed in ``DECODERS``. The class of an
enum, a dataclass or a named tuple must be imported by the program already, and none of its methods is called.
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

__all__ = ["DECODERS", "TYPES", "USER_CLASSES", "find_class", "get_class_name", "restore_user_class"]

#: The types whose classes belong to the user.
USER_CLASSES = ("enum", "dataclass", "namedtuple")
_FACTORIES = {each.__name__: each for each in (int, float, str, list, dict, set, tuple, bool)}
_PATHS = {each.__name__: each for each in (type(pathlib.Path()), pathlib.PurePosixPath, pathlib.PureWindowsPath)}

Parts = tuple[Any, Any] | None


def _encode_array(value: np.ndarray[Any, Any]) -> Parts:
    """Return a tensor, if torch has the dtype; the list of an array of objects; otherwise a tensor of the bytes."""
    dtype = value.dtype
    if dtype.hasobject:
        return ([*value.ravel()], ["object", list(value.shape)]) if dtype.fields is None else None
    with suppress(TypeError, ValueError):  # torch does not have the dtype or the byte order
        return torch.from_numpy(np.array(value, order="C")), [dtype.str, None]
    data = torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8) if value.size else torch.zeros(0)
    return data, [np.lib.format.dtype_to_descr(dtype), list(value.shape)]


def _decode_array(value: Any, more: Any) -> Any:
    named, shape = more
    if named == "object":
        made = np.empty(len(value), dtype=object)
        for i, each in enumerate(value):  # one by one: numpy would make rows of lists of equal length
            made[i] = each
        return made.reshape(shape)
    if shape is None:
        return value.detach().cpu().numpy().astype(np.dtype(named), copy=False)
    dtype = np.lib.format.descr_to_dtype(named)
    if dtype.hasobject:
        raise TypeError("bytes cannot be converted to objects")
    return np.frombuffer(value.cpu().numpy().tobytes(), dtype).reshape(shape).copy()


def _encode_scalar(value: np.generic) -> Parts:
    item = value.item()
    if type(item) in (bool, int, float, complex, str):
        return item, value.dtype.str
    made = _encode_array(np.asarray(value))
    return None if made is None else (made[0], made[1])


def _decode_scalar(value: Any, more: Any) -> Any:
    return np.dtype(more).type(value) if isinstance(more, str) else _decode_array(value, more).reshape(())[()]


def _encode_config(value: Any) -> Parts:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for resolve in (True, False):
        with suppress(OmegaConfBaseException):
            return OmegaConf.to_container(value, resolve=resolve), None
    return None


def _decode_config(value: Any, more: Any) -> Any:
    from omegaconf import OmegaConf

    # An interpolation that the writing program could not resolve is not resolved here, and no text is parsed.
    return OmegaConf.create(value) if isinstance(value, dict | list) and "${" not in str(value) else value


def _is_config(value: Any, kind: type) -> bool:
    return kind.__module__ in ("omegaconf.dictconfig", "omegaconf.listconfig")


def _encode_date(value: Any) -> Parts:
    zone = getattr(value, "tzinfo", None)
    if zone is not None and type(zone) is not datetime.timezone:
        return None
    return value.isoformat(), getattr(value, "fold", 0)


def _make_date_decoder(kind: Any) -> Callable[[Any, Any], Any]:
    return lambda value, fold: kind.fromisoformat(value).replace(fold=fold) if fold else kind.fromisoformat(value)


def _has_type(*kinds: type) -> Callable[[Any, type], bool]:
    return lambda value, kind: kind in kinds


def _is_namedtuple(value: Any, kind: type) -> bool:
    return isinstance(value, tuple) and isinstance(getattr(kind, "_fields", None), tuple)


def _is_dataclass(value: Any, kind: type) -> bool:
    return dataclasses.is_dataclass(kind) and not isinstance(value, nn.Module | dict | list | tuple | Tensor)


def _encode_dataclass(value: Any) -> Parts:
    names = [field.name for field in dataclasses.fields(value)]
    if not {*getattr(value, "__dict__", {})} <= {*names}:
        return None  # it has attributes beside its fields
    return {name: getattr(value, name) for name in names if hasattr(value, name)}, get_class_name(type(value))


def _encode_enum(value: enum.Enum) -> Parts:
    """Return the name of a member; its value if the enum is a string or a number too."""
    mixed = isinstance(value, str | int | float) and type(value._value_) in (str, int, float)
    return value._value_ if mixed else value._name_, [get_class_name(type(value)), value._name_]


def _encode_dtype(value: np.dtype[Any]) -> Parts:
    return (value.str, None) if value.isbuiltin == 1 else None


#: The name of a type in the file, a test for it, and a function that returns the plain value and other data.
TYPES: tuple[tuple[str, Callable[[Any, type], bool], Callable[[Any], Parts]], ...] = (
    ("path", lambda value, kind: kind in _PATHS.values(), lambda value: (str(value), type(value).__name__)),
    ("enum", lambda value, kind: isinstance(value, enum.Enum), _encode_enum),
    ("scalar", lambda value, kind: isinstance(value, np.generic), _encode_scalar),
    ("array", _has_type(np.ndarray), _encode_array),
    ("dtype", lambda value, kind: isinstance(value, np.dtype), _encode_dtype),
    ("config", _is_config, _encode_config),
    ("namespace", _has_type(argparse.Namespace), lambda value: (dict(vars(value)), None)),
    ("simplenamespace", _has_type(types.SimpleNamespace), lambda value: (dict(vars(value)), None)),
    ("mappingproxy", _has_type(types.MappingProxyType), lambda value: (dict(value), None)),
    ("defaultdict", lambda value, kind: kind is defaultdict and value.default_factory in (None, *_FACTORIES.values()),
     lambda value: (dict(value), value.default_factory and value.default_factory.__name__)),
    ("deque", _has_type(deque), lambda value: (list(value), value.maxlen)),
    ("namedtuple", _is_namedtuple, lambda value: (tuple(tuple.__iter__(value)), get_class_name(type(value)))),
    ("dataclass", _is_dataclass, _encode_dataclass),
    ("datetime", _has_type(datetime.datetime), _encode_date),
    ("date", _has_type(datetime.date), _encode_date),
    ("time", _has_type(datetime.time), _encode_date),
    ("timedelta", _has_type(datetime.timedelta), lambda value: ([value.days, value.seconds, value.microseconds], None)),
    ("timezone", lambda value, kind: kind is datetime.timezone, lambda value: (value.utcoffset(None), None)),
    ("slice", _has_type(slice), lambda value: ([value.start, value.stop, value.step], None)),
    ("range", _has_type(range), lambda value: ([value.start, value.stop, value.step], None)),
    ("decimal", _has_type(decimal.Decimal), lambda value: (str(value), None)),
    ("fraction", _has_type(fractions.Fraction), lambda value: ([value.numerator, value.denominator], None)),
    ("uuid", _has_type(uuid.UUID), lambda value: (str(value), None)),
    ("bytesio", _has_type(io.BytesIO), lambda value: (value.getvalue(), None)),
    ("bytes", lambda value, kind: kind is bytes, lambda value: ("", None)),
    ("int", lambda value, kind: kind is int, lambda value: (hex(value), None)),
    ("generator", _has_type(torch.Generator), lambda value: (value.get_state(), str(value.device))),
    ("ellipsis", _has_type(type(...)), lambda value: ("...", None)),
)  # fmt: skip

#: The name of a type -> the function that restores a value from the plain value and the other data.
DECODERS: dict[str, Callable[[Any, Any], Any]] = {
    "text": lambda value, more: value,
    "path": lambda value, more: _PATHS[more](value),
    "scalar": _decode_scalar,
    "array": _decode_array,
    "dtype": lambda value, more: np.dtype(str(value)),
    "config": _decode_config,
    "namespace": lambda value, more: argparse.Namespace(**value),
    "simplenamespace": lambda value, more: types.SimpleNamespace(**value),
    "mappingproxy": lambda value, more: types.MappingProxyType(value),
    "defaultdict": lambda value, more: defaultdict(None if more is None else _FACTORIES[more], value),
    "deque": deque,
    "datetime": _make_date_decoder(datetime.datetime),
    "date": _make_date_decoder(datetime.date),
    "time": _make_date_decoder(datetime.time),
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


def get_class_name(kind: type) -> str:
    """Return the qualified name of a class."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def restore_user_class(kind: str, value: Any, more: Any, packages: frozenset[str]) -> Any:
    """Return the member of an enum, the dataclass or the named tuple; the plain value if its class is not imported."""
    name, member = more if kind == "enum" else (more, "")
    found = find_class(name, packages)
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
        object.__getattribute__(made, "__dict__").update(value)  # without calling a method of the class
    except AttributeError:  # the class has slots
        for each, part in value.items():
            object.__setattr__(made, each, part)
    return made


def find_class(name: str, packages: frozenset[str]) -> type | None:
    """Return a class by its name, from the imported modules; None if none has it. Imports and calls nothing."""
    if name.partition(".")[0] not in packages:
        return None
    words = name.split(".")
    for n in range(len(words) - 1, 0, -1):
        module = sys.modules.get(".".join(words[:n]))
        if module is not None:
            place: Any = module
            for word in words[n:]:
                # Not getattr: a module may import something in its __getattr__.
                place = vars(place).get(word) if isinstance(place, type | types.ModuleType) else None
            return place if isinstance(place, type) else None
    return None

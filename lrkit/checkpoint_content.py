"""What a checkpoint holds, as data that ``torch.load(weights_only=True)`` reads: made so before it is written.

A module, its data and its callbacks may put anything into a checkpoint, by ``save_hyperparameters`` and by
``on_save_checkpoint``. Pickle writes nearly all of it, and refuses to read most of it again without executing it. So:

    plain        numbers, texts, lists, dicts, tensors, ...: what the reader knows by itself is left as it is
    of a type    paths, numpy's values, dates, DictConfig, ...: plain values in their place, and a note of which type
                 it was; ``restored`` makes them again, by a constructor named here, never by one that the file names
    apart        objects, classes, functions: a text in their place, and the tensors in them beside it

Enums, dataclasses and named tuples are of a type too, but their classes are somebody's: they are made again where the
class is found among what the program has imported by itself, in a package that the caller names, and without calling
anything of it. Otherwise the plain values stay.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import pathlib
import sys
import types
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

__all__ = ["KEY", "Content", "plain", "readable", "restored"]

#: Where a checkpoint says what was of a type, and keeps what is apart.
KEY = "lrkit.content"

DEPTH = 100  #: levels of containers; what is deeper becomes text, for pickle recurs
TEXT = 500  #: characters of a text that stands for an object
NODES = 10_000  #: of the objects in an object that are looked at for tensors
REPEATS = 1_000  #: of things that are not plain data: what comes more often becomes text

_NOTED = object()

#: Read as they are, whatever their value; but of integers those of at most 255 bytes.
ATOMS = frozenset({
    type(None), bool, float, complex, str, bytearray, torch.dtype, torch.device, torch.Size, torch.layout,
    torch.UntypedStorage, torch.TypedStorage,
})  # fmt: skip
_ATOMS_OR_INT = ATOMS | {int}
_INT_BITS = 2039
_TENSORS = (Tensor, nn.Parameter)
_CONTAINERS = (list, tuple, dict, set, frozenset, OrderedDict)

Path = tuple[Any, ...]


class Apart(NamedTuple):
    """Something that is read back as another type than it was.

    Args:
        at: the keys and positions that lead to it.
        what: its type, in words.
        again: whether ``restored`` makes it again all the same, for its class is at hand.
    """

    at: Path
    what: str
    again: bool = False

    @property
    def name(self) -> str:
        """Where it is, as one would write it."""
        return ".".join(map(str, self.at))


@dataclasses.dataclass
class Content:
    """A checkpoint that can be read.

    Args:
        checkpoint: what to write.
        apart: what is not of its type in the file.
    """

    checkpoint: dict[str, Any]
    apart: list[Apart]


def plain(checkpoint: Mapping[str, Any], leave_out: Collection[Path] = (), packages: Collection[str] = ()) -> Content:
    """The same checkpoint as plain data. Nothing in it is changed; what need not be copied is not.

    Args:
        checkpoint: what is to be written.
        leave_out: places where a missing value is better than a text: arguments that must be given.
        packages: whose classes ``restored`` will make again.

    >>> made = plain({"hyper_parameters": {"width": np.int64(8), "folder": pathlib.Path("a/b"), "act": torch.relu}})
    >>> made.checkpoint["hyper_parameters"]["width"], made.checkpoint["hyper_parameters"]["folder"]
    (8, 'a/b')
    >>> [each.name for each in made.apart]
    ['hyper_parameters.act']
    >>> type(restored(made.checkpoint)["hyper_parameters"]["width"]).__name__
    'int64'
    """
    walk = _Walk(frozenset(packages))
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


def restored(checkpoint: Any, packages: Collection[str] = ()) -> Any:
    """A checkpoint as it was before ``plain``, as far as can be; ``checkpoint`` itself is changed.

    Args:
        checkpoint: what was read.
        packages: whose enums, dataclasses and named tuples may be made again.

    What a file says of itself that cannot be is passed over: the plain value stays.
    """
    notes = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(notes, dict):
        return checkpoint
    tree: dict[Any, Any] = {}
    with suppress(Exception):  # whatever a file that says nonsense provokes
        for at, value in notes["left_out"]:
            functools.reduce(lambda place, step: place[step], at[:-1], checkpoint)[at[-1]] = value
        for at, kind, more in notes["types"]:
            node = functools.reduce(lambda node, step: node.setdefault(step, {}), at, tree)
            node.setdefault(_HERE, []).append((kind, more))
    return _restored(checkpoint, tree, frozenset(packages), 0)


def readable(checkpoint: Mapping[str, Any]) -> str:
    """What of a checkpoint the reader refuses, as a name; an empty string where it reads all. Tensors are left out.

    A part is written to memory and read back, so that it is the reader who says it.
    """
    if _reads(_skeleton(checkpoint)):
        return ""

    def look(value: Any, at: Path) -> Path:
        if isinstance(value, dict) and len(at) < DEPTH:
            for name, part in value.items():
                if not _reads(part):
                    return look(part, (*at, name))
        if isinstance(value, (list, tuple)) and len(at) < DEPTH:
            for i, part in enumerate(value):
                if not _reads(part):
                    return look(part, (*at, i))
        return at

    return ".".join(map(str, look(_skeleton(checkpoint), ()))) or "its content"


# --- before writing ----------------------------------------------------------------------------------------------


class _Walk:
    """One way through a checkpoint: makes plain values, and takes down types, texts and tensors on the way."""

    def __init__(self, packages: frozenset[str] = frozenset()) -> None:
        self.packages = packages
        self.again = 0  # how often something with notes was met again: each time is another way through it
        self.types: list[list[Any]] = []  # [where, which type, what else it takes], the inner before the outer
        self.apart: list[Apart] = []
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
        for name, fits, parts in _TYPES:
            if fits(value, kind):
                made = None
                with suppress(Exception):  # of a stranger's attributes
                    made = parts(value)
                if made is None:
                    break
                inner, more = made
                found = self.of(inner, at) if not isinstance(inner, Tensor) else inner
                self.types.append([list(at), name, more])
                if name in _OF_A_CLASS:
                    again = _class(_name(kind), self.packages) is kind
                    self.apart.append(Apart(at, f"{_name(kind)}, as {type(found).__name__}", again))
                return found
        for base in (str, int, float, bytes, dict, list, tuple, set):
            if isinstance(value, base) and not isinstance(value, enum.Enum):
                self.apart.append(Apart(at, f"{_name(kind)}, as {base.__name__}"))
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
        if kind is not dict and vars(value) and _Walk().of(vars(value), ()) is not vars(value):
            return self._dict({**value}, dict, at)  # what hangs on a dict is not of it
        made = {key: self.of(each, (*at, key)) for key, each in value.items()}
        if all(made[key] is each for key, each in value.items()):
            return value
        return made if kind is dict else _like(kind(made), value)

    def _keyed(self, value: Mapping[Any, Any], at: Path) -> Any:
        """A dict with keys that are not plain: with plain ones, where they differ; otherwise a list of pairs."""
        keys = _Walk(self.packages)
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
        walked = _Walk(self.packages)
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
        if kind in _TENSORS:
            more = value.__dict__
            if not more or _Walk().of(more, ()) is more:
                return value
            bare = value.detach()  # what hangs on a tensor is not of it
            return bare if kind is Tensor else nn.Parameter(bare, value.requires_grad)
        if _is_wrapper(value):
            return value  # made of other tensors: the reader knows it, or says that it does not
        self.apart.append(Apart(at, f"{_name(kind)}, as Tensor"))
        return value.detach().as_subclass(Tensor)

    def _text(self, value: Any, at: Path, *, look: bool = True) -> str:
        self.apart.append(Apart(at, _described(value)))
        self.types.append([list(at), "text", None])
        if look:
            found = dict(_tensors_in(value))
            if found:
                self.tensors.append((at, found))
        return _text(value)


def _is_wrapper(value: Any) -> bool:
    """Whether a tensor is made of others."""
    return bool(is_traceable_wrapper_subclass(value))


def _text(value: Any) -> str:
    what = _described(value)
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"<not plain data: {what}>"
    try:
        # Of a container that is met too often or too deep, there may be no end to it.
        said = "" if type(value) in _CONTAINERS else repr(value)
    except Exception:  # of a stranger's method
        said = ""
    said = "" if " at 0x" in said else said[:TEXT]
    return f"<not plain data: {what}{': ' if said else ''}{said}>"


def _described(value: Any) -> str:
    if isinstance(value, type):
        return f"class {_name(value)}"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"function {getattr(value, '__module__', None) or 'builtins'}.{value.__qualname__}"
    return _name(type(value))


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _tensors_in(value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors in an object, by where they are."""
    seen: set[int] = set()
    waiting: deque[tuple[str, Any]] = deque([("", value)])
    while waiting and len(seen) < NODES:
        name, each = waiting.popleft()
        if id(each) in seen or isinstance(each, type | types.ModuleType | str | bytes | int | float):
            continue
        seen.add(id(each))
        if isinstance(each, Tensor):
            if not is_lazy(each):
                bare = each.detach()
                yield name, bare if _is_wrapper(bare) else bare.as_subclass(Tensor)
        elif isinstance(each, np.ndarray | np.generic):
            with suppress(TypeError, ValueError):
                yield name, torch.from_numpy(np.array(each))
        else:
            waiting.extend((f"{name}.{key}" if name else str(key), part) for key, part in _parts(each))


def _parts(value: Any) -> Iterable[tuple[Any, Any]]:
    """What an object is made of: names, or positions, and values."""
    if isinstance(value, nn.Module):
        return [*value.named_parameters(), *value.named_buffers()]
    if isinstance(value, Mapping):
        with suppress(Exception):  # of a stranger's mapping
            return [*value.items()]
        return []
    if isinstance(value, list | tuple | set | frozenset | deque):
        return enumerate(value)
    if isinstance(value, functools.partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    if isinstance(value, types.MethodType):
        return [("self", value.__self__)]
    slots = [name for kind in type(value).__mro__ for name in kind.__dict__.get("__slots__", ())]
    held = [(name, getattr(value, name)) for name in slots if isinstance(name, str) and hasattr(value, name)]
    return [*getattr(value, "__dict__", {}).items(), *held]


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


# --- types -------------------------------------------------------------------------------------------------------

#: Enums, dataclasses and named tuples: of classes that only their owner has.
_OF_A_CLASS = ("enum", "dataclass", "namedtuple")
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
        made[:] = value
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
    return {name: getattr(value, name) for name in names if hasattr(value, name)}, _name(type(value))


def _of_enum(value: enum.Enum) -> Parts:
    """The name; of one that is a text or a number as well, that."""
    mixed = isinstance(value, str | int | float) and type(value._value_) in (str, int, float)
    return value._value_ if mixed else value._name_, [_name(type(value)), value._name_]


def _of_dtype(value: np.dtype[Any]) -> Parts:
    return (value.str, None) if value.isbuiltin == 1 else None


#: A type's name in the file, how it is known, and what of it is written: a value that takes its place, and what else.
_TYPES: tuple[tuple[str, Callable[[Any, type], bool], Callable[[Any], Parts]], ...] = (
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
    ("namedtuple", _is_namedtuple, lambda value: (tuple(tuple.__iter__(value)), _name(type(value)))),
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
_MAKE: dict[str, Callable[[Any, Any], Any]] = {
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


# --- after reading -----------------------------------------------------------------------------------------------

_HERE = object()


def _restored(value: Any, node: Mapping[Any, Any], packages: frozenset[str], depth: int) -> Any:
    """The value with what the notes say of it and of its parts; the inner first."""
    for step, inner in node.items():
        if step is _HERE or depth > 2 * DEPTH:
            continue
        with suppress(Exception):
            new = _restored(value[step], inner, packages, depth + 1)
            if new is value[step]:
                continue
            if isinstance(value, tuple):
                value = (*value[:step], new, *value[step + 1 :])
            else:
                value[step] = new
    for kind, more in node.get(_HERE, ()):
        with suppress(Exception):
            if kind == "keys":
                value = _with_keys(value, more[0], more[1], packages)
            else:
                value = _of_a_class(kind, value, more, packages) if kind in _OF_A_CLASS else _MAKE[kind](value, more)
    return value


def _with_keys(value: dict[Any, Any], keys: list[Any], notes: list[Any], packages: frozenset[str]) -> dict[Any, Any]:
    notes = [[["keys", *at], *rest] for at, *rest in notes]
    made = restored({"keys": keys, KEY: {"types": notes, "left_out": []}}, packages)["keys"]
    return dict(zip(made, value.values(), strict=True))


def _of_a_class(kind: str, value: Any, more: Any, packages: frozenset[str]) -> Any:
    """A member of an enum, a dataclass or a named tuple; the value as it is where its class is not at hand."""
    name, member = more if kind == "enum" else (more, "")
    found = _class(name, packages)
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


def _class(name: str, packages: frozenset[str]) -> type | None:
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


# --- the reader --------------------------------------------------------------------------------------------------


def _reads(part: Any) -> bool:
    stream = io.BytesIO()
    try:
        torch.save(part, stream)
        stream.seek(0)
        torch.load(stream, weights_only=True, map_location="cpu")
    except Exception:
        return False
    return True


def _skeleton(value: Any, depth: int = 0) -> Any:
    """The same, without the tensors that the reader knows anyway, which would take it longest."""
    if type(value) in _TENSORS:
        return None
    if depth > 2 * DEPTH:
        return value
    if type(value) in (dict, OrderedDict):
        return {key: _skeleton(each, depth + 1) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_skeleton(each, depth + 1) for each in value)
    return value

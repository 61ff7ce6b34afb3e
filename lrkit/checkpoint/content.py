"""What a checkpoint holds, as data that ``torch.load(weights_only=True)`` reads: made so before it is written.

A module, its data and its callbacks may put anything into a checkpoint, by ``save_hyperparameters`` and by
``on_save_checkpoint``. Pickle writes nearly all of it, and refuses to read most of it again without executing it. So:

    plain        numbers, texts, lists, dicts, tensors, ...: what the reader knows by itself is left as it is
    of a type    paths, numpy's values, dates, DictConfig, ...: plain values in their place, and a note of which type
                 it was; ``from_plain_data`` makes them again, by a constructor named here, never by one that the file
                 names
    apart        objects, classes, functions: a text in their place, and the tensors in them beside it

Enums, dataclasses and named tuples are of a type too, but their classes are somebody's: they are made again where the
class is found among what the program has imported by itself, in a package that the caller names, and without calling
anything of it. Otherwise the plain values stay.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import io
import types
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from lrkit.checkpoint.value_types import MAKE, OF_A_CLASS, TYPES, class_of, made_of_a_class, name_of

__all__ = ["KEY", "Content", "Path", "find_unreadable", "from_plain_data", "is_text_of", "to_plain_data"]

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


class Replaced(NamedTuple):
    """Something that is read back as another type than it was.

    Args:
        at: the keys and positions that lead to it.
        what: its type, in words.
        again: whether ``from_plain_data`` makes it again all the same, for its class is at hand.
        text: what stands for it, where that is a text.
    """

    at: Path
    what: str
    again: bool = False
    text: str = ""

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
    apart: list[Replaced]


def to_plain_data(
    checkpoint: Mapping[str, Any], leave_out: Collection[Path] = (), packages: Collection[str] = ()
) -> Content:
    """The same checkpoint as plain data. Nothing in it is changed; what need not be copied is not.

    Args:
        checkpoint: what is to be written.
        leave_out: places where a missing value is better than a text: arguments that must be given.
        packages: whose classes ``from_plain_data`` will make again.

    >>> import pathlib
    >>> values = {"width": np.int64(8), "folder": pathlib.Path("a/b"), "act": torch.relu}
    >>> made = to_plain_data({"hyper_parameters": values})
    >>> made.checkpoint["hyper_parameters"]["width"], made.checkpoint["hyper_parameters"]["folder"]
    (8, 'a/b')
    >>> [each.name for each in made.apart]
    ['hyper_parameters.act']
    >>> type(from_plain_data(made.checkpoint)["hyper_parameters"]["width"]).__name__
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


def from_plain_data(
    checkpoint: Any, packages: Collection[str] = (), live: Callable[[Path, Any], tuple[Any] | None] | None = None
) -> Any:
    """A checkpoint as it was before ``to_plain_data``, as far as can be; ``checkpoint`` itself is changed.

    Args:
        checkpoint: what was read.
        packages: whose enums, dataclasses and named tuples may be made again.
        live: shown where a text stands for an object, and the text; the object to have there, in a tuple, or None.

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
            if kind == "text" and live is not None:
                found = None
                with suppress(LookupError, TypeError):  # of a place that there is not
                    found = live(tuple(at), functools.reduce(lambda place, step: place[step], at, checkpoint))
                kind, more = (_LIVE, found[0]) if found is not None else (kind, more)
            node.setdefault(_HERE, []).append((kind, more))
    return _restored(checkpoint, tree, frozenset(packages), 0)


def find_unreadable(checkpoint: Mapping[str, Any]) -> str:
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
                with suppress(Exception):  # of a stranger's attributes
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
        self.apart.append(Replaced(at, f"{name_of(kind)}, as Tensor"))
        return value.detach().as_subclass(Tensor)

    def _text(self, value: Any, at: Path, *, look: bool = True) -> str:
        text = _text(value)
        self.apart.append(Replaced(at, _described(value), text=text))
        self.types.append([list(at), "text", None])
        if look:
            found = dict(_tensors_in(value))
            if found:
                self.tensors.append((at, found))
        return text


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


def is_text_of(text: Any, value: Any) -> bool:
    """Whether a text is one that stands for an object such as this: of the same type, or the same class or function.

    >>> made = to_plain_data({"loss": nn.MSELoss()}).checkpoint
    >>> is_text_of(made["loss"], nn.MSELoss()), is_text_of(made["loss"], nn.L1Loss())
    (True, False)
    """
    begins = f"<not plain data: {_described(value)}"
    return isinstance(text, str) and text.startswith((f"{begins}>", f"{begins}: "))


def _described(value: Any) -> str:
    if isinstance(value, type):
        return f"class {name_of(value)}"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"function {getattr(value, '__module__', None) or 'builtins'}.{value.__qualname__}"
    return name_of(type(value))


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


# --- after reading -----------------------------------------------------------------------------------------------

_HERE = object()
_LIVE = object()  #: no file can say that


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
            if kind is _LIVE:
                value = more
            elif kind == "keys":
                value = _with_keys(value, more[0], more[1], packages)
            else:
                value = made_of_a_class(kind, value, more, packages) if kind in OF_A_CLASS else MAKE[kind](value, more)
    return value


def _with_keys(value: dict[Any, Any], keys: list[Any], notes: list[Any], packages: frozenset[str]) -> dict[Any, Any]:
    notes = [[["keys", *at], *rest] for at, *rest in notes]
    made = from_plain_data({"keys": keys, KEY: {"types": notes, "left_out": []}}, packages)["keys"]
    return dict(zip(made, value.values(), strict=True))


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

"""Objects in a checkpoint: readable without execution, and restored to an equal object where possible."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import math
import pathlib
import sys
import types
import uuid
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from lrkit.checkpoint.plain_data_decoder import from_plain_data
from lrkit.checkpoint.plain_data_encoder import to_plain_data
from lrkit.checkpoint.plain_data_format import DEPTH, KEY, Content
from lrkit.checkpoint.weights_only_check import find_unreadable

HERE = {__name__.partition(".")[0]}


class Mode(enum.Enum):
    FAST = 1


class Kind(enum.StrEnum):
    BIG = "big"


@dataclasses.dataclass(frozen=True)
class State:
    count: int
    mean: torch.Tensor
    where: pathlib.Path = pathlib.Path("a")


class Pair(NamedTuple):
    first: int
    second: Any


class Text(str):
    pass


class Holder:
    __slots__ = ("more", "weights")

    def __init__(self) -> None:
        self.weights = torch.arange(3.0)
        self.more = {"deep": [np.arange(2.0)]}


def written(value: Any, **more: Any) -> tuple[Content, Any]:
    """Return a value after saving and loading, and its form in the file."""
    content = to_plain_data({"x": value}, **more)
    stream = io.BytesIO()
    torch.save(content.checkpoint, stream)
    stream.seek(0)
    return content, torch.load(stream, weights_only=True)


def again(value: Any, packages: set[str] | None = None) -> Any:
    return from_plain_data(written(value)[1], HERE if packages is None else packages)["x"]


def alike(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        same = one.dtype == other.dtype and one.shape == other.shape
        return same and all(alike(a, b) for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True))
    if isinstance(one, dict):
        return [*map(repr, one)] == [*map(repr, other)] and all(
            alike(a, b) for a, b in zip(one.values(), other.values(), strict=True)
        )
    if isinstance(one, list | tuple | collections.deque):
        return len(one) == len(other) and all(alike(a, b) for a, b in zip(one, other, strict=True))
    if dataclasses.is_dataclass(one) or isinstance(one, argparse.Namespace | types.SimpleNamespace):
        return alike(vars(one), vars(other))
    if isinstance(one, io.BytesIO):
        return one.getvalue() == other.getvalue()
    if isinstance(one, torch.Generator):
        return torch.equal(one.get_state(), other.get_state())
    return bool(one == other) or (one != one and other != other)


UTC = datetime.timezone(datetime.timedelta(hours=2))
PLAIN: list[Any] = [
    None, True, 7, -(1 << 2038), 1.5, math.nan, 1j, "é\ud800", b"x", bytearray(b""), bytearray(b"x"), (), [1, [2]], {},
    {"a": (1, None)}, {1, 2}, collections.OrderedDict(a=1), collections.Counter("aab"), torch.arange(3), torch.float16,
    torch.device("cpu"), torch.Size([2, 3]), torch.strided, {1: "a", None: 2, 1.5: 3, False: 4},
    nn.Parameter(torch.ones(2)), torch.ones(2, dtype=torch.bfloat16), {(1, "a"): 2},
]  # fmt: skip
TYPED: list[Any] = [
    pathlib.Path("a/b"), pathlib.PureWindowsPath("c:/d"), np.float64(0.1), np.float32(0.1), np.int8(-3), np.bool_(True),
    np.complex64(1 + 2j), np.longdouble(1) / 3, np.str_("a"), np.bytes_(b"a"), np.datetime64("2026-01-02T03"),
    np.timedelta64(5, "m"), np.arange(6.0).reshape(2, 3), np.arange(6)[::-2], np.array(3, dtype=np.int16),
    np.zeros((0, 2)),
    np.array(["a", "bc"]), np.array([b"a"]), np.array([1.5, np.nan], dtype=np.longdouble), np.arange(3, dtype=">i4"),
    np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]), np.array([{"a": pathlib.Path("b")}, None], dtype=object),
    np.array(["2026-01-02"], dtype="datetime64[D]"), np.zeros((0, 3), dtype="U4"), np.dtype("float32"),
    slice(1, None, 2),
    range(1, 9, 3), frozenset({1, pathlib.Path("a")}), {pathlib.Path("a"), 2}, collections.defaultdict(list, a=[1]),
    collections.deque([1, np.int64(2)], maxlen=3), argparse.Namespace(a=1, b=pathlib.Path("c")),
    types.SimpleNamespace(a=np.float64(1)), types.MappingProxyType({"a": 1}), datetime.datetime(2026, 1, 2, 3, fold=1),
    datetime.datetime(2026, 1, 2, tzinfo=UTC), datetime.date(2026, 1, 2), datetime.time(3, 4), UTC,
    datetime.timedelta(days=-1, microseconds=3), decimal.Decimal("1.10"), fractions.Fraction(1, 3), uuid.UUID(int=5),
    io.BytesIO(b"abc"), b"", 1 << 5000, -(1 << 2039), ..., torch.Generator().manual_seed(3),
    {np.int64(3): "a", pathlib.Path("p"): np.float32(2)}, {frozenset({1}): {"b": np.arange(2)}}, {(1, np.int64(2)): 3},
    Mode.FAST, Kind.BIG, State(1, torch.ones(2), pathlib.Path("c")), Pair(1, pathlib.Path("d")),
    [({"a": (pathlib.Path("b"), 1)}, np.float64(2))], collections.OrderedDict(a=np.float64(2)),
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_what_is_plain_is_left_as_it_is(value: Any) -> None:
    content, read = written(value)
    assert content.checkpoint["x"] is value or content.checkpoint["x"] == value
    assert KEY not in content.checkpoint and not content.replaced and alike(read["x"], value)


def test_an_array_of_lists_is_one_again() -> None:
    value = np.empty(2, dtype=object)
    value[0], value[1] = [1, np.int64(2)], [3, 4]
    assert again(value).shape == (2,) and alike(again(value)[0], value[0]) and again(value)[1] == [3, 4]


@pytest.mark.parametrize("value", TYPED, ids=lambda value: f"{type(value).__module__}.{type(value).__name__}")
def test_what_is_of_a_type_is_of_it_again(value: Any) -> None:
    assert alike(again(value), value) and not any(
        not each.again for each in to_plain_data({"x": value}, packages=HERE).replaced
    )


@pytest.mark.parametrize("value", [
    OmegaConf.create({"lr": 0.1, "net": {"width": [1, 2]}}), OmegaConf.create([1, {"a": None}]),
    OmegaConf.create({"lr": 0.1, "twice": "${lr}"}), OmegaConf.create({}),
], ids=str)  # fmt: skip
def test_a_config_is_one_again_and_resolved(value: Any) -> None:
    made = again({"deep": [value]})["deep"][0]
    assert type(made) is type(value) and made == value and "${" not in str(made)


def test_an_interpolation_that_cannot_be_resolved_stays_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LRKIT_SECRET", raising=False)
    made = again(OmegaConf.create({"secret": "${oc.env:LRKIT_SECRET}"}))
    monkeypatch.setenv("LRKIT_SECRET", "told")
    assert made == {"secret": "${oc.env:LRKIT_SECRET}"} and type(made) is dict


@pytest.mark.parametrize("value", [Mode.FAST, State(1, torch.ones(2)), Pair(1, pathlib.Path("d"))], ids=repr)
def test_classes_of_others_are_found_but_never_imported(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {each.name for each in to_plain_data({"x": value}).replaced}
    assert named == {"x"} and type(again(value, set())) in (str, dict, tuple)
    _, read = written(value)
    monkeypatch.delitem(sys.modules, __name__)
    assert type(from_plain_data(read, HERE)["x"]) in (str, dict, tuple) and __name__ not in sys.modules


@pytest.mark.parametrize(("value", "says"), [
    (torch.relu, "function"), (nn.ReLU, "class torch.nn.modules.activation.ReLU"), (nn.ReLU(), "ReLU()"),
    (functools.partial(torch.optim.SGD, lr=0.1), "lr=0.1"), (lambda: 1, "<lambda>"), (Holder(), "Holder"),
    (sys, "module"), (np.random.default_rng(0), "Generator"), (object(), "object"), (NotImplemented, "NotImplemented"),
    (nn.parameter.UninitializedParameter(), "UninitializedParameter"), (torch.channels_last, "memory_format"),
    (collections.defaultdict(lambda: 1, a=2), ""), (Text("t"), ""), (State, "class"),
    (torch.finfo(torch.float32), "finfo"),
], ids=lambda value: type(value).__name__)  # fmt: skip
def test_what_is_neither_is_text_and_told(value: Any, says: str) -> None:
    content, read = written({"deep": [value]})
    made = read["x"]["deep"][0]
    assert says in str(made) and len(str(made)) < 700 and type(made) in (str, dict)
    assert [each.name for each in content.replaced] == ["x.deep.0"] and not content.replaced[0].again
    assert alike(from_plain_data(read, HERE)["x"]["deep"][0], made)


def test_tensors_in_objects_are_kept() -> None:
    net = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    bound = functools.partial(torch.add, torch.arange(2.0), alpha=[torch.tensor(3.0)])
    _, read = written([net, bound, Holder(), net.forward])
    kept = {tuple(at): found for at, found in read[KEY]["tensors"]}
    assert kept["x", 0].keys() == dict(net.named_parameters()).keys() | dict(net.named_buffers()).keys()
    assert torch.equal(kept["x", 0]["0.weight"], net[0].weight)
    assert torch.equal(kept["x", 1]["args.0"], torch.arange(2.0)) and kept["x", 1]["keywords.alpha.0"] == 3.0
    assert torch.equal(kept["x", 2]["weights"], torch.arange(3.0)) and len(kept["x", 2]["more.deep.0"]) == 2
    assert torch.equal(kept["x", 3]["self.0.weight"], net[0].weight)


def test_weights_that_are_in_the_file_take_no_place_twice() -> None:
    net = nn.Linear(300, 300)
    sizes = []
    for value in (None, net):
        stream = io.BytesIO()
        torch.save(
            to_plain_data({"state_dict": net.state_dict(), "hyper_parameters": {"net": value}}).checkpoint, stream
        )
        sizes.append(stream.tell())
    assert sizes[1] < sizes[0] + 5_000


def test_tensors_of_a_kind_of_their_own_become_tensors() -> None:
    class Marked(torch.Tensor):
        pass

    made = again(torch.ones(2).as_subclass(Marked))
    assert type(made) is torch.Tensor and torch.equal(made, torch.ones(2))
    hung, parameter = torch.ones(2), nn.Parameter(torch.ones(2))
    hung.owner = parameter.owner = object()  # type: ignore[attr-defined]
    assert alike(again([hung, parameter]), [torch.ones(2), nn.Parameter(torch.ones(2))])


def test_what_hangs_on_a_state_dict_stays_if_it_can() -> None:
    state = nn.BatchNorm1d(2).state_dict()
    assert again(state)._metadata == state._metadata
    state["extra"] = np.float64(1)
    assert again(state)._metadata == state._metadata and alike(again(state)["extra"], np.float64(1))
    state.owner = object()
    assert again(state).keys() == state.keys()


def test_what_contains_itself_or_is_deep_ends() -> None:
    ring: list[Any] = [1]
    ring.append({"again": ring})
    assert again(ring)[0] == 1
    deep: Any = [torch.arange(4.0)]
    for _ in range(5 * DEPTH):
        deep = [deep]
    content, read = written(deep)
    assert len(content.replaced) == 1
    ((_, found),) = read[KEY]["tensors"]
    assert torch.equal(next(iter(found.values())), torch.arange(4.0))
    twice: Any = pathlib.Path("a")
    for _ in range(60):  # 2**60 ways to the same leaf
        twice = [twice, twice]
    written(twice)
    shared = [1, 2]
    made = again([shared, shared])
    assert made[0] is made[1]


def test_methods_of_an_unknown_class_do_no_harm() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise ValueError

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

        def __eq__(self, other: object) -> bool:
            raise ValueError

        __hash__ = None  # type: ignore[assignment]

    assert "Bad" in again({"a": [Bad()]})["a"][0]
    assert len(again(type("Long", (), {"__repr__": lambda self: "x" * 10**6})())) < 700


def test_nothing_live_is_changed() -> None:
    config = OmegaConf.create({"a": 1})
    given = {"list": [pathlib.Path("a")], "dict": {"b": {np.int64(1): config}}, "tuple": (Mode.FAST, [nn.ReLU])}
    before = str(given)
    to_plain_data(given)
    assert str(given) == before


@pytest.mark.parametrize("notes", [
    7, {}, {"types": 3, "left_out": 4}, {"types": [[["x"], "nothing", None]], "left_out": []},
    {"types": [[["nowhere", 3], "path", "PosixPath"]], "left_out": [[["a", "b"], 1]]},
    {"types": [[["x"], "array", ["object", [10**12]]]], "left_out": []},
    {"types": [[["x"], "array", ["V8", None]]], "left_out": []}, {"types": [[[[]], [], []]], "left_out": []},
    {"types": [[["x"], "dataclass", "os.system"]], "left_out": []},
    {"types": [[["x"], "enum", ["subprocess.Popen", "x"]]], "left_out": []},
    {"types": [[["x"] * 5000, "text", None]], "left_out": []},
    {"types": [[["x"], "config", None]], "left_out": []}, {"types": [[["x"], "keys", [1]]], "left_out": []},
], ids=str)  # fmt: skip
def test_a_file_that_says_nonsense_is_read_without_it(notes: Any) -> None:
    assert from_plain_data({"x": "touch me", KEY: notes}, {"os", "subprocess", "x"})["x"] == "touch me"


def test_arguments_that_must_be_given_are_left_out_where_text_would_stand() -> None:
    given = {"hyper_parameters": {"net": nn.ReLU(), "mode": Mode.FAST, "width": np.int64(3)}}
    places = [("hyper_parameters", name) for name in ("net", "mode", "width", "none")]
    made = to_plain_data(given, places).checkpoint
    assert made["hyper_parameters"] == {"width": 3}
    back = from_plain_data(made, HERE)["hyper_parameters"]
    assert back["mode"] is Mode.FAST and "ReLU" in back["net"] and type(back["width"]) is np.int64


def test_the_reader_says_what_it_refuses() -> None:
    from torch.testing._internal.two_tensor import TwoTensor

    assert find_unreadable({"a": {"b": [1, torch.ones(2)]}}) == ""
    two = TwoTensor(torch.ones(2), torch.ones(2))
    assert find_unreadable(to_plain_data({"a": {"b": [1, two]}}).checkpoint) == "a.b.1"

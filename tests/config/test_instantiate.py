"""Objects from nodes with ``_target_``, and the error messages."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import pytest
from torch import nn

from lrkit.base.errors import ConfigError
from lrkit.config.instantiate import arguments, build
from lrkit.lightning.imports import LightningDataModule


class Base(LightningDataModule):
    def __init__(self, a: int, b: int = 2) -> None:
        if a < 0:
            raise ConfigError("a", "must be >= 0", a)
        self.sum = a + b


class Greedy(LightningDataModule):
    def __init__(self, **everything: Any) -> None:
        self.everything = everything


class Told(LightningDataModule):
    called = 0

    def __init__(self, **parts: Any) -> None:
        type(self).called += 1


class Part:
    def __init__(self, size: int = 1) -> None:
        if size < 0:
            raise ConfigError("size", "must be >= 0", size)
        self.size = size


OURS = (__name__,)


def target(of: type) -> str:
    return f"{__name__}.{of.__name__}"


def made(node: Mapping[str, Any]) -> Any:
    return build(node, "data", OURS)


ROWS: list[tuple[Mapping[str, Any], str]] = [
    ({"a": 1}, "data._target_ must be set"),
    ({"_target_": target(Base), "c": 1}, "data.c is not a key. Accepted: a, b"),
    ({"_target_": target(Base), "a": -1}, "data.a must be >= 0. Received: -1"),
    ({"_target_": target(Base)}, "data cannot be built: Base.__init__() missing 1 required positional argument: 'a'"),
    ({"_target_": f"{__name__}.Bass"}, f"data._target_ does not exist: {__name__} has no Bass. Did you mean 'Base'?"),
    ({"_target_": "Base"}, "data._target_ must be the dotted path of a class"),
    ({"_target_": "..Base"}, "data._target_ must be the dotted path of a class"),
    ({"_target_": None}, "data._target_ must be the dotted path of a class"),
    ({"_target_": target(Part)}, "data._target_ must be a subclass of LightningDataModule"),
    ({"_target_": __name__ + ".__file__"}, "data._target_ must be a subclass of LightningDataModule"),
    ({"_target_": target(Base), "a": 1, "_partial_": True}, "data._partial_ must not be set here"),
    ({"_target_": target(Base), "a": 1, "_convert_": "none"}, "data._convert_ must be all"),
    ({"_target_": target(Base), "_args_": 1}, "data._args_ must be a list. Received: 1"),
    ({"_target_": target(Base), "_args_": [1, 2, 3]}, "data cannot be built: Base.__init__() takes from 2 to 3"),
    ({"_target_": target(Base), "a": {"_target_": target(Part), "_partial_": 1}}, "data.a._partial_ must be true or f"),
    ({"_target_": target(Greedy), "x": [{"_target_": target(Part), "siz": 1}]}, "data.x[0].siz is not a key. Did you"),
    ({"_target_": target(Greedy), "x": {"y": {"_target_": target(Part), "size": -1}}}, "data.x.y.size must be >= 0."),
]


@pytest.mark.parametrize(("node", "message"), ROWS, ids=lambda part: part if isinstance(part, str) else "")
def test_errors_name_the_key(node: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(node)
    assert str(caught.value).startswith(message)


def test_a_node_becomes_its_object() -> None:
    assert made({"_target_": target(Base), "a": 1}).sum == 3
    assert made({"_target_": target(Base), "_args_": [1], "b": 5, "_convert_": "all"}).sum == 6
    assert build({}, "warmup") is None and build(None, "warmup") is None


def test_a_target_that_takes_anything_gets_anything() -> None:
    node = {"_target_": target(Greedy), "x": 1}
    assert made(node).everything == {"x": 1}
    assert arguments(Greedy, node, "data") == frozenset()


def test_parts_are_made_at_any_depth_and_containers_stay_plain() -> None:
    part = {"_target_": target(Part), "size": 3}
    found = made({"_target_": target(Greedy), "x": [{"y": part}], "z": {"n": 1}, "f": {**part, "_partial_": True}})
    assert type(found.everything["x"]) is list and found.everything["x"][0]["y"].size == 3
    assert type(found.everything["z"]) is dict
    assert isinstance(found.everything["f"], functools.partial) and found.everything["f"]().size == 3
    raw = made({"_target_": target(Greedy), "_recursive_": False, "x": part})
    assert raw.everything == {"x": part}


def test_a_network_out_of_torchs_own_parts() -> None:
    parts = [{"_target_": "torch.nn.Flatten"}, {"_target_": "torch.nn.Linear", "in_features": 64, "out_features": 10}]
    network = build({"_target_": "torch.nn.Sequential", "_args_": parts}, "model")
    assert [type(part) for part in network] == [nn.Flatten, nn.Linear]


def test_a_text_stays_the_text_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values were resolved before; a text that still looks like an interpolation came from a JSON file."""
    monkeypatch.setitem(os.environ, "SECRET", "12345")
    assert made({"_target_": target(Greedy), "x": "${oc.env:SECRET}"}).everything == {"x": "${oc.env:SECRET}"}


def test_nothing_is_called_before_all_of_it_is_allowed() -> None:
    Told.called = 0
    with pytest.raises(ConfigError, match=r"data\.x\._target_ names os\.system"):
        made({"_target_": target(Told), "x": {"_target_": "os.system", "command": "true"}})
    with pytest.raises(ConfigError, match=r"data\.y\.siz is not a key"):
        made({"_target_": target(Told), "x": {"_target_": target(Told)}, "y": {"_target_": target(Part), "siz": 1}})
    assert Told.called == 0
    made({"_target_": target(Told)})
    assert Told.called == 1

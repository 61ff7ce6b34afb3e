"""A module, data and a callback that put any picklable object into checkpoints."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import enum
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import plain_lightning
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from lrkit.lightning.imports import Callback


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclasses.dataclass
class Scores:
    best: float
    curve: np.ndarray[Any, Any]
    mode: Mode = Mode.SLOW


#: Kinds of hyperparameters, and lrkit's message about each; None without a message.
KINDS: dict[str, tuple[Callable[[], Any], str | None]] = {
    "path": (lambda: Path("a/b"), None),
    "float64": (lambda: np.float64(0.1), None),
    "float32": (lambda: np.float32(0.1), None),
    "array": (lambda: np.arange(3.0), None),
    "namespace": (lambda: argparse.Namespace(a=1, b=Path("c")), None),
    "dictconfig": (lambda: OmegaConf.create({"a": {"b": 1}}), None),
    "listconfig": (lambda: OmegaConf.create([1, 2]), None),
    "enum": (lambda: Mode.FAST, None),
    "dataclass": (lambda: Scores(1.0, np.arange(2)), None),
    "module": (nn.CrossEntropyLoss, "torch.nn.modules.loss.CrossEntropyLoss"),
    "partial": (lambda: functools.partial(torch.optim.Adam, lr=0.1), "functools.partial"),
    "class": (lambda: torch.optim.Adam, "class torch.optim.adam.Adam"),
    "datetime": (lambda: datetime.datetime(2026, 1, 2), None),
    "function": (lambda: torch.relu, "function"),
    "slice": (lambda: slice(1, 2), None),
    "plain": (lambda: {"a": [1, (2, None)], "b": torch.ones(2)}, None),
    "unreadable": (lambda: TwoTensor(torch.ones(2), torch.ones(2)), "never"),
}


class Net(plain_lightning.Net):
    """Saves a hyper-parameter of some kind, and gives its checkpoints the same and more; wants it back as it was.

    Args:
        kinds: what it saves.
        hook: what its ``on_save_checkpoint`` adds.
        value: a hyper-parameter that it must be given, once it is a class on its own.
    """

    back: ClassVar[dict[str, Any]] = {}

    def __init__(self, kinds: list[str] | None = None, hook: str = "plain") -> None:
        super().__init__()
        self.hook = hook
        self.save_hyperparameters({f"my_{kind}": KINDS[kind][0]() for kind in kinds or ()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["mine"] = {"value": KINDS[self.hook][0](), "scores": Scores(0.5, np.arange(4.0), Mode.FAST)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        Net.back = {"mine": checkpoint["mine"], **checkpoint["hyper_parameters"]}


class Given(plain_lightning.Net):
    """Must be given a network and how to act; has a width of its own."""

    def __init__(self, net: nn.Module, mode: Mode, where: Path, act: Any = torch.relu, width: int = 8) -> None:
        super().__init__(width)
        self.save_hyperparameters()
        self.net, self.act = net, act


class Wants(plain_lightning.Net):
    """Puts objects into its checkpoints and wants them back as such, as pytorch-forecasting does.

    Args:
        loss: of torch, by its name.
        local: whether it gives its checkpoints an object that nothing else has.
    """

    def __init__(self, loss: str = "CrossEntropyLoss", local: bool = False) -> None:
        super().__init__()
        self.criterion: nn.Module = getattr(nn, loss)()
        self.save_hyperparameters({"criterion": self.criterion})
        self.parts, self.local, self.scalers = [Odd(1), Odd(2)], local, {"a": {"b": Odd(3)}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        made = Odd(4) if self.local else self.parts[1]
        checkpoint["special"] = {"criterion": self.criterion, "parts": [*self.parts], "made": made}
        checkpoint["scalers"] = self.scalers

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.criterion = checkpoint["special"]["criterion"]
        Net.back = {**checkpoint, "module": self, "sum": sum(part.n for part in checkpoint["special"]["parts"])}


class Odd:
    """No plain data."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __repr__(self) -> str:
        return f"Odd({self.n})"


class Scaled(plain_lightning.Data):
    """Data with a scaler of their own."""

    def __init__(self, batch_size: int = 8) -> None:
        super().__init__(batch_size)
        self.scaler = Odd(5)

    def state_dict(self) -> dict[str, Any]:
        return {"scaler": self.scaler}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        Net.back = {"scaler": state_dict["scaler"], "own": self.scaler}
        self.scaler.n, self.scaler = 6, state_dict["scaler"]


class Counts(Callback):
    """With an odd counter in its state."""

    def __init__(self) -> None:
        self.counter = Odd(7)

    def state_dict(self) -> dict[str, Any]:
        return {"counter": self.counter}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        Net.back = {**Net.back, "copied": state_dict["counter"].n}


def given(width: int = 8) -> Given:
    return Given(nn.Linear(3, 3), Mode.FAST, Path("a"), torch.tanh, width)


class Data(plain_lightning.Data):
    def __init__(self, batch_size: int = 8) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters({"root": Path("r"), "transform": torch.nn.functional.relu})

    def state_dict(self) -> dict[str, Any]:
        return {"seen": np.int64(3)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        assert type(state_dict["seen"]) is np.int64
        Net.back["data"] = state_dict["seen"]


class Keeps(Callback):
    """With a state of numpy's."""

    def __init__(self) -> None:
        self.mean = np.zeros(2)

    def on_train_batch_end(self, *_: Any) -> None:
        self.mean = self.mean + 1.0

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "where": Path("x")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        assert isinstance(state_dict["where"], Path)
        self.mean = state_dict["mean"]
        Net.back["callback"] = self.mean

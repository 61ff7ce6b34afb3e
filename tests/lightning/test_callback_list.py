"""One callback that calls all of lrkit's callbacks, and the short path of ``log`` for a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from plain_lightning import Data, Net
from torch import nn

import lrkit
from lrkit.lightning.callback_list import CallbackList, NoProfiler
from lrkit.lightning.imports import Callback, Trainer
from lrkit.lightning.supervised import Supervised

HOOKS = [name for name in dir(Callback) if name.startswith("on_") or name in ("setup", "teardown")]


def recorder(name: str, only: set[str] | None = None) -> Callback:
    """A callback that records each call of its hooks, or of some of them."""

    def hook(called: str) -> Any:
        return lambda self, *args, **kwargs: self.calls.append(f"{self.name} {called}")

    made = type(name, (Callback,), {h: hook(h) for h in HOOKS if only is None or h in only})()
    made.name, made.calls = name, []
    return made  # type: ignore[no-any-return]


def fit(tmp_path: Path, *callbacks: Callback, **options: Any) -> Trainer:
    trainer = Trainer(
        max_epochs=1, limit_train_batches=3, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[*callbacks], **options,
    )  # fmt: skip
    trainer.fit(lrkit.configure(Net(), lr=0.1), Data())
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    return trainer


def test_each_part_hears_what_it_would_hear_alone(tmp_path: Path) -> None:
    alone, part = recorder("A"), recorder("A")
    fit(tmp_path / "alone", alone)
    fit(tmp_path / "together", CallbackList([part, Callback()]))
    assert part.calls == alone.calls and len(alone.calls) > 40  # type: ignore[attr-defined]


def test_parts_are_called_in_order_and_only_where_they_listen() -> None:
    said: list[str] = []
    first, second = recorder("A", {"on_train_start", "on_train_end"}), recorder("B", {"on_train_start"})
    first.calls = second.calls = said  # type: ignore[attr-defined]
    together = CallbackList([first, second])
    together.on_train_start(None, None)  # type: ignore[arg-type]
    together.on_train_end(None, None)  # type: ignore[arg-type]
    together.on_fit_start(None, None)  # type: ignore[arg-type]
    assert said == ["A on_train_start", "B on_train_start", "A on_train_end"]


def test_states_find_their_parts_again() -> None:
    class Keeps(Callback):
        def __init__(self, value: int) -> None:
            self.value = value

        def state_dict(self) -> dict[str, Any]:
            return {"value": self.value}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.value = state_dict["value"]

    saved = CallbackList([Callback(), Keeps(7)]).state_dict()
    assert list(saved) == [Keeps(0).state_key]
    fresh = Keeps(0)
    CallbackList([fresh, Callback()]).load_state_dict(saved)
    assert fresh.value == 7


def test_no_profiler_is_no_profiler(tmp_path: Path) -> None:
    trainer = fit(tmp_path, profiler=NoProfiler())
    assert trainer.profiler.summary() == ""
    with trainer.profiler.profile("anything"), trainer.profiler.profile("within it"):
        pass


@pytest.mark.parametrize("value", [None, "text", 3, torch.ones(2), nn.Parameter(torch.ones(2)), nn.Linear(1, 1)])
def test_the_short_way_sets_what_torch_would_set(value: Any) -> None:
    ours, theirs = Supervised(nn.Linear(1, 1)), nn.Module()
    theirs.model, theirs.loss = nn.Linear(1, 1), "cross_entropy"
    for module in (ours, theirs):
        module.plain = "before"
        module.weight = nn.Parameter(torch.zeros(1))
        module.plain = value
        if value is None:
            module.weight = None
            module.model = None
    for name in ("plain", "weight", "model"):
        assert (name in ours.__dict__) == (name in theirs.__dict__)
        assert (name in ours._parameters) == (name in theirs._parameters)
        assert (name in ours._modules) == (name in theirs._modules)
        assert type(getattr(ours, name)) is type(getattr(theirs, name))

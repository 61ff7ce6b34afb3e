"""Datasets of the user's own: batches, facts for the model, refusals; and a resumed run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupted_runs import full_and_resumed, ignored
from recorded_rates import Recorded
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from lrkit.base.errors import ConfigError
from lrkit.cli.main import main
from lrkit.data import Datasets


class Signs(Dataset[tuple[Tensor, int]]):
    """Whether the sum of five numbers is positive."""

    classes = ("no", "yes")

    def __init__(self, size: int = 60) -> None:
        self.x = torch.randn(size, 5, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.x[i], int(self.x[i].sum() > 0)


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter([torch.zeros(5)])


SIGNS = ["data=datasets", "data.train._target_=test_torch_datasets.Signs", "data.batch_size=9", "logger=none"]


def test_the_batches_and_the_facts() -> None:
    data = Datasets(Signs(), batch_size=16, val_fraction=0.25)
    data.setup()
    assert (data.inputs, data.outputs, data.loss) == (5, 2, "cross_entropy")
    train, val = (torch.cat([x for x, _ in loader]) for loader in (data.train_dataloader(), data.val_dataloader()))
    rows = {tuple(row.tolist()) for row in torch.cat([train, val])}
    assert len(train) == 45 and len(val) == 15 and rows == {tuple(row.tolist()) for row in Signs().x}
    first, second = (torch.cat([x for x, _ in loader]) for loader in [data.train_dataloader()] * 2)
    assert not torch.equal(first, second) and torch.equal(first, train)


def test_own_parts_and_floats() -> None:
    pair = TensorDataset(torch.rand(8, 2, 3), torch.rand(8, 4))
    data = Datasets(pair, pair, pair)
    data.setup()
    assert (data.inputs, data.outputs, data.loss) == ((2, 3), 4, "mse")
    assert len(next(iter(data.test_dataloader()))[0]) == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"train": [1, 2]}, r"data\.train must be a torch\.utils\.data\.Dataset"),
        ({"train": Signs(), "val": 3}, r"data\.val must be a torch\.utils\.data\.Dataset"),
        ({"train": Signs(0)}, r"data\.val_fraction must leave samples"),
        ({"train": Signs(1)}, r"data\.val_fraction must leave samples"),
        ({"train": Signs(0), "val": Signs()}, r"data\.train must have samples"),
        ({"train": Signs(), "train_samples": 60}, r"data\.train_samples must be null or 54"),
        ({"train": Endless()}, r"data\.val must be set for an iterable dataset"),
        ({"train": Signs(), "workers": -1}, r"data\.workers must be a whole number >= 0"),
    ],
)
def test_refusals(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Datasets(**arguments).setup()


@ignored
def test_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", *SIGNS, "+data.train.size=100", "model=linear", "trainer.max_epochs=1"]
    assert main(words) == 0
    (run,) = Path("outputs/runs").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["steps"] == 10 and "val/accuracy" in metrics["final"]
    capsys.readouterr()
    assert main([*words, "test=true"]) == 2  # before training
    assert capsys.readouterr().err == "lrkit: data.test must be set for test=true. Received: None\n"
    assert main([*words, "+data.train.sise=3"]) == 2
    assert "data.train.sise is not a key. Did you mean 'size'?" in capsys.readouterr().err


@ignored
@pytest.mark.slow
def test_resumed_within_an_epoch(recorded: Recorded, tmp_path: Path) -> None:
    full_and_resumed(tmp_path, recorded, 9, *SIGNS[:-1])

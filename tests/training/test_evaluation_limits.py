"""Limits that leave nothing to validate or test: refused by their keys, and no result of a training is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plain_lightning import Data, Net, Points
from recorded_rates import Recorded
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose
from lrkit.lr_finder.find import find_lr
from lrkit.training.run import run_training

Train = Callable[..., Any]


class Measured(Net):
    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch))


class Broken(Net):
    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        raise KeyError("no such column")


class WithTest(Data):
    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Points(4), batch_size=4)


class Unsized(Data):
    def train_dataloader(self) -> DataLoader[Any]:
        class Few(IterableDataset[dict[str, Tensor]]):
            def __iter__(self) -> Any:
                return (Points(20)[i] for i in range(20))

        return DataLoader(Few(), batch_size=8)


def foreign(data: str = "WithTest", model: str = "Measured") -> list[str]:
    here = "test_evaluation_limits"
    return ["model=custom", f"model._target_={here}.{model}", "data=custom", f"data._target_={here}.{data}",
            "data.batch_size=8", "logger=none", "trainer.max_epochs=1"]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.limit_val_batches=0.01"], "trainer.limit_val_batches leaves none of the 10 batches of the val"),
        (["trainer.overfit_batches=0.06"], "trainer.overfit_batches leaves none of the 10 batches of the validation"),
        (["test=true", "trainer.limit_test_batches=0.01"], "trainer.limit_test_batches leaves none of the 10 batches"),
    ],
)
@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_a_share_that_is_no_batch_of_lrkits_data(words: list[str], said: str, train: Train, recorded: Recorded) -> None:
    with pytest.raises(ConfigError) as refused:
        train(*words, "trainer.max_epochs=1", "logger=none", short=False)
    assert str(refused.value).startswith(said) and not recorded


def test_a_search_refuses_it_too(tmp_path: Path) -> None:
    config = compose(["trainer.limit_val_batches=0.01", "trainer.max_epochs=3"])
    with pytest.raises(ConfigError, match=r"^trainer\.limit_val_batches leaves none of the 10 batches"):
        find_lr(config, tmp_path, quiet=True)
    config = compose([*foreign()[:-1], "trainer.max_epochs=8", "trainer.limit_val_batches=0.1"])
    with pytest.raises(ConfigError, match=r"^trainer\.limit_val_batches must leave at least one batch"):
        find_lr(config, tmp_path, quiet=True)


def test_a_share_that_is_no_batch_of_foreign_data(train: Train, recorded: Recorded) -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.limit_val_batches must leave at least one batch\. Rec.*: 0\.1$"):
        train(*foreign(), "trainer.limit_val_batches=0.1", short=False)
    assert not recorded


def test_a_share_of_data_without_a_length(train: Train, recorded: Recorded) -> None:
    with pytest.raises(
        ConfigError, match=r"^trainer\.limit_train_batches must be a number of batches, or null: .*0\.5"
    ):
        train(*foreign("Unsized"), "trainer.limit_train_batches=0.5", "horizon.steps=3", short=False)
    assert not recorded


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["monitor=train/loss"], "monitor"),
        (["callbacks=early_stopping", "callbacks.early_stopping.monitor=train/loss"],
         "callbacks.early_stopping.monitor"),
    ],
)  # fmt: skip
def test_a_training_metric_that_the_module_does_not_log(words: list[str], key: str, train: Train) -> None:
    said = rf"^{re.escape(key)} names a metric that is not logged\. Did you mean 'train_loss'"
    with pytest.raises(ConfigError, match=said):
        train(*foreign(), *words, short=False)


def test_nothing_to_test(train: Train) -> None:
    with pytest.raises(ConfigError, match=r"^test and trainer\.limit_test_batches=0 cannot be used together"):
        train("test=true", "trainer.limit_test_batches=0")


@pytest.mark.parametrize(
    ("model", "more", "error", "why"),
    [
        ("Measured", ["trainer.limit_test_batches=0.1"], ConfigError, "0.1"),
        ("Broken", [], KeyError, "no such column"),
    ],
)
def test_a_test_that_fails_keeps_the_results_of_the_training(
    model: str, more: list[str], error: type[Exception], why: str, tmp_path: Path
) -> None:
    with pytest.raises(error):
        run_training(compose([*foreign(model=model), "test=true", *more]), tmp_path, quiet=True)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["status"] == "failed" and why in metrics["why"] and metrics["steps"] == 8
    assert metrics["final"]["val_loss"] > 0 and "test" not in metrics
    assert (tmp_path / "error.log").exists() == (error is KeyError)

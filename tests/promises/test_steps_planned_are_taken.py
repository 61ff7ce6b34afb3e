"""The number of optimizer steps: equal in the plan, in the trainer and in the optimizer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_lightning import Data, Points
from recorded_rates import Recorded
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from two_processes import both_ranks

from lrkit.base.errors import ConfigError, RunError
from lrkit.config import compose as configs
from lrkit.config.compose import compose

Train = Callable[..., Any]


SAMPLES = 37  # a prime: no batch size divides it


class Loose(Data):
    """A foreign data module that can drop the last batch."""

    def __init__(self, batch_size: int = 8, n: int = SAMPLES, drop_last: bool = False) -> None:
        super().__init__(batch_size, n)
        self.drop_last = drop_last

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train, self.hparams["batch_size"], shuffle=True, drop_last=self.drop_last)


class Stream(IterableDataset[dict[str, Tensor]]):
    """Points without end and without a length."""

    def __iter__(self) -> Any:
        points = Points(8)
        while True:
            yield from (points[i] for i in range(8))


class Endless(Data):
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Stream(), batch_size=self.hparams["batch_size"])


class Unsized(Data):
    """Points with an end, but without a length."""

    def train_dataloader(self) -> DataLoader[Any]:
        class Few(IterableDataset[dict[str, Tensor]]):
            def __iter__(self) -> Any:
                return (Points(20)[i] for i in range(20))

        return DataLoader(Few(), batch_size=self.hparams["batch_size"])


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """lrkit's own data: 37 samples to train on."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", SAMPLES), ("val", 4), ("test", 4)):
        arrays |= {f"x_{part}": rng.normal(size=(n, 3)).astype(np.float32), f"y_{part}": np.arange(n) % 2}
    np.savez(tmp_path / "few.npz", **arrays)
    return ["data=arrays", f"data.path='{tmp_path}/few.npz'", f"data.train_samples={SAMPLES}", "model.hidden=[2]"]


FOREIGN = [
    "model=custom",
    "model._target_=plain_lightning.Net",
    "data=custom",
    "data._target_=test_steps_planned_are_taken.Loose",
]

#: One epoch after the other, in every way in which a run can be cut.
LENGTHS = [
    ("trainer.max_epochs=1",),
    ("trainer.max_epochs=3",),
    ("trainer.max_epochs=null", "trainer.max_steps=5"),
    ("trainer.max_epochs=2", "trainer.max_steps=3"),
    ("trainer.max_epochs=1", "trainer.max_steps=100"),
]
LIMITS: list[Any] = [None, 1, 4, 100, 0.5, 0.99, 1.0]
BATCHES = [1, 4, 5, 36, 37]


def cells() -> list[tuple[Any, ...]]:
    """A covering choice: each pair of a batch size, an accumulation and a limit, with lengths and drop_last in turn."""
    grid = list(product(BATCHES, range(1, 5), LIMITS))
    return [(*cell, LENGTHS[i % 5], bool(i % 3 == 0)) for i, cell in enumerate(grid)][::4]


def overrides_of(cell: tuple[Any, ...]) -> list[str]:
    batch, accumulate, limit, length, _ = cell
    limited = [] if limit is None else [f"trainer.limit_train_batches={limit}"]
    return [f"data.batch_size={batch}", f"trainer.accumulate_grad_batches={accumulate}", *length, *limited,
            "trainer.limit_val_batches=0", "logger=none"]  # fmt: skip


def batches_of(cell: tuple[Any, ...]) -> tuple[int, int]:
    """The batches of an epoch, without and with the limit; by hand."""
    batch, _, limit, _, drop_last = cell
    there = SAMPLES // batch if drop_last else math.ceil(SAMPLES / batch)
    return there, int(there * limit) if isinstance(limit, float) else min(there, limit or there)


def steps_of(cell: tuple[Any, ...]) -> int:
    """The optimizer steps of the run; by hand. Lightning makes a step of the last batches of an epoch, however few."""
    given = {key: value for key, _, value in (word.partition("=") for word in cell[3])}
    per_epoch, epochs = math.ceil(batches_of(cell)[1] / cell[1]), given["trainer.max_epochs"]
    most = int(given.get("trainer.max_steps", 10**9))
    return most if epochs == "null" else min(most, per_epoch * int(epochs))


def check(run: Any, recorded: Recorded, steps: int) -> None:
    taken = json.loads((run.folder / "metrics.json").read_text())["steps"]  # trainer.global_step
    assert (run.plan.horizon.steps, taken, len(recorded), run.status) == (steps, steps, steps, "done")


@pytest.mark.parametrize("cell", cells(), ids=str)
def test_lrkits_own_data(cell: tuple[Any, ...], own: list[str], train: Train, recorded: Recorded) -> None:
    """The steps are known before there is data, and they are the steps that are taken."""
    overrides = [*own, *overrides_of(cell), f"data.drop_last={str(cell[-1]).lower()}"]
    there, left = batches_of(cell)
    if not left or cell[1] > there:
        with pytest.raises(ConfigError, match=r"^trainer\.(accumulate_grad_batches|limit_train_batches) "):
            configs.check(compose(overrides))
        return
    declared = configs.check(compose(overrides))
    assert declared is not None and declared.horizon.steps == steps_of(cell)
    if steps_of(cell) <= 30:
        check(train(*overrides, short=False), recorded, steps_of(cell))


@pytest.mark.parametrize(
    "cell", [c for c in cells()[::2] if batches_of(c)[1] and c[1] <= batches_of(c)[0] and steps_of(c) <= 30], ids=str
)
def test_a_foreign_loader(cell: tuple[Any, ...], train: Train, recorded: Recorded) -> None:
    """A plain torch DataLoader, whose length only the trainer finds out."""
    overrides = [*FOREIGN, *overrides_of(cell), f"+data.drop_last={str(cell[-1]).lower()}"]
    assert configs.check(compose(overrides)) is None
    check(train(*overrides, short=False), recorded, steps_of(cell))


def test_a_foreign_loader_whose_length_is_declared(train: Train, recorded: Recorded) -> None:
    overrides = [*FOREIGN, *overrides_of((5, 2, 4, LENGTHS[1], False)), f"data.train_samples={SAMPLES}"]
    declared = configs.check(compose(overrides))
    assert declared is not None and declared.horizon.steps == 6
    check(train(*overrides, short=False), recorded, 6)


def test_a_limit_that_leaves_nothing_of_a_foreign_loader(train: Train) -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.limit_train_batches must leave at least one batch"):
        train(*FOREIGN, *overrides_of((37, 1, 0.5, LENGTHS[0], False)), short=False)


def test_accumulation_over_more_batches_than_a_foreign_loader_has(train: Train) -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.accumulate_grad_batches must be at most 1"):
        train(*FOREIGN, *overrides_of((37, 4, None, LENGTHS[0], False)), short=False)


def test_the_last_step_falls_where_no_validation_is_due(own: list[str], train: Train, recorded: Recorded) -> None:
    """Accumulation, validation within an epoch, and an end within an epoch, all at once."""
    run = train(
        *own, "data.batch_size=4", "trainer.accumulate_grad_batches=3", "trainer.val_check_interval=4",
        "trainer.max_epochs=3", "trainer.max_steps=6", "trainer.limit_train_batches=null",
    )  # fmt: skip
    check(run, recorded, 6)  # 10 batches are 4 steps


class TestWithoutLength:
    """Data of unknown length."""

    def foreign(self, data: str, *more: str) -> list[str]:
        return [*FOREIGN[:-1], f"data._target_=test_steps_planned_are_taken.{data}", "data.batch_size=4", "logger=none",
                "trainer.limit_val_batches=1", *more]  # fmt: skip

    @pytest.mark.parametrize("data", ["Endless", "Unsized"])
    @pytest.mark.parametrize("end", ["trainer.max_epochs=2", "trainer.max_time=00:00:00:01"])
    def test_a_schedule_that_needs_an_end_is_refused(
        self, data: str, end: str, train: Train, recorded: Recorded
    ) -> None:
        ends = [end] if "epochs" in end else [end, "trainer.max_epochs=-1"]
        with pytest.raises(
            ConfigError, match=r"^schedule.* needs the total number of optimizer steps.* horizon\.steps"
        ):
            train(*self.foreign(data, *ends), short=False)
        assert not recorded

    def test_max_steps_is_an_end(self, train: Train, recorded: Recorded) -> None:
        run = train(*self.foreign("Endless", "trainer.max_steps=7", "trainer.max_epochs=-1"), short=False)
        check(run, recorded, 7)
        assert [step["default"][0] for step in recorded] == [run.plan.lr(run.plan.groups[0], t) for t in range(7)]

    def test_horizon_steps_is_an_end(self, train: Train, recorded: Recorded) -> None:
        run = train(*self.foreign("Unsized", "horizon.steps=10", "trainer.max_epochs=2"), short=False)
        check(run, recorded, 10)  # 20 samples in batches of 4, twice

    def test_a_horizon_that_is_too_long_is_not_done(self, train: Train, recorded: Recorded) -> None:
        with pytest.raises(RunError, match=r"^12 steps were planned, 10 were taken"):
            train(*self.foreign("Unsized", "horizon.steps=12", "trainer.max_epochs=2"), short=False)
        assert len(recorded) == 10

    def test_a_schedule_without_an_end_needs_none(self, train: Train, recorded: Recorded) -> None:
        run = train(*self.foreign("Unsized", "schedule=constant", "trainer.max_epochs=2"), short=False)
        assert run.plan.horizon.steps is None and len(recorded) == 10 and run.status == "done"

    def test_a_time_limit_alone_is_refused_with_known_data_too(self, train: Train, recorded: Recorded) -> None:
        with pytest.raises(ConfigError, match=r"^schedule.* needs the total number .*trainer\.max_steps or horizon"):
            train("trainer.max_epochs=-1", "trainer.max_time=00:00:00:01")
        assert not recorded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        # 1197 samples, 599 a rank (598 where they are dropped): 6 batches of 100, 5 where the last is dropped.
        (["data.batch_size=100", "trainer.max_epochs=2"], 12),
        (["data.batch_size=100", "data.drop_last=true", "trainer.accumulate_grad_batches=2"], 3),
        (["data.batch_size=100", "trainer.limit_train_batches=0.7", "trainer.accumulate_grad_batches=3"], 2),
        (["data.batch_size=599", "trainer.max_epochs=3"], 3),
        (["data.batch_size=598", "trainer.max_epochs=3", "trainer.max_steps=5"], 5),
        (["model=custom", "model._target_=plain_lightning.Net", "data=custom",
          "data._target_=test_steps_planned_are_taken.Loose", "data.batch_size=4", "trainer.max_epochs=2",
          "trainer.accumulate_grad_batches=2"], 6),
    ],
    ids=["uneven", "dropped", "limited", "whole", "max_steps", "foreign"],
)  # fmt: skip
def test_two_processes(overrides: list[str], steps: int, tmp_path: Path) -> None:
    epochs = [] if any("max_epochs" in o for o in overrides) else ["trainer.max_epochs=1"]
    first, second, folder = both_ranks(
        tmp_path, *overrides, *epochs, "trainer.limit_val_batches=1", path=(Path(__file__).parent,)
    )
    plan, metrics = (json.loads((folder / name).read_text()) for name in ("plan.json", "metrics.json"))
    assert first == second and len(first) == steps
    assert plan["horizon"]["steps"] == metrics["steps"] == steps and metrics["status"] == "done"

"""The horizon: the number of optimizer steps of a run, and the source of each number."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from torch.utils.data import DataLoader, DistributedSampler

from lrkit.base.errors import ConfigError
from lrkit.schedules.horizon import Horizon, LoaderSize, horizon_of

DATA = LoaderSize(samples=1000, batch_size=64)  # 16 batches, the last of 40 samples
CUT = LoaderSize(samples=1000, batch_size=64, drop_last=True)  # 15 batches

TABLE = [
    # loader              trainer                                           world  steps  an epoch  batch
    (DATA,                {"max_epochs": 3},                                1,     48,    16,       64),
    (CUT,                 {"max_epochs": 3},                                1,     45,    15,       64),
    (DATA,                {"max_epochs": 3},                                2,     24,    8,        128),
    (DATA,                {"max_epochs": 3},                                16,    3,     1,        1024),
    (CUT,                 {"max_epochs": 3},                                2,     21,    7,        128),
    (DATA,                {"max_epochs": 3, "accumulate_grad_batches": 4},  1,     12,    4,        256),
    (DATA,                {"max_epochs": 3, "accumulate_grad_batches": 5},  1,     12,    4,        320),  # 5, 5, 5, 1
    (DATA,                {"max_epochs": 3, "accumulate_grad_batches": 99}, 1,     3,     1,        6336),
    (DATA,                {"max_epochs": 3, "accumulate_grad_batches": 2},  2,     12,    4,        256),
    (DATA,                {"max_epochs": 3, "limit_train_batches": 10},     1,     30,    10,       64),
    (DATA,                {"max_epochs": 3, "limit_train_batches": 99},     1,     48,    16,       64),
    (DATA,                {"max_epochs": 3, "limit_train_batches": 1},      1,     3,     1,        64),  # one batch
    (DATA,                {"max_epochs": 3, "limit_train_batches": 1.0},    1,     48,    16,       64),  # all of them
    (DATA,                {"max_epochs": 3, "limit_train_batches": 0.3},    1,     12,    4,        64),  # 4.8
    (DATA,                {"max_epochs": 3, "overfit_batches": 2},            1,     6,     2,        64),
    (DATA,                {"max_epochs": 3, "fast_dev_run": True},            1,     1,     1,        64),
    (DATA,                {"max_epochs": 3, "fast_dev_run": 5},               1,     5,     5,        64),
    (DATA,                {"max_epochs": 3, "max_steps": 20},               1,     20,    16,       64),  # whichever
    (DATA,                {"max_epochs": 3, "max_steps": 99},               1,     48,    16,       64),  # is first
    (DATA,                {"max_epochs": 3, "max_steps": -1},               1,     48,    16,       64),  # -1: no limit
    (DATA,                {"max_epochs": -1, "max_steps": 20},              1,     20,    16,       64),
    (DATA,                {"max_steps": 20},                                1,     20,    16,       64),
    (DATA,                {"max_epochs": -1},                               1,     None,  16,       64),
    (DATA,                {},                                               1,     None,  16,       64),
    (LoaderSize(None, 64),    {"max_epochs": 3},                                2,     None,  None,     128),
    (LoaderSize(None, 64),    {"max_epochs": 3, "max_steps": 20},               1,     20,    None,     64),
    (LoaderSize(1000, None),  {"max_epochs": 3},                                1,     None,  None,     None),
]  # fmt: skip

OVERRIDDEN = [
    # the node horizon                                steps  an epoch  batch  the source of the steps
    ({},                                              48,    16,       64,    "3 epochs x 16"),
    ({"steps": None},                                 48,    16,       64,    "3 epochs x 16"),
    ({"steps": 7},                                    7,     16,       64,    "horizon.steps"),
    ({"steps": "2ep"},                                32,    16,       64,    "horizon.steps=2ep"),
    ({"steps": "640sp"},                              10,    16,       64,    "horizon.steps=640sp"),
    ({"steps": "1e3tok", "tokens_per_sample": 5},     3,     16,       64,    "horizon.steps=1e3tok"),
    ({"steps_per_epoch": 100},                        300,   100,      64,    "3 epochs x 100"),
    ({"batch_size": 1},                               48,    16,       1,     "3 epochs x 16"),
    ({"steps": 7, "steps_per_epoch": 2, "batch_size": 1}, 7, 2,        1,     "horizon.steps"),
]  # fmt: skip

REFUSED = [
    # what is wrong
    #     the sentence
    (lambda: Horizon(0),
        "horizon.steps must be a whole number >= 1, or null. Received: 0"),
    (lambda: Horizon(1.0),
        "horizon.steps must be a whole number >= 1, or null. Received: 1.0"),
    (lambda: Horizon(True),
        "horizon.steps must be a whole number >= 1, or null. Received: True"),
    (lambda: Horizon(9, -1),
        "horizon.steps_per_epoch must be a whole number >= 1, or null. Received: -1"),
    (lambda: Horizon(9, 9, "64"),
        "horizon.batch_size must be a whole number >= 1, or null. Received: '64'"),
    (lambda: horizon_of(DATA, {}, overrides={"steps": 0}),
        "horizon.steps must be a whole number >= 1, or null. Received: 0"),
    (lambda: horizon_of(DATA, {}, overrides={"steps": 1e4}),
        "horizon.steps must be a whole number >= 1, or null. Received: 10000.0"),
    (lambda: horizon_of(DATA, {}, overrides={"steps": "50%"}),
        "horizon.steps must not be a share: it is the length of the run. Received: '50%'"),
    (lambda: horizon_of(DATA, {}, overrides={"steps": 0.5}),
        "horizon.steps must not be a share: it is the length of the run. Received: 0.5"),
    (lambda: horizon_of(DATA, {}, overrides={"steps": "0ep"}),
        "horizon.steps must be a whole number >= 1, or null. Received: 0"),
    (lambda: horizon_of(LoaderSize(None, 64), {}, overrides={"steps": "2ep"}),
        "horizon.steps needs the number of optimizer steps in an epoch, which is not known: set horizon.steps_per_epoch"
        ", or data.train_samples."),
    (lambda: horizon_of(DATA, {}, overrides={"steps": "5tok"}),
        "horizon.steps needs the number of tokens in a sample, which is not known: set horizon.tokens_per_sample."),
    (lambda: horizon_of(LoaderSize(50, 64, True), {}),
        "data.drop_last leaves no batch: 50 samples do not fill one batch of 64 on each of 1 device(s). Received: "
        "True"),
    (lambda: horizon_of(LoaderSize(100, 64, True), {}, world=2),
        "data.drop_last leaves no batch: 100 samples do not fill one batch of 64 on each of 2 device(s). Received: "
        "True"),
    (lambda: horizon_of(DATA, {"limit_train_batches": 0.05}),
        "trainer.limit_train_batches leaves none of the 16 batches to train on. Received: 0.05"),
    (lambda: horizon_of(DATA, {"limit_train_batches": 0}),
        "trainer.limit_train_batches leaves none of the 16 batches to train on. Received: 0"),
]  # fmt: skip


@pytest.mark.parametrize(("loader", "trainer", "world", "steps", "per_epoch", "batch"), TABLE)
def test_the_length_of_a_run(
    loader: LoaderSize, trainer: Any, world: int, steps: Any, per_epoch: Any, batch: Any
) -> None:
    assert horizon_of(loader, trainer, world=world) == Horizon(steps, per_epoch, batch)


@pytest.mark.parametrize(("overrides", "steps", "per_epoch", "batch", "source"), OVERRIDDEN)
def test_what_is_set_wins(overrides: Any, steps: int, per_epoch: int, batch: int, source: str) -> None:
    horizon = horizon_of(DATA, {"max_epochs": 3}, overrides=overrides)
    assert (horizon.steps, horizon.steps_per_epoch, horizon.batch_size) == (steps, per_epoch, batch)
    assert horizon.sources["steps"] == source


def test_each_number_says_where_it_came_from() -> None:
    horizon = horizon_of(DATA, {"max_epochs": 3, "accumulate_grad_batches": 2}, world=2)
    assert horizon.sources == {
        "steps": "3 epochs x 4",
        "steps_per_epoch": "8 batches / accumulate 2",
        "batch_size": "64 a device x 2 x accumulate 2",
    }
    assert horizon_of(DATA, {"max_steps": 9}).sources["steps"] == "trainer.max_steps"
    assert not horizon_of(LoaderSize(None, None), {}).sources


def test_batches_that_were_counted_are_not_limited_again() -> None:
    trainer = {"max_epochs": 3, "limit_train_batches": 0.5, "accumulate_grad_batches": 2}
    assert horizon_of(LoaderSize(None, 64), trainer, batches=7) == Horizon(12, 4, 128)


@pytest.mark.parametrize("route", [(64, 1, 16), (64, 16, 1), (32, 4, 8), (1024, 1, 1), (1, 32, 32)], ids=str)
def test_one_effective_batch_by_any_route(route: tuple[int, int, int]) -> None:
    size, world, accumulate = route
    trainer = {"max_epochs": 3, "accumulate_grad_batches": accumulate}
    assert horizon_of(LoaderSize(10240, size), trainer, world=world) == Horizon(30, 10, 1024)


@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_are_counted_as_torch_does(drop_last: bool) -> None:
    for samples, size, world in product((1, 7, 64, 100, 129), (1, 3, 64), (1, 2, 3, 8)):
        data: Any = range(samples)
        if world > 1 and drop_last and samples < world:
            continue  # torch's sampler refuses
        sampler = DistributedSampler(data, world, rank=0, drop_last=drop_last) if world > 1 else None
        loader = DataLoader(data, size, sampler=sampler, drop_last=drop_last)
        assert LoaderSize(samples, size, drop_last).batches(world) == len(loader)


@pytest.mark.parametrize(("wrong", "sentence"), REFUSED)
def test_what_cannot_be(wrong: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        wrong()
    assert str(caught.value) == sentence


def test_what_is_not_known_is_asked_for_by_key() -> None:
    horizon = Horizon(9)
    assert horizon.require("steps", "schedule.every") == 9
    with pytest.raises(ConfigError, match=r"^schedule\.every needs the number of optimizer steps in an epoch, which"):
        horizon.require("steps_per_epoch", "schedule.every")

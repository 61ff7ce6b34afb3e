"""A resumed run has the batches of an uninterrupted run, for each kind of loader, or reports that it has not."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import failing_parts
import pytest
import torch
from interrupted_runs import EVERY, Interrupted, Stop, interrupted, notes, same_weights, saves
from two_processes import both_ranks

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose
from lrkit.training.run import run_training

BASE = (
    "logger=none", "trainer.max_epochs=3", "model=custom", "model._target_=kinds_of_loaders.Dropping", "data=custom",
    "data._target_=kinds_of_loaders.Loaded", "data.batch_size=8", EVERY[1],
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings(
    "ignore:The dirpath has changed", "ignore:Checkpoint directory", "ignore:The '.*_dataloader' does not have many",
    "ignore:This process .* is multi-threaded", "ignore:'set_vital' is deprecated", "ignore:Your `IterableDataset` has",
)  # fmt: skip

stateful = pytest.mark.skipif(importlib.util.find_spec("torchdata") is None, reason="torchdata is not installed")


@pytest.fixture(autouse=True)
def never() -> Iterator[None]:
    yield
    Stop.at = None


def of(kind: str, workers: int = 0) -> list[str]:
    return [f"+data.kind={kind!r}", f"+data.workers={workers}"]


EXACT = ("shuffled", "in order", "generator", "sampler", "replacement", "weighted", "batch_sampler", "own", "by epoch")
QUICK = (
    ("shuffled", 0), ("generator", 0), ("own", 0), ("noisy", 0), ("shuffled", 2), ("streaming", 0), ("lit", 0),
)  # fmt: skip
SLOW = [
    pytest.param(kind, workers, marks=pytest.mark.slow)
    for kind in (*EXACT, "persistent")
    for workers in (0, 2)
    if (kind, workers) not in QUICK
]


@pytest.mark.parametrize(
    ("kind", "workers"),
    [*QUICK, *SLOW, *(pytest.param(kind, n, marks=pytest.mark.slow) for kind, n in
                      (("noisy", 2), ("two", 0), ("two", 2), ("stream", 0), ("stream", 2))),
     pytest.param("stateful", 0, marks=stateful), pytest.param("stateful", 2, marks=[stateful, pytest.mark.slow])],
)  # fmt: skip
def test_at_the_end_of_an_epoch(kind: str, workers: int, tmp_path: Path) -> None:
    whole, part = interrupted(tmp_path, 11, *of(kind, workers), base=BASE)
    assert same_weights(whole, part)


@pytest.mark.parametrize(
    ("kind", "workers"),
    [*QUICK, *SLOW,
     pytest.param("stateful", 0, marks=stateful), pytest.param("stateful", 2, marks=[stateful, pytest.mark.slow])],
)  # fmt: skip
def test_within_an_epoch(kind: str, workers: int, tmp_path: Path) -> None:
    whole, part = interrupted(tmp_path, 12, *of(kind, workers), saves(11), base=BASE)
    assert same_weights(whole, part)


@pytest.mark.parametrize(
    "more",
    [
        ["trainer.reload_dataloaders_every_n_epochs=2"],
        ["trainer.accumulate_grad_batches=2"],
        *(
            pytest.param([word], marks=pytest.mark.slow)
            for word in (
                "trainer.num_sanity_val_steps=0",
                "trainer.limit_val_batches=0",
                "trainer.max_steps=24",
                "trainer.reload_dataloaders_every_n_epochs=1",
                "trainer.val_check_interval=2",
                "trainer.limit_train_batches=5",
                "trainer.profiler=simple",
            )
        ),
    ],
    ids=lambda more: more[0],
)
def test_whatever_the_trainer_does(more: list[str], tmp_path: Path) -> None:
    """One run that died, and went on, at the end of an epoch; and then, in the next, within it."""
    accumulates = "accumulate" in more[0]
    for name, at, save in (
        ("end", 7 if accumulates else 13, 99),
        ("within", 7 if accumulates else 12, 6 if accumulates else 11),
    ):
        (tmp_path / name).mkdir()
        whole, part = interrupted(tmp_path / name, at, *of("generator"), *more, saves(save), base=BASE)
        assert same_weights(whole, part), name


@pytest.mark.parametrize("kind", ["shuffled", "generator", pytest.param("persistent", marks=pytest.mark.slow)])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_within_the_first_epoch(kind: str, workers: int, tmp_path: Path) -> None:
    """Whose iterator was made before anything else was drawn."""
    whole, part = interrupted(tmp_path, 4, *of(kind, workers), saves(3), base=BASE)
    assert same_weights(whole, part) and len(notes(part)) == (workers > 0)


def test_a_position_without_a_length_is_that_of_the_last_batch_trained(tmp_path: Path) -> None:
    """Lightning has fetched one batch more by then."""
    whole, part = interrupted(tmp_path, 12, *of("unsized"), saves(11), "trainer.max_steps=24", base=BASE)
    assert same_weights(whole, part)


def test_stopped_in_good_order_within_an_epoch(tmp_path: Path) -> None:
    """Lightning validates then, and calls the end of the epoch, where ``Dropping`` draws; other runs do not."""
    halted = [*of("generator"), "+callbacks.halt={_target_: interrupted_runs.Halt, at: 11}"]
    for name, words in (("whole", of("generator")), ("part", halted)):
        (tmp_path / name).mkdir()
        run_training(compose([*BASE, *words]), tmp_path / name, quiet=True)
    run_training(
        compose([*BASE, *of("generator"), "~callbacks.halt", f"resume.path={tmp_path}/part"]), tmp_path / "part"
    )
    assert same_weights(tmp_path / "whole", tmp_path / "part")


@pytest.mark.parametrize(
    ("kind", "workers", "line"),
    [
        ("stream", 0, "DataLoader over Stream cannot skip batches: the resumed epoch starts with its first batches"),
        ("two", 0, "a list of loaders cannot skip batches: the resumed epoch starts with its first batches"),
        ("shuffled", 2, "random numbers that the dataset draws in its 2 worker process(es) differ until this"),
        ("own", 0, "the order of the data comes from Own: the global random numbers and the generators among its"),
    ],
)
def test_what_is_not_as_if_it_had_never_stopped_is_said(kind: str, workers: int, line: str, tmp_path: Path) -> None:
    _, part = interrupted(tmp_path, 12, *of(kind, workers), saves(11), base=BASE)
    assert [line in note for note in notes(part)].count(True) == 1


def test_a_loader_without_a_position_is_named_before_the_first_step(tmp_path: Path, capsys: Any) -> None:
    words = [word for word in BASE if not word.startswith("trainer.max_epochs")]
    run_training(compose([*words, *of("stream"), "trainer.max_epochs=1"]), tmp_path)
    said = capsys.readouterr().out
    note = "note: DataLoader over Stream has no state_dict: if this run is stopped within an epoch"
    assert note in said and said.index(note) < said.index("epoch 1/1")


def test_other_batches_are_refused_within_an_epoch(tmp_path: Path) -> None:
    """Another batch size: a number of batches says nothing of where the data were."""
    Stop.at = 12
    with pytest.raises(Interrupted):
        run_training(compose([*BASE, *of("shuffled"), saves(11)]), tmp_path, quiet=True)
    Stop.at = None
    more = [
        "~callbacks.save",
        "+data.size=16",
        "data.batch_size=16",
        "resume.policy=override",
        f"resume.path={tmp_path}",
    ]
    base = [word for word in BASE if not word.startswith("data.batch_size")]
    with pytest.raises(
        ConfigError, match=r"^data must have the batches of the checkpoint.* 8 of 8 samples on 1 device"
    ):
        run_training(compose([*base, *of("shuffled"), *more]), tmp_path, quiet=True)


@pytest.mark.parametrize("where", ["the end of an epoch", "within an epoch"])
def test_killed(where: str, tmp_path: Path) -> None:
    """By kill -9 after an epoch has ended, and by SIGTERM within one; in processes of their own."""
    words = ["train", *(word for word in BASE if word != EVERY[1]), *of("shuffled")]
    name, code = ("SIGTERM", 143) if where == "within an epoch" else ("SIGKILL", -9)
    signal = f"+callbacks.signal={{_target_: failing_parts.SignalAt, step: 19, name: {name}}}"

    def train(*more: str) -> int:
        process = failing_parts.start([*words, *more], tmp_path)
        process.join(100)
        return int(process.exitcode)

    assert train("hydra.run.dir=whole") == 0, failing_parts.said(tmp_path)
    assert train("hydra.run.dir=part", signal) == code
    assert torch.load(tmp_path / "part/checkpoints/last.ckpt")["global_step"] == (20 if code == 143 else 16)
    assert train("resume.path=part", "~callbacks.signal") == 0, failing_parts.said(tmp_path)
    assert same_weights(tmp_path / "whole", tmp_path / "part")


@pytest.mark.slow
@pytest.mark.parametrize("at", [8, 10])
def test_two_processes(at: int, tmp_path: Path) -> None:
    """Lightning gives their loaders a sampler of its own."""
    base = [word for word in BASE if not word.startswith(("+callbacks.stop", "trainer.max_epochs", "logger"))] + of(
        "shuffled"
    )
    for name in ("whole", "part"):
        (tmp_path / name).mkdir()
    _, _, whole = both_ranks(tmp_path / "whole", *base, "trainer.max_epochs=4")
    more = [f"+callbacks.halt={{_target_: interrupted_runs.Halt, at: {at}}}"]
    _, _, folder = both_ranks(tmp_path / "part", *base, "trainer.max_epochs=4", *more)
    both_ranks(tmp_path / "part", *base, "trainer.max_epochs=4", f"resume.path={folder}", "~callbacks.halt")
    assert same_weights(whole, folder)

"""Two and four processes on one CPU (DDP, gloo): the plan and the training of one process with the same global batch.

The weights are equal to a tolerance, because the gradients of the processes are summed in another order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from several_processes import Done, left_alike, the_run, torchrun, train

from lrkit.base.lightning_package import chosen_package
from lrkit.checkpoint.durable_io import read_checkpoint

pytestmark = pytest.mark.slow

COUNTS = (1, 2, 4)
BATCH, EPOCH = 32, 6  # samples in a step of all processes; steps in an epoch
PLANNED = (
    "trainer.max_epochs=2", f"trainer.limit_train_batches={EPOCH}", "trainer.limit_val_batches=2", "warmup=linear",
    "warmup.length=3", "batch_scaling=linear", "batch_scaling.base_batch_size=16",
)  # fmt: skip


def on(count: int, folder: Path, *overrides: str) -> Done:
    done = train(folder, count, *PLANNED, f"data.batch_size={BATCH // count}", *overrides)
    assert done.code == 0, done.err
    assert len(done.rates) == count and all(rates == done.rates[0] for rates in done.rates)
    return done


def content(run: Path) -> dict[str, Any]:
    found, wrong = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert not wrong
    saved: dict[str, Any] = found
    return saved


def difference(one: Path, other: Path) -> float:
    """The largest difference of a weight between two runs."""
    a, b = content(one)["state_dict"], content(other)["state_dict"]
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Done, Path]]:
    """An undisturbed run on each number of processes."""
    folders = {count: tmp_path_factory.mktemp(f"whole{count}") for count in COUNTS}
    return {count: (on(count, folder), folder) for count, folder in folders.items()}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A run on each number of processes that was stopped after an epoch."""
    folders = {count: tmp_path_factory.mktemp(f"stopped{count}") for count in COUNTS}
    for count, folder in folders.items():
        on(count, folder, f"horizon.stop_after={EPOCH}")
    return folders


@pytest.mark.parametrize("count", COUNTS[1:])
def test_the_plan_and_the_training_are_those_of_one_process(count: int, whole: dict[int, tuple[Done, Path]]) -> None:
    (one, alone), (several, folder) = whole[1], whole[count]
    plans = [json.loads((the_run(each) / "plan.json").read_text()) for each in (alone, folder)]
    for plan in plans:  # the processes are counted once: not in the samples of a step and in the factor again
        assert plan["batch_scale"] == {"rule": "linear", "factor": 2.0, "batch": BATCH, "base": 16}
        assert (plan["horizon"]["steps"], plan["horizon"]["batch_size"]) == (2 * EPOCH, BATCH)
    assert several.rates[0] == one.rates[0] and len(one.rates[0]) == 2 * EPOCH
    assert difference(the_run(alone), the_run(folder)) < 1e-6
    files = {path.name for path in the_run(folder).rglob("*") if path.is_file()}
    assert files == {path.name for path in the_run(alone).rglob("*") if path.is_file()}  # once, not by each process


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4), (4, 1)])
def test_a_run_goes_on_with_another_number_of_processes(
    before: int, after: int, whole: dict[int, tuple[Done, Path]], stopped: dict[int, Path], tmp_path: Path
) -> None:
    saved, more = the_run(stopped[before]), tmp_path / "more"
    words = (f"resume.path={saved}", "resume.policy=override", "horizon.stop_after=null", f"hydra.run.dir={more}")
    done = on(after, tmp_path, *words)
    one, alone = whole[1]
    assert done.rates[0] == one.rates[0][EPOCH:]
    assert content(more)["lrkit"]["step"] == 2 * EPOCH
    assert difference(the_run(alone), more) < 1e-6


def test_within_an_epoch_the_batch_of_a_process_must_stay(tmp_path: Path) -> None:
    on(2, tmp_path, f"horizon.stop_after={EPOCH - 2}")
    more = (f"resume.path={the_run(tmp_path)}", "resume.policy=override", "horizon.stop_after=null")
    done = train(tmp_path, 1, *PLANNED, f"data.batch_size={BATCH}", *more)
    assert done.code == 2
    assert "lrkit: data.batch_size must stay 16 to resume in the middle of an epoch. Received: 32" in done.err


@pytest.mark.parametrize(("policy", "code", "applied"), [("stop", 3, 12), ("skip", 0, 19), ("reduce", 0, 19)])
def test_four_processes_act_alike_if_one_is_ill(policy: str, code: int, applied: int, tmp_path: Path) -> None:
    ill = f"+callbacks.ill={{_target_: diverging_training.Ill, steps: [12], rank: 2, out: '{tmp_path}'}}"
    words = ("trainer.max_epochs=1", "trainer.limit_train_batches=20", "trainer.limit_val_batches=1")
    done = train(tmp_path, 4, *words, "data.batch_size=8", f"guard={policy}", ill)
    assert done.code == code, done.err
    left = left_alike(tmp_path, 4)
    assert left["finite"] and left["applied"] == applied
    (event,) = json.loads((the_run(tmp_path) / "events.json").read_text())
    assert event["event"] == policy and "(process 2)" in event["why"]


def test_the_node_of_a_strategy_trains_as_its_name(whole: dict[int, tuple[Done, Path]], tmp_path: Path) -> None:
    ddp = f"+trainer.strategy._target_={chosen_package()}.strategies.DDPStrategy"
    assert on(2, tmp_path, ddp, "+trainer.strategy.static_graph=true").rates == whole[2][0].rates
    assert difference(the_run(tmp_path), the_run(whole[2][1])) == 0


@pytest.mark.parametrize("placement", ["host", "device"])
def test_the_place_of_the_data_changes_no_number(
    placement: str, whole: dict[int, tuple[Done, Path]], tmp_path: Path
) -> None:
    on(2, tmp_path, f"data.placement={placement}")
    assert difference(the_run(tmp_path), the_run(whole[2][1])) == 0


@pytest.mark.parametrize("package", ["lightning", "pytorch_lightning"])
def test_torchrun_with_either_package_of_lightning(package: str, tmp_path: Path) -> None:
    words = ("trainer.accelerator=cpu", "logger=none", *PLANNED, f"data.batch_size={BATCH // 2}")
    done = torchrun(tmp_path, 2, "-m", "lrkit", "train", *words, LRKIT_LIGHTNING=package)
    assert done.code == 0, done.err
    assert json.loads((the_run(tmp_path) / "metrics.json").read_text())["steps"] == 2 * EPOCH
    assert torch.isfinite(
        torch.cat([each.reshape(-1) for each in content(the_run(tmp_path))["state_dict"].values()])
    ).all()

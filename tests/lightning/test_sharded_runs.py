"""Runs whose parameters two processes share (ModelParallelStrategy, FSDP2, gloo): resumed, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from several_processes import Done, left_alike, the_run, train

from lrkit.base.errors import ConfigError
from lrkit.base.lightning_package import chosen_package
from lrkit.checkpoint.durable_io import read_checkpoint
from lrkit.config.compose import compose
from lrkit.config.resume_options import check


def replicas(data: int, tensor: int) -> tuple[str, ...]:
    """The words for ModelParallelStrategy, with the numbers of processes for the data and for the tensors."""
    return (
        f"+trainer.strategy._target_={chosen_package()}.strategies.ModelParallelStrategy",
        f"+trainer.strategy.data_parallel_size={data}", f"+trainer.strategy.tensor_parallel_size={tensor}",
    )  # fmt: skip


NET = ("model=custom", "model._target_=sharded_module.Net", "data=custom", "trainer.max_epochs=2")
POINTS = "data._target_=plain_lightning.Data"
SHARDED = (*NET, POINTS, "data.batch_size=5", *replicas(2, 1))
TENSORS = (*NET[:1], "model._target_=sharded_module.TensorParallelNet", *NET[2:], POINTS, "data.batch_size=10")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    content, wrong = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert not wrong
    found: dict[str, torch.Tensor] = content["state_dict"]
    return found


def rates(done: Done, ranks: int = 2) -> list[Any]:
    """The rates of all ranks, without those of the steps at rate 0 by which torch creates an optimizer's state."""
    assert done.code == 0, done.err
    assert len(done.rates) == ranks and all(each == done.rates[0] for each in done.rates)
    return [step for step in done.rates[0] if any(step)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("optimizer=adamw", "optimizer.weight_decay=0.5", "optimizer.lr=0.05", "param_groups=no_decay"),
        ("optimizer=sgd", "optimizer.weight_decay=0.5"),
    ],
    ids=["state", "no state"],
)
def test_a_resumed_run_is_the_run_without_a_stop(words: tuple[str, ...], tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    complete = rates(train(whole, 2, *SHARDED, *words))
    first = rates(train(parts, 2, *SHARDED, *words, "horizon.stop_after=5"))
    resumed = (f"resume.path={the_run(parts)}", "horizon.stop_after=null")
    rest = rates(train(parts, 2, *SHARDED, *words, *resumed))
    assert [*first, *rest] == complete and (len(first), len(rest)) == (5, 7)
    expected, found = weights(the_run(whole)), weights(the_run(parts))
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    results = [json.loads((the_run(folder) / "metrics.json").read_text())["final"] for folder in (whole, parts)]
    assert results[0] == results[1]


@pytest.mark.slow
def test_layers_divided_by_tensor_parallelism_train_as_whole_ones(tmp_path: Path) -> None:
    whole, divided, parts = (tmp_path / name for name in ("whole", "divided", "parts"))
    words = ("optimizer=adamw", "optimizer.lr=0.05", "param_groups=no_decay", "trainer.gradient_clip_val=0.1")
    alone = rates(train(whole, 1, *TENSORS, *words, *replicas(1, 1)), ranks=1)
    assert rates(train(divided, 2, *TENSORS, *words, *replicas(1, 2))) == alone
    expected, found = weights(the_run(whole)), weights(the_run(divided))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    first = rates(train(parts, 2, *TENSORS, *words, *replicas(1, 2), "horizon.stop_after=5"))
    resumed = (f"resume.path={the_run(parts)}", "horizon.stop_after=null")
    assert [*first, *rates(train(parts, 2, *TENSORS, *words, *replicas(1, 2), *resumed))] == alone
    assert all(torch.equal(found[name], value) for name, value in weights(the_run(parts)).items())


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_sharded_run_goes_on_with_another_number_of_processes(before: int, after: int, tmp_path: Path) -> None:
    """A step has the same samples with each number. One process has no strategy, and its module is not divided."""

    def on(folder: Path, count: int, *more: str) -> list[Any]:
        data = ("data._target_=plain_lightning.UnshuffledData", "+data.n=64", f"data.batch_size={16 // count}")
        sharding = replicas(count, 1) if count > 1 else ("trainer.strategy=auto",)
        words = (*NET, *data, "optimizer=adamw", "optimizer.lr=0.05", *sharding)
        return rates(train(folder, count, *words, *more), ranks=count)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    complete = on(whole, before)
    first = on(parts, before, "horizon.stop_after=4")
    rest = on(parts, after, f"resume.path={the_run(parts)}", "horizon.stop_after=null", "resume.policy=override")
    assert [*first, *rest] == complete and (len(first), len(rest)) == (4, 4)
    _, resumed = sorted((parts / "outputs" / "runs").iterdir())
    torch.testing.assert_close(weights(resumed), weights(the_run(whole)), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "code", "applied"), [("stop", 3, 6), ("skip", 0, 11), ("reduce", 0, 11)])
def test_the_guard_acts_alike_on_processes_with_shards(policy: str, code: int, applied: int, tmp_path: Path) -> None:
    ill = f"+callbacks.ill={{_target_: diverging_training.Ill, steps: [6], rank: 1, out: '{tmp_path}'}}"
    done = train(tmp_path, 2, *SHARDED, "optimizer=adamw", f"guard={policy}", ill)
    assert done.code == code, done.err
    left = left_alike(tmp_path, 2)
    assert left["finite"] and left["applied"] == applied
    (event,) = json.loads((the_run(tmp_path) / "events.json").read_text())
    assert event["event"] == policy and "(process 1)" in event["why"]


def test_a_folder_of_shards_is_refused_with_the_reason(tmp_path: Path) -> None:
    shards = tmp_path / "checkpoints" / "last.ckpt"
    shards.mkdir(parents=True)
    (shards / ".metadata").write_bytes(b"")
    for path in (tmp_path, shards):
        config: Any = compose([f"resume.path={path}"])
        with pytest.raises(ConfigError, match=r"must be a checkpoint in one file: .* is a folder of shards"):
            check(config)

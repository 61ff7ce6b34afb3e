"""Runs whose parameters two processes share (ModelParallelStrategy, FSDP2, gloo): resumed, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from several_processes import Done, the_run, train

from lrkit.base.errors import ConfigError
from lrkit.base.lightning_package import chosen_package
from lrkit.checkpoint.durable_io import read_checkpoint
from lrkit.config.compose import compose
from lrkit.config.resume_options import check

SHARDED = (
    "model=custom", "model._target_=sharded_module.Net", "data=custom", "data._target_=plain_lightning.Data",
    "data.batch_size=5", "trainer.max_epochs=2",
    f"+trainer.strategy._target_={chosen_package()}.strategies.ModelParallelStrategy",
    "+trainer.strategy.data_parallel_size=2", "+trainer.strategy.tensor_parallel_size=1",
)  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    content, wrong = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert not wrong
    found: dict[str, torch.Tensor] = content["state_dict"]
    return found


def rates(done: Done) -> list[Any]:
    """The rates of both ranks, without those of the steps at rate 0 by which torch creates an optimizer's state."""
    assert done.code == 0, done.err
    first, second = done.rates
    assert first == second
    return [step for step in first if any(step)]


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


def test_a_folder_of_shards_is_refused_with_the_reason(tmp_path: Path) -> None:
    shards = tmp_path / "checkpoints" / "last.ckpt"
    shards.mkdir(parents=True)
    (shards / ".metadata").write_bytes(b"")
    for path in (tmp_path, shards):
        config: Any = compose([f"resume.path={path}"])
        with pytest.raises(ConfigError, match=r"must be a checkpoint in one file: .* is a folder of shards"):
            check(config)

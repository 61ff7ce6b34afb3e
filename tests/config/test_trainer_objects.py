"""Strategies, plugins and profilers as objects in the node ``trainer``: which are built, and which are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lrkit.base.errors import ConfigError
from lrkit.base.event_log import EventLog
from lrkit.base.lightning_package import chosen_package
from lrkit.cli.main import main
from lrkit.config.compose import check, compose, plan, replicas_of
from lrkit.lightning import failsafe_loggers, imports
from lrkit.lightning.imports import LightningEnvironment, TensorBoardLogger, Trainer
from lrkit.lightning.trainer_objects import check_trainer, trainer_of

CPU = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False,
       "enable_progress_bar": False, "enable_model_summary": False}  # fmt: skip


def node(path: str, **options: Any) -> dict[str, Any]:
    return {"_target_": f"{chosen_package()}.{path}", **options}


def test_they_are_built_with_their_options() -> None:
    options = {
        **CPU,
        "strategy": node("strategies.DDPStrategy", find_unused_parameters=True),
        "plugins": [node("plugins.environments.LightningEnvironment"), node("plugins.TorchCheckpointIO")],
        "profiler": node("profilers.SimpleProfiler"),
    }
    trainer: Any = trainer_of(options)
    assert trainer.strategy._ddp_kwargs == {"find_unused_parameters": True}
    assert type(trainer.profiler).__name__ == "SimpleProfiler"
    assert isinstance(trainer._accelerator_connector.cluster_environment, LightningEnvironment)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("+trainer.strategy._target_={}.strategies.DDPStrategi",
         "trainer.strategy._target_ does not exist: {}.strategies has no DDPStrategi. Did you mean 'DDPStrategy'?"),
        ("+trainer.strategy._target_={}.callbacks.EarlyStopping",
         "trainer.strategy._target_ must be a Lightning strategy. Received: '{}.callbacks.EarlyStopping'"),
        ("trainer.plugins=[{{_target_: {}.callbacks.EarlyStopping}}]",
         "trainer.plugins[0]._target_ must be a Lightning plugin: of precision, checkpoints, the cluster"),
        ("+trainer.profiler._target_={}.strategies.DDPStrategy",
         "trainer.profiler._target_ must be a Lightning profiler."),
        ("+trainer.strategy._target_={}.strategies.DDPStrategy +trainer.strategy.start_method=spawn",
         "trainer.strategy must start new processes, not copies of this one: use trainer.strategy=ddp."),
        ("trainer.strategy=ddp_spawn", "trainer.strategy must start new processes, not copies of this one"),
        ("trainer.strategy=ddp_fork", "trainer.strategy must start new processes, not copies of this one"),
        ("trainer.strategy=ddp_notebook_find_unused_parameters_true",
         "trainer.strategy must start new processes, not copies of this one"),
        ("trainer.strategy=fsdp trainer.accelerator=cpu",
         "trainer.strategy was refused by Lightning: The strategy `fsdp` requires a GPU accelerator"),
        ("+trainer.strategy._target_={}.strategies.FSDPStrategy trainer.accelerator=cpu",
         "trainer.strategy was refused by Lightning: The strategy `fsdp` requires a GPU accelerator"),
        ("trainer.strategy=dpp", "trainer.strategy must be one of auto, ddp, "),
        ("+trainer.strategy._target_={}.strategies.ModelParallelStrategy optimizer=prodigy trainer.devices=2",
         "optimizer must not be prodigy with trainer.strategy=ModelParallelStrategy: the step of Prodigy fails on"),
        ("+trainer.strategy._target_={}.strategies.ModelParallelStrategy optimizer=adafactor optimizer.lr=auto",
         "optimizer must not be adafactor with trainer.strategy=ModelParallelStrategy"),
        ("+trainer.strategy._target_={}.strategies.ModelParallelStrategy optimizer=schedule_free_sgd schedule=constant",
         "optimizer must not be schedule_free_sgd with trainer.strategy=ModelParallelStrategy: checkpoints have both"),
        ("trainer.strategy=fsdp optimizer=muon",
         "optimizer must not be muon with trainer.strategy=FSDPStrategy: Muon computes with whole tensors"),
        ("trainer.strategy=deepspeed_stage_2 optimizer=ranger",
         "optimizer must not be ranger with trainer.strategy=DeepSpeedStrategy: Ranger computes with whole tensors"),
        ("trainer.strategy=deepspeed", "trainer.strategy must not be DeepSpeed with checkpoints: a folder of shards"),
        ("+trainer.strategy._target_={}.strategies.ModelParallelStrategy"
         " +trainer.strategy.save_distributed_checkpoint=true",
         "trainer.strategy.save_distributed_checkpoint must be false with checkpoints: a folder of shards cannot be"),
        ("+trainer.strategy._target_={}.strategies.FSDPStrategy +trainer.strategy.state_dict_type=sharded",
         "trainer.strategy.state_dict_type must be full with checkpoints: a folder of shards cannot be resumed"),
        ("trainer.devices=4 +trainer.strategy._target_={}.strategies.ModelParallelStrategy"
         " +trainer.strategy.data_parallel_size=3 +trainer.strategy.tensor_parallel_size=1",
         "trainer.strategy.data_parallel_size x tensor_parallel_size (1) must be 4, the number of processes"),
    ],
)  # fmt: skip
def test_what_they_are_not_is_refused_in_one_line(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    package = chosen_package()
    words = words.replace("{{", "{").replace("}}", "}").replace("{}", package)
    argv = [words] if "[" in words else words.split()
    assert main(["train", *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"lrkit: {said.replace('{}', package)}") and err.count("\n") == 1
    assert [*Path("outputs").rglob("*.json")] == []


@pytest.mark.parametrize(
    ("strategy", "devices", "nodes", "count"),
    [
        ({}, 4, 2, 2),  # Lightning's own rule: as many replicas as nodes
        ({"data_parallel_size": 4, "tensor_parallel_size": 2}, 4, 2, 4),
        ({"data_parallel_size": 8, "tensor_parallel_size": 1}, 4, 2, 8),
        ({"tensor_parallel_size": 4}, 4, 1, 1),
    ],
)
def test_a_model_that_is_divided_counts_once(strategy: dict[str, Any], devices: int, nodes: int, count: int) -> None:
    divided = {"strategy": node("strategies.ModelParallelStrategy", **strategy), "devices": devices, "num_nodes": nodes}
    assert replicas_of(divided) == (count, False)
    config = compose([f"trainer.devices={devices}", f"trainer.num_nodes={nodes}", "data.batch_size=8"])
    resolved = plan({**config, "trainer": {**config["trainer"], **divided}})
    assert resolved.horizon.batch_size == 8 * count


def test_a_search_refuses_such_an_optimizer_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["find", "trainer.strategy=fsdp", "optimizer=muon"]) == 2
    assert capsys.readouterr().err.startswith("lrkit: optimizer must not be muon with trainer.strategy=FSDPStrategy")


@pytest.mark.parametrize("command", [["find"], ["train", "optimizer.lr=auto"]])
def test_a_search_refuses_such_an_object_before_it_trains(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, "trainer.profiler={_target_: os.system}"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("lrkit: trainer.profiler._target_ must be a Lightning profiler.") and not said.out


@pytest.mark.parametrize(("said", "whole"), [({}, False), ({"save_distributed_checkpoint": True}, True)])
def test_a_divided_model_has_checkpoints_in_one_file_unless_it_is_said(said: dict[str, bool], whole: bool) -> None:
    divided = node("strategies.ModelParallelStrategy", **said)
    trainer: Any = trainer_of({**CPU, "strategy": divided})
    assert trainer.strategy._save_distributed_checkpoint is whole
    unsaved = ["trainer.enable_checkpointing=false", "trainer.fast_dev_run=true"]
    for word in unsaved:
        config = compose([word])
        check_trainer({**config, "trainer": {**config["trainer"], "strategy": divided}})


def test_a_file_may_name_lightnings_own_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    head = "# @package _global_\ntrainer:\n  strategy:\n    _target_: "
    file.write_text(f"{head}{chosen_package()}.strategies.DDPStrategy\n")
    check(compose(["+experiment=mine"], str(tmp_path)))
    file.write_text(f"{head}mine.Strategy\n")
    with pytest.raises(ConfigError, match="if it is yours, add --trust mine"):
        compose(["+experiment=mine"], str(tmp_path))


@pytest.mark.parametrize("option", ["accelerator", "strategy"])
def test_a_package_of_the_users_may_register_names_with_lightning(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    word = f"trainer.{option}=sota"
    with pytest.raises(ConfigError, match=f"trainer.{option} must be one of auto, .* Received: 'sota'"):
        check(compose([word]))
    with pytest.raises(ConfigError, match=f"trainer.{option} must be one of auto"):  # these register no more
        check(compose([word], trust=["lrkit.models", "torch.nn"]))
    config = compose([word], trust=["mycode"])
    check(config)  # the package is not imported for it
    with pytest.raises(ConfigError, match=f"trainer.{option} must be one of auto, .* Received: 'sota'"):
        check_trainer(config)
    registry: Any = getattr(imports, f"{option.capitalize()}Registry")
    known = {"accelerator": "cpu", "strategy": "ddp"}[option]
    monkeypatch.setitem(registry, "sota", {**registry[known]})
    check_trainer(config)
    trainer: Any = trainer_of({**CPU, option: "sota"})
    assert type(getattr(trainer, option)) is registry["sota"][option]


def test_the_logger_of_another_process_takes_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning gives it an experiment that lacks half of TensorBoard's methods."""
    monkeypatch.setattr("lightning_utilities.core.rank_zero.rank_zero_only.rank", 1)
    logger = TensorBoardLogger(tmp_path)
    trainer = Trainer(**{**CPU, "logger": logger})  # type: ignore[arg-type]
    monkeypatch.setattr("lightning_utilities.core.rank_zero.rank_zero_only.rank", 1)
    failsafe_loggers.guard_loggers(trainer, ["tensorboard"], EventLog(None))
    logger.experiment.file_writer.add_summary("anything", 0)
    logger.experiment.add_scalar("lr", 0.1, 0)
    assert [*tmp_path.iterdir()] == []

"""The logs in TensorBoard: tags, the learning rate at its own interval, hyperparameters with real metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded_rates import Recorded
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

LOGS = "logger=tensorboard"


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    accumulator = events(folder)
    return {tag: {e.step: e.value for e in accumulator.Scalars(tag)} for tag in accumulator.Tags()["scalars"]}


def test_the_tags(train: Callable[..., Any]) -> None:
    run = train(LOGS, "schedule=one_cycle", "plateau=reduce", "optimizer=adamw", "param_groups=no_decay",
                "schedule@coschedule.weight_decay=linear")  # fmt: skip
    groups = ("default", "no_decay")
    assert set(scalars(run.folder)) == {
        "train/loss", "val/loss", "val/accuracy", "gain", "epoch",
        *(f"{name}/{group}" for name in ("lr", "momentum", "weight_decay") for group in groups),
        *(f"result/{when} {name}" for when in ("best", "final") for name in ("train/loss", "val/loss", "val/accuracy")),
    }  # fmt: skip


def test_what_does_not_move_is_not_logged(train: Callable[..., Any]) -> None:
    tags = set(scalars(train(LOGS).folder))
    assert not {tag for tag in tags if tag.startswith(("momentum", "weight_decay", "gain"))}


def test_the_logged_rate_is_the_used_rate(train: Callable[..., Any], recorded: Recorded) -> None:
    run = train(LOGS, "warmup=linear", "schedule=restarts")
    logged = scalars(run.folder)["lr/default"]
    assert logged == {t: pytest.approx(step["default"][0], rel=1e-6) for t, step in enumerate(recorded)}


def test_first_edges_and_last_are_logged_whatever_the_cadence(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lrkit.callbacks.lr_logger.LearningRateLogger.points", 1)
    run = train(LOGS, "warmup=linear", "warmup.length=7", "schedule=multistep", "schedule.milestones=[11,19]",
                "trainer.limit_train_batches=30")  # fmt: skip
    assert list(scalars(run.folder)["lr/default"]) == [0, 7, 18, 26, 29]


def test_every_change_of_the_gain_is_logged(train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrkit.callbacks.lr_logger.LearningRateLogger.points", 1)
    run = train(LOGS, "schedule=constant", "plateau=reduce", "plateau.patience=0", "plateau.threshold=1e9",
                "plateau.threshold_mode=abs", "plateau.factor=0.5", "trainer.max_epochs=3")  # fmt: skip
    assert scalars(run.folder)["gain"] == {0: 1.0, 12: 0.5, 17: 0.5}


def test_each_epoch_has_a_point_of_the_training_loss(train: Callable[..., Any]) -> None:
    run = train(LOGS, "trainer.max_epochs=3", "trainer.limit_train_batches=2")
    assert list(scalars(run.folder)["train/loss"]) == [1, 3, 5]
    assert list(scalars(train(LOGS, "trainer.limit_train_batches=1").folder)["train/loss"]) == [0]


def hparams(folder: Path) -> tuple[set[str], list[str]]:
    """Names of hyper-parameters, and tags of metrics, as the HParams tab reads them."""
    plugin = events(folder).summary_metadata
    contents = [m.plugin_data.content for m in plugin.values() if m.plugin_data.plugin_name == "hparams"]
    data = [HParamsPluginData.FromString(content) for content in contents]
    start = next(d for d in data if d.HasField("session_start_info"))
    experiment = next(d for d in data if d.HasField("experiment"))
    return set(start.session_start_info.hparams), [m.name.tag for m in experiment.experiment.metric_infos]


def test_hyper_parameters_come_with_real_metrics_and_the_same_keys(train: Callable[..., Any]) -> None:
    one, two = train(LOGS, "optimizer.lr=0.05"), train(LOGS, "optimizer.lr=0.1", "seed=1")
    names, metrics = hparams(one.folder)
    assert hparams(two.folder)[0] == names >= {"optimizer.lr", "schedule", "seed", "data.batch_size", "warmup"}
    assert "result/best val/loss" in metrics and "hp_metric" not in metrics
    assert scalars(one.folder)["result/final val/loss"] == {6: pytest.approx(one.final["val/loss"])}
    assert "hp_metric" not in scalars(one.folder)


def test_the_plan_is_among_the_images(train: Callable[..., Any]) -> None:
    run = train("logger=tensorboard", "warmup=linear")
    events = EventAccumulator(str(run.folder), {"images": 0}).Reload()
    (image,) = events.Images("plan")
    assert image.step == 0 and image.encoded_image_string.startswith(b"\x89PNG") and image.width > 500

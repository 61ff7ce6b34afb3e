"""A failing logger is reported once, and the training continues without it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lrkit.base.errors import ConfigError
from lrkit.lightning.imports import Callback, TensorBoardLogger


def event_log(folder: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((folder / "events.json").read_text())
    return entries


def server(at: str, after: int = 0) -> tuple[str, str]:
    return "logger=none", f"+logger.server={{_target_: failing_parts.ServerDown, at: {at}, after: {after}}}"


@pytest.mark.parametrize("at", ["experiment", "log_metrics", "save", "finalize", "after_save_checkpoint"])
def test_a_server_that_is_down_does_not_end_the_training(
    at: str, train: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(*server(at))
    assert run.status == "done"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lrkit: logger.server has failed at step ")
    assert "(ConnectionError: the server is down" in line and line.endswith("; training goes on without it")
    (entry,) = event_log(run.folder)
    assert (entry["event"], entry["logger"]) == ("logger", "server") and entry["why"].startswith("ConnectionError")


def test_the_numbers_are_those_of_a_run_without_it(train: Callable[..., Any]) -> None:
    assert train(*server("log_metrics", after=3)).final == train("logger=none").final


def test_others_go_on(train: Callable[..., Any]) -> None:
    run = train("logger=tensorboard", server("log_metrics")[1])
    assert [entry["logger"] for entry in event_log(run.folder)] == ["server"]
    assert [*run.folder.rglob("events.out.tfevents*")]


def test_what_a_logger_refuses_when_it_is_made_is_refused(train: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"^logger\.server"):
        train("logger=none", "+logger.server={_target_: failing_parts.ServerDown}")


class Spoil(Callback):
    """Takes the folder away from under TensorBoard, or lets each of its writes fail as on a full disk."""

    def __init__(self, how: str) -> None:
        self.how = how

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        logger = trainer.loggers[0]
        assert isinstance(logger, TensorBoardLogger)
        if self.how == "deleted":
            shutil.rmtree(logger.log_dir)
        else:
            writer = logger.experiment.file_writer.event_writer._async_writer._writer

            def full(*args: Any) -> None:
                raise OSError(28, "No space left on device")

            writer.write = writer.flush = full

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        logger = trainer.loggers[0]
        logger.experiment.add_scalar("mine", 1.0, trainer.global_step)  # as a user's code does
        logger.save()


@pytest.mark.parametrize("how", ["full", "deleted"])
def test_a_writer_that_dies_is_told_of_without_a_traceback(
    how: str, train: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = threading.excepthook
    own = f"save_dir: '{tmp_path / 'curves'}', name: '', version: ''"
    run = train(
        "logger=none", f"+logger.board={{_target_: pytorch_lightning.loggers.TensorBoardLogger, {own}}}",
        f"+callbacks.spoil={{_target_: test_failsafe_loggers.Spoil, how: {how}}}",
    )  # fmt: skip
    assert run.status == "done" and run.final["val/loss"] > 0
    said = capsys.readouterr().err
    assert said.startswith("lrkit: logger.board has failed at step ") and said.count("\n") == 1
    assert [entry["event"] for entry in event_log(run.folder)] == ["logger"]
    assert threading.excepthook is before

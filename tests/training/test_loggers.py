"""Several loggers, by a list or a preset; results for each; Weights & Biases and MLflow, where they are installed."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from locations import python_path

from lrkit.base.errors import ConfigError
from lrkit.callbacks.logger_run_ids import LoggerRuns, log_hyperparameters, read_run_ids
from lrkit.config.compose import check, compose
from lrkit.training.loggers import build_loggers
from lrkit.training.run import run_training

SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=8", "model.hidden=[8]"]


@pytest.mark.parametrize(
    ("override", "loggers"),
    [
        ("logger=csv", ["csv"]),
        ("logger=[tensorboard,csv]", ["tensorboard", "csv"]),
        ("logger=many", ["tensorboard", "csv"]),
        ("logger=[none]", []),
        ("logger=[csv,wandb,mlflow]", ["csv", "wandb", "mlflow"]),
    ],
)
def test_a_list_chooses_several_loggers(override: str, loggers: list[str]) -> None:
    config = compose([override])
    assert list(config["logger"]) == loggers
    check(config)  # which needs no package: a plan may be shown anywhere


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "logger=[]",
            r"^logger must be a list of different options; logger=none chooses none of them\. Received: \[\]",
        ),
        ("callbacks=[default,default]", r"^callbacks must be a list of different options"),
        ("logger=[csv,wandbb]", r"^logger has no option 'wandbb'\. Did you mean 'wandb'\?"),
        ("data=[digits,text]", r"^data takes one option; to sweep: -m data=digits,text"),
        ("+logger=csv", r"^logger is chosen already: write logger=csv, without the \+"),
    ],
)
def test_other_lists_are_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose([override])


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    said = rf"^logger\.{name} needs the package {name}: pip install 'lrkit\[{name}\]'\.$"
    with pytest.raises(ConfigError, match=said):  # before data is read: there is no such file
        run_training(compose([f"logger={name}", "data=idx", "data.path=nowhere"]), tmp_path)


def test_only_the_command_line_sends_results_to_a_server(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /logger: wandb\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"may send results to a server, so set logger=wandb on the command line\. "):
        compose(["+experiment=mine"], str(tmp_path))
    assert compose(["+experiment=mine", "logger=[csv,wandb]"], str(tmp_path))["logger"]["wandb"]["project"] == "lrkit"


def test_each_logger_gets_the_results(tmp_path: Path) -> None:
    run_training(compose([*SHORT, "logger=many"]), tmp_path, quiet=True)
    last = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))[-1]
    results = json.loads((tmp_path / "metrics.json").read_text())
    for name, value in results["final"].items():
        assert float(last[f"result/final {name}"]) == value
    assert float(last["result/best val/loss"]) == results["best"]["val/loss"]
    assert "optimizer.lr: 0.1" in (tmp_path / "hparams.yaml").read_text()
    assert list(tmp_path.glob("events.out.tfevents*")) and not (tmp_path / "loggers.json").exists()


class MLFlowLogger:
    """The methods that lrkit calls, with the rule of MLflow: a parameter never changes."""

    def __init__(self, **options: Any) -> None:
        self.options, self.run_id = options, options.get("run_id") or "new"
        self.params: dict[str, str] = {}
        self.tags: dict[str, Any] = {}

    experiment = property(lambda self: self)

    def get_run(self, run_id: str) -> Any:
        return type("Run", (), {"data": type("Data", (), {"params": self.params})})

    def set_tag(self, run_id: str, name: str, value: Any) -> None:
        self.tags[name] = value

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        assert not params.keys() & self.params.keys()
        self.params |= {name: str(value) for name, value in params.items()}


def test_changed_hyperparameters_of_a_continued_run_are_tags() -> None:
    logger: Any = MLFlowLogger()
    log_hyperparameters(logger, {"optimizer.lr": 0.1, "trainer.max_epochs": 1})
    log_hyperparameters(logger, {"optimizer.lr": 0.1, "trainer.max_epochs": 2, "seed": 0})
    assert logger.params == {"optimizer.lr": "0.1", "trainer.max_epochs": "1", "seed": "0"}
    assert logger.tags == {"trainer.max_epochs": 2}


def test_a_resumed_run_continues_the_runs_of_its_loggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("lrkit.config.compose.build", lambda node, key, trust: MLFlowLogger(**node))
    config = compose(["logger=mlflow"])
    (first,) = build_loggers(config, tmp_path, None)
    assert first.options["run_id"] is None  # type: ignore[attr-defined]
    assert first.options["tracking_uri"] == f"sqlite:///{tmp_path / 'mlflow.db'}"  # type: ignore[attr-defined]
    trainer: Any = type("Trainer", (), {"is_global_zero": True, "loggers": [first]})
    LoggerRuns(tmp_path, ["mlflow"]).on_train_start(trainer, None)  # type: ignore[arg-type]
    assert read_run_ids(tmp_path) == {"mlflow": "new"}
    for joins, run_id in ((8, "new"), (None, None)):
        assert build_loggers(config, tmp_path, joins)[0].options["run_id"] == run_id  # type: ignore[attr-defined]
    (tmp_path / "loggers.json").write_text('{"mlflow": "../x", "wandb": 3}')
    assert read_run_ids(tmp_path) == {}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    assert build_loggers(config, tmp_path, None)[0].options["tracking_uri"] == "http://there"  # type: ignore[attr-defined]


@pytest.mark.slow
def test_wandb_and_mlflow_are_used_and_continued(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    base = ["logger=[csv,wandb,mlflow]", "logger.wandb.offline=true", "model.hidden=[8]"]
    two = ["trainer.limit_train_batches=2", "trainer.max_epochs=3"]
    fate = ["+callbacks.fate={_target_: failing_jobs.Fate, fates: [run raise]}", "hydra.run.dir=run"]
    for more, code in ((["seed=3", *two, *fate], 1), (["callbacks=default", "resume.path=run"], 0)):
        command = [sys.executable, "-m", "lrkit", "train", *base, *more]
        path = os.pathsep.join(filter(None, (python_path(), os.environ.get("PYTHONPATH"))))
        env = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == code and "logger" not in done.stderr, done.stdout + done.stderr
    ids = read_run_ids(tmp_path / "run")
    offline = [path.name.rpartition("-")[2] for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert offline == [ids["wandb"]] * 2
    with sqlite3.connect(tmp_path / "run" / "mlflow.db") as store:
        assert store.execute("select run_uuid, status from runs").fetchall() == [(ids["mlflow"], "FINISHED")]
        params = dict(store.execute("select key, value from params").fetchall())
        tags = dict(store.execute("select key, value from tags").fetchall())
        metrics = dict(store.execute("select key, value from latest_metrics").fetchall())
        rates = store.execute("select step from metrics where key = 'lr/default' order by step").fetchall()
    results = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert params["optimizer.lr"] == "0.1"
    assert params["seed"] == "3" and "seed" not in tags
    assert metrics["result/final val/loss"] == results["final"]["val/loss"]
    assert metrics["result/best val/loss"] == results["best"]["val/loss"]
    assert rates[-1][0] == results["steps"] - 1 == 5
    kept = [(tmp_path / "run" / name).read_text().count("\n") for name in ("metrics.csv", "from_step_2/metrics.csv")]
    assert min(kept) > 2  # the first part is not deleted
    assert not (tmp_path / "mlruns").exists()

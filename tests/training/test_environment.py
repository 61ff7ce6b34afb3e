"""The record of a run's environment: what it has, what it leaves out, and that no start is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from lrkit.base.command_line import command_line_of, current_command
from lrkit.training import environment


def starts(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "environment.json").read_text())["starts"]
    return found


def test_each_start_of_a_run_is_recorded(train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "hunter2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    with command_line_of(["train", "schedule=step", "optimizer.lr=0.1"]):
        run = train("horizon.stop_after=4")
    (first,) = starts(run.folder)
    assert first["command"] == "lrkit train schedule=step optimizer.lr=0.1" and first["step"] == 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["time"]) and first["folder"] == str(Path.cwd())
    assert first["versions"]["torch"] == version("torch") and {"lrkit", "hydra-core"} <= {*first["versions"]}
    device = {"kind": "cpu", "on_each_node": 1, "nodes": 1, "processes": 1, "threads": 1, "precision": "32-true"}
    assert device.items() <= first["device"].items() and first["device"]["name"]
    assert first["cluster"] == {"SLURM_ARRAY_TASK_ID": "7"}
    assert "hunter2" not in (run.folder / "environment.json").read_text()
    config = (run.folder / "config.yaml").read_text()
    with command_line_of(["train", f"resume.path={run.folder}"]):
        resume(run.folder, "horizon.stop_after=null")
    assert starts(run.folder)[0] == first
    assert (starts(run.folder)[1]["command"], starts(run.folder)[1]["step"]) == (
        f"lrkit train resume.path={run.folder}", 4)  # fmt: skip
    assert "stop_after: 4" in config and "stop_after: null" in (run.folder / "config.yaml").read_text()


def resume(folder: Path, *more: str) -> None:
    from lrkit.config.compose import compose
    from lrkit.training.run import run_training

    run_training(compose([f"resume.path={folder}", *more]), folder, quiet=True)


class Device:
    """As much of a trainer as the record asks for."""

    strategy = type("", (), {"root_device": torch.device("cpu")})
    num_devices = num_nodes = world_size = 2
    precision = "bf16-mixed"


def test_no_start_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer: Any = Device()
    for step in (0, 5):
        environment.record_start(tmp_path, {"command": "a"}, trainer, step)
    assert [(each["step"], each["device"]["precision"]) for each in starts(tmp_path)] == [
        (0, "bf16-mixed"), (5, "bf16-mixed")]  # fmt: skip
    (tmp_path / "environment.json").write_text('{"starts": [{"command": "a"')
    environment.record_start(tmp_path, {"command": "b"}, trainer, 6)
    assert len(starts(tmp_path)) == 1
    assert (tmp_path / "environment.damaged.json").read_text() == '{"starts": [{"command": "a"'
    environment.record_start(tmp_path / "missing", {}, trainer, 0)  # a full disk, say: the run goes on


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "schedule=step", "a b"], "lrkit train schedule=step 'a b'"),
        (["train", "--config", "x.yaml", "-m", "seed=1,2"], "lrkit train --config x.yaml -m seed=1,2"),
        (["train", "config_file='a=1/x.yaml'", "seed=1"], "lrkit train --config a=1/x.yaml seed=1"),
        (["train", "logger.w.api_key=1"], "lrkit train 'logger.w.api_key=***'"),
        (["train", "+x={token: abc, b: 1}", "hf_token=a"], "lrkit train '+x={token: ***, b: 1}' 'hf_token=***'"),
        (["train", "horizon.tokens_per_sample=5"], "lrkit train horizon.tokens_per_sample=5"),
        (["train", "--api-key", "abc"], "lrkit train --api-key '***'"),
    ],
)  # fmt: skip
def test_the_command_hides_secrets(words: list[str], expected: str) -> None:
    with command_line_of(words):
        assert current_command() == expected


def test_a_program_has_its_own_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.orig_argv", ["python", "my script.py", "--password=x"])
    with command_line_of([]):
        assert current_command() == "python 'my script.py' '--password=***'"

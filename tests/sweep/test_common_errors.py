"""An error of all jobs is told once, before the first job; an error of some jobs is their own."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from lrkit.base.process_pool import Slots
from lrkit.cli.main import main
from lrkit.config.compose import compose
from lrkit.sweep import common_errors
from lrkit.sweep.common_errors import check_jobs
from lrkit.sweep.job import job_identity, list_jobs

EARLY = "pytorch_lightning.callbacks.EarlyStopping"


def answer(tmp_path: Path, *jobs: str) -> str:
    """The error that the jobs have in common, or an empty text."""
    file = tmp_path / "error.json"
    assert check_jobs([job.split() for job in jobs], None, str(file)) == 0
    if not file.exists():
        return ""
    error = json.loads(file.read_text())
    return f"{error['key']} {error['must']} {error.get('received', '')}".strip()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data=mnist1d", "data=mnist1d needs the package mnist1d: pip install 'lrkit[mnist1d]'"),
        ("data=idx data.path=nowhere", "data.path must be an existing folder nowhere"),
        (
            "data=arrays data.path=nowhere.csv",
            "data.path must be a readable file: No such file or directory nowhere.csv",
        ),
        ("data=text data.path=nowhere.txt", "data.path must be a readable file: "),
        ("trainer.devices=[7] trainer.accelerator=gpu", "trainer"),
        (f"+callbacks.es={{_target_:{EARLY},monitr:x}}", "callbacks.es.monitr is not a key. Did you mean 'monitor'?"),
        (f"+callbacks.es={{_target_:{EARLY}}}", "callbacks.es cannot be built: "),
        ("model=custom model._target_=torch.nn.Linear +model.in_feature=3", "model.in_feature is not a key."),
        ("horizon.steps=1000", "horizon.steps must be 570, the number of optimizer steps of the run; trainer.max_"),
        ("model._target_=torch.nn.Linear", "model.inputs is for lrkit's own networks"),
        ("optimizer._target_=torch.optim.Nope", "optimizer._target_ torch.optim has no Nope."),
        ("trainer.strategy=fsdp trainer.accelerator=cpu", "trainer"),
    ],
)
def test_an_error_of_all_jobs_is_found(
    override: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_of_it(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("lrkit.data.mnist1d.metadata.version", none_of_it)
    monkeypatch.chdir(tmp_path)
    assert answer(tmp_path, f"seed=1 {override}", f"seed=2 {override}").startswith(said)
    assert [path.name for path in tmp_path.iterdir()] == ["error.json"]


def test_nothing_is_said_of_jobs_that_are_fine_or_fail_in_their_own_way(tmp_path: Path) -> None:
    assert answer(tmp_path, "seed=1") == ""
    assert answer(tmp_path, "data=idx data.path=nowhere", "seed=2") == ""


def test_it_is_one_line_before_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_here(work: object, logs: object, share: Slots, *, begin: object, ended: object, preload: object) -> None:
        assert work is check_jobs and share.count == 1
        check_jobs(*begin(0))  # type: ignore[operator]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common_errors, "run_jobs", run_here)
    for engine in ((), ("hydra/launcher=basic",)):
        assert main(["train", "-m", "seed=1,2,3", "data=idx", "data.path=nowhere", *engine]) == 2
        said = capsys.readouterr()
        assert said.err == "lrkit: data.path must be an existing folder. Received: 'nowhere'\n" and said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_without_a_job_to_run_starts_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_process() -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", no_process)
    words, folder = ["seed=1,2"], tmp_path / "sweep"
    states = {}
    for job in list_jobs(words, folder, None):
        job.folder.mkdir(parents=True)
        (job.folder / "metrics.json").write_text('{"status": "done"}')
        states[job.folder.name] = {"id": job_identity(compose(job.overrides)), "status": "done"}
    (folder / "sweep.json").write_text(json.dumps({"overrides": words, "serial": 1, "jobs": states}))
    command = ["train", "-m", *words, f"hydra.sweep.dir={folder}"]
    assert main(command) == 0
    assert "2 of 2 jobs are done" in capsys.readouterr().out
    states.popitem()
    (folder / "sweep.json").write_text(json.dumps({"overrides": words, "serial": 1, "jobs": states}))
    assert main(command) == 1 and "a process was started" in capsys.readouterr().err

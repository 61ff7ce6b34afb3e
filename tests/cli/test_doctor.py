"""`lrkit doctor`: one line a finding, also where something is broken."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lrkit.cli import environment_checks as checks
from lrkit.cli.main import main
from lrkit.config.shipped_options import option_names

Said = Callable[..., str]
PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """Run `lrkit doctor` in an empty folder; it must end with ``code``. TensorBoard is not started."""
    monkeypatch.chdir(tmp_path)
    done = subprocess.CompletedProcess((), 0, "2.20.0\n", "")
    monkeypatch.setattr(checks.subprocess, "run", lambda *args, **options: done)

    def run(*words: str, code: int = 0) -> str:
        result = main(["doctor", *words])
        out, err = capsys.readouterr()
        assert result == code, out + err
        return out + err

    return run


def test_each_finding_is_a_line_with_a_mark(said: Said) -> None:
    page = said("optimizer=adamw", "trainer.precision=bf16-mixed", "trainer.accelerator=cpu")
    *findings, empty, end = page.splitlines()
    assert all(re.match(r"(ok      |note    ) \S", line) for line in findings)
    assert (empty, end) == ("", "no problem")
    for part in (
        f"torch {torch.__version__}",
        "a run uses cpu, precision bf16-mixed",
        "AdamW on cpu: fused",
        "GiB free",
        "TensorBoard 2.20.0 starts",
        "no launcher",
        "hydra-core ",
        f"{torch.get_num_threads()} threads",
    ):
        assert part in page
    assert "\x1b" not in page
    assert list(Path.cwd().iterdir()) == []


def test_a_broken_import_is_a_finding_and_the_others_go_on(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    page = said(code=1)
    assert "problem  torch: ModuleNotFoundError: " in page
    for part in ("ok       lrkit", "ok       hydra-core", "TensorBoard 2.20.0 starts", "GiB free", "no launcher"):
        assert part in page
    assert int(page.splitlines()[-1].split()[0]) == page.count("\nproblem") >= 3


def test_without_hydra_the_defaults_are_checked(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lrkit.config.compose", None)
    page = said(code=1)
    assert page.startswith("problem  a config cannot be composed: ModuleNotFoundError: ")
    assert "ok       a run uses " in page and page.endswith("\n1 problem\n")


def test_a_wrong_override_is_bad_input(said: Said) -> None:
    assert said("optimizer.lrr=1", code=2).startswith("lrkit: optimizer.lrr is not a key. Did you mean 'lr'? ")


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
@pytest.mark.parametrize("package", ["pytorch-lightning", "lightning"])
def test_a_malicious_upload_is_a_problem_and_is_not_imported(
    package: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_version", lambda name: version if name == package else "1")
    monkeypatch.setitem(sys.modules, "lrkit.lightning.imports", None)
    (finding,) = checks.check_malicious_uploads({})
    assert finding.mark == "problem" and finding.text.startswith(f"{package} {version} is a malicious upload")
    (finding,) = checks.check_device_and_precision({})
    assert finding.mark == "note" and "must not be imported" in finding.text


def test_packages_that_are_missing_or_do_not_fit_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "1.13", "hydra-core": "1.3.8", "omegaconf": "2.4.0"}
    monkeypatch.setattr(checks, "_version", versions.get)
    found = [
        (finding.mark, finding.text) for check in (checks.check_packages, checks.check_hydra) for finding in check({})
    ]
    assert ("problem", "torch 1.13 is not supported: pip install 'torch>=2.8'") in found
    assert ("problem", "rich is not installed: pip install 'rich>=13.7'") in found
    assert ("problem", "hydra-core 1.3.8 needs omegaconf 2.3, and 2.4.0 is installed") in found
    extras = [finding for finding in checks.check_extras({}) if finding.mark == "note"]
    assert len(extras) == len(checks.EXTRAS)
    assert "logger=wandb needs wandb: pip install 'lrkit[wandb]'" in [finding.text for finding in extras]


def test_the_extras_are_those_of_the_project_and_their_options_exist() -> None:
    assert set(checks.EXTRAS) == set(PROJECT["optional-dependencies"]) - {"docs", "dev"}
    for use in checks.EXTRAS.values():
        for group, options in re.findall(r"(optimizer|data|launcher|logger)=([\w, ]+?)(?= and|$)", use):
            assert set(options.split(", ")) <= {*option_names(group)}


def test_a_folder_that_cannot_be_written_to_and_little_space(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2**28, "total": 2**26}))
    assert [finding.mark for finding in checks.check_output_folder({})] == ["note"]
    assert "64 MiB" in next(checks.check_shared_memory({})).text

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    (finding,) = checks.check_output_folder({})
    assert finding.mark == "problem" and finding.text.endswith("outputs cannot be written to (Permission denied)")


@pytest.mark.parametrize(
    ("environment", "mark", "text"),
    [
        ({"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "RANK": "0"}, "ok", "torchrun started 4 processes"),
        ({"SLURM_JOB_ID": "7"}, "note", "SLURM job 7, but not by srun"),
        ({"WORLD_SIZE": "2"}, "note", "WORLD_SIZE=2 is set"),
        ({}, "ok", "no launcher"),
    ],
)  # fmt: skip
def test_the_launcher(environment: dict[str, str], mark: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "SLURM_JOB_ID", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (finding,) = checks.check_launcher({})
    assert finding.mark == mark and text in finding.text


def test_a_tensorboard_that_does_not_start_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess((), 1, "", "Traceback\nModuleNotFoundError: No module named 'pkg_resources'\n")
    monkeypatch.setattr(checks.subprocess, "run", lambda *args, **options: done)
    (finding,) = checks.check_tensorboard({})
    assert finding.mark == "problem" and finding.text.endswith("No module named 'pkg_resources'")


@pytest.mark.slow
def test_tensorboard_starts() -> None:
    (finding,) = checks.check_tensorboard({})
    assert finding.mark == "ok"


@pytest.mark.parametrize(
    ("capability", "precision", "mark"), [(9, "highest", "note"), (9, "high", "ok"), (7, "highest", "ok")]
)
def test_tf32_is_advised_on_a_gpu_that_has_it(
    capability: int, precision: str, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (capability, 0))
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    (found,) = checks.check_matrix_multiplication({"trainer": {"matmul_precision": None}})
    assert found.mark == mark and ("trainer.matmul_precision=high" in found.text) == (mark == "note")

"""The processes that a launcher started, read from the environment; a typed number must be equal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from slurm import SLURM_HERE

from lrkit.base.errors import ConfigError
from lrkit.base.launcher_environment import detect_launch, global_rank, is_srun_task, local_rank
from lrkit.cli import main
from lrkit.config.compose import compose, plan

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
            "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2"}  # fmt: skip
SRUN = {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_JOB_NUM_NODES": "2", "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_JOB_NAME": "train"}  # fmt: skip
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
            "OMPI_COMM_WORLD_LOCAL_RANK": "1"}  # fmt: skip
MPICH = {"PMI_SIZE": "2", "PMI_RANK": "1"}
JSRUN = {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "f", "JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_SIZE": "4",
         "JSM_NAMESPACE_RANK": "3", "JSM_NAMESPACE_LOCAL_SIZE": "2"}  # fmt: skip
KUBEFLOW = {"WORLD_SIZE": "3", "RANK": "2", "MASTER_ADDR": "pod-0", "MASTER_PORT": "23456"}
DEEPSPEED = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
LIGHTNING = {"WORLD_SIZE": "2", "LOCAL_RANK": "1", "NODE_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(
    ("variables", "by", "world", "rank", "devices", "nodes"),
    [
        (TORCHRUN, "torchrun", 4, 3, 2, 2),
        (SRUN, "srun", 8, 5, 4, 2),
        ({**SRUN, "SLURM_STEP_NUM_NODES": "1", "SLURM_NTASKS": "4"}, "srun", 4, 5, 4, 1),  # a step on a part of the job
        ({name: value for name, value in SRUN.items() if name != "SLURM_NTASKS_PER_NODE"}, "srun", 8, 5, 4, 2),
        (OPEN_MPI, "mpirun", 4, 1, 4, 1),
        (MPICH, "mpirun", 2, 1, None, None),
        (JSRUN, "jsrun", 4, 3, 2, 2),
        (KUBEFLOW, "Kubeflow", 3, 2, 1, 3),
        (DEEPSPEED, "a launcher", 2, 1, None, None),
        ({**OPEN_MPI, **SRUN}, "srun", 8, 5, 4, 2),
        ({**SRUN, **TORCHRUN}, "torchrun", 4, 3, 2, 2),  # torchrun within srun: Lightning's order
    ],
)
def test_who_has_started_how_many(
    variables: dict[str, str], by: str, world: int, rank: int, devices: int | None, nodes: int | None
) -> None:
    launch = detect_launch(variables)
    assert launch is not None
    assert (launch.by, launch.world, launch.rank, launch.devices, launch.nodes) == (by, world, rank, devices, nodes)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        LIGHTNING,  # started by Lightning itself, as many as the plan has
        {"OMPI_COMM_WORLD_SIZE": "1"},
        {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a script of sbatch without srun
        {**SRUN, "SLURM_JOB_NAME": "bash"},
        {**SRUN, "SLURM_JOB_NAME": "interactive"},
        {**SRUN, "SLURM_PTY_PORT": "4711", "SLURM_JOB_NAME": "zsh"},
        {**SRUN, "SLURM_STEP_ID": "4294967291"},  # the batch script, as a step
        {"TORCHELASTIC_RUN_ID": "x"},
        {"SLURM_NTASKS": "many", "SLURM_STEP_ID": "0"},
    ],
)
def test_nobody_has_started_it(variables: dict[str, str]) -> None:
    assert detect_launch(variables) is None


def test_a_shell_of_srun_is_no_task() -> None:
    assert is_srun_task(SRUN) and not is_srun_task({**SRUN, "SLURM_JOB_NAME": "bash"})


@pytest.mark.parametrize(
    ("variables", "rank", "local"),
    [(TORCHRUN, 3, 1), (SRUN, 5, 1), (OPEN_MPI, 1, 1), (MPICH, 1, 0), (KUBEFLOW, 2, 0), (LIGHTNING, 1, 1),
     ({"NODE_RANK": "1"}, 1, 0),
     ({"SLURM_PROCID": "1"}, 1, 0), ({}, 0, 0)],
)  # fmt: skip
def test_which_process_this_is(variables: dict[str, str], rank: int, local: int, environment: Any) -> None:
    environment(variables)
    assert (global_rank(), local_rank()) == (rank, local)


@pytest.mark.parametrize(
    ("variables", "typed", "devices", "nodes"),
    [
        (TORCHRUN, [], 2, 2),
        (TORCHRUN, ["trainer.devices=auto"], 2, 2),
        (TORCHRUN, ["trainer.devices=-1", "trainer.num_nodes=2"], 2, 2),
        (TORCHRUN, ["trainer.devices=[0,1]"], [0, 1], 2),
        (TORCHRUN, ["trainer.devices='0,1'"], "0,1", 2),
        (SRUN, ["trainer.num_nodes=2"], 4, 2),
        (KUBEFLOW, [], 1, 3),
        (DEEPSPEED, [], 2, 1),
        (DEEPSPEED, ["trainer.devices=1", "trainer.num_nodes=2"], 1, 2),  # only the user knows the nodes
        ({}, [], 1, 1),
    ],
)
def test_what_was_not_typed_is_the_launchers(
    variables: dict[str, str], typed: list[str], devices: Any, nodes: int, environment: Any
) -> None:
    environment(variables)
    config = compose(typed)
    assert (config["trainer"]["devices"], config["trainer"]["num_nodes"]) == (devices, nodes)


def test_the_plan_counts_them_and_says_so(environment: Any) -> None:
    environment(TORCHRUN)
    resolved = plan(compose(["batch_scaling=linear", "batch_scaling.base_batch_size=32", "data.batch_size=32"]))
    assert resolved.scale.factor == 4.0 and resolved.horizon.batch_size == 128
    assert "torchrun started 4 processes on 2 nodes (WORLD_SIZE=4)" in resolved.warnings


ONE = {**TORCHRUN, "WORLD_SIZE": "2", "GROUP_RANK": "0", "RANK": "1"}


@pytest.mark.parametrize(
    ("variables", "typed", "said"),
    [
        (ONE, ["trainer.devices=1"],
         "trainer.devices must be 2 or not be set: torchrun started 2 processes (WORLD_SIZE=2). Received: 1"),
        (ONE, ["trainer.num_nodes=2"],
         "trainer.num_nodes must be 1 or not be set: torchrun started 2 processes (WORLD_SIZE=2). Received: 2"),
        (SRUN, ["trainer.devices=8"], "trainer.devices must be 4 per node or not be set: srun started 8 processes on 2"
         " nodes (SLURM_NTASKS=8). Received: 8"),
        ({**SRUN, "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NUM_NODES": "1"},
         ["trainer.devices=2"],
         "trainer.devices must be 1 or not be set: srun started 1 process (SLURM_NTASKS=1). Received: 2"),
        (DEEPSPEED, ["trainer.devices=4"],
         "trainer.devices must be 2 or not be set: a launcher started 2 processes (WORLD_SIZE=2). Received: 4"),
        (TORCHRUN, ["trainer.devices=0"],
         "trainer.devices must be a number >= 1, a list of devices, or auto. Received: 0"),
    ],
)  # fmt: skip
def test_what_was_typed_must_be_the_same(
    variables: dict[str, str], typed: list[str], said: str, environment: Any
) -> None:
    environment(variables)
    with pytest.raises(ConfigError) as refused:
        plan(compose(typed))
    assert str(refused.value) == said


def test_a_file_says_it_as_well(environment: Any, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "four.yaml").write_text("# @package _global_\ntrainer:\n  devices: 4\n")
    environment(ONE)
    with pytest.raises(ConfigError, match=r"^trainer.devices must be 2 or not be set"):
        compose(["+experiment=four"], str(tmp_path))


def test_mpi_without_its_package_is_refused(environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(OPEN_MPI)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"mpirun needs the package mpi4py .* 4 processes .* pip install mpi4py, or .* torchrun"
    ):
        compose([])


@pytest.mark.parametrize(
    ("rank", "argv", "code", "out", "err"),
    [
        ("0", ["train", "trainer.devices=1"], 2, "", "lrkit: trainer.devices must be 2"),
        ("1", ["train", "trainer.devices=1"], 2, "", ""),
        ("1", ["find", "trainer.devices=1"], 2, "", ""),
        ("1", ["train", "schedule=cosin"], 2, "", ""),
        ("0", ["train", "-m", "seed=1,2"], 2, "", "lrkit: -m must not be given to torchrun: torchrun started 2"),
        ("1", ["train", "-m", "seed=1,2"], 2, "", ""),
        ("1", ["train", "seed=1,2", "+launcher=joblib"], 2, "", ""),
        ("0", ["show"], 0, "64 samples a step (32 a device x 2 x accumulate 1)", ""),
        ("1", ["show"], 0, "", ""),
        ("1", ["compare", "nowhere"], 0, "", ""),
        ("1", ["--version"], 0, "", ""),
        ("1", ["train", "--help"], 0, "", ""),
    ],
)
def test_one_process_speaks(
    rank: str, argv: list[str], code: int, out: str, err: str, environment: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    environment({**ONE, "RANK": rank, "LOCAL_RANK": rank})
    monkeypatch.chdir(tmp_path)
    assert main.main(argv) == code
    said = capsys.readouterr()
    assert out in said.out and bool(out) == bool(said.out)
    assert said.err.startswith(err) and bool(err) == bool(said.err)
    assert [*tmp_path.iterdir()] == []  # refused before a file is written


def test_reading_it_needs_no_torch() -> None:
    code = (
        "import sys, lrkit.base.launcher_environment, lrkit.base.watchdog; print({'torch', 'hydra'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_json_of_show_under_a_launcher(environment: Any, capsys: pytest.CaptureFixture[str]) -> None:
    environment({**SLURM_HERE, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"})
    assert main.main(["show", "batch.effective=128", "format=json"]) == 0
    assert json.loads(capsys.readouterr().out)["horizon"]["batch_size"] == 128

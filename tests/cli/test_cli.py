"""The command: its output, its files, its exit codes, and its few imports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from lrkit.api.commands import train
from lrkit.api.lr_search import find
from lrkit.base.errors import ConfigError
from lrkit.cli.commands import COMMANDS
from lrkit.cli.main import main
from lrkit.config import compose as configs

Said = Callable[..., str]

#: A run of two steps that logs nothing.
TINY = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "logger=none",
        "model.hidden=[4]"]  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An unrelated working folder; afterwards the import path and the imported modules are restored."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a command line that must end with ``code``, and return its output."""

    def run(*argv: str, code: int = 0) -> str:
        result = main(list(argv))
        out, err = capsys.readouterr()
        assert result == code, err
        return out if code == 0 else out + err

    return run


def lrkit(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run([sys.executable, "-m", "lrkit", *argv], capture_output=True, text=True, **options)


# --- help and version -----------------------------------------------------------------------------


def test_help_is_one_page_that_names_every_command(said: Said) -> None:
    page = said("--help")
    assert page == said() == said("-h") == said("help")
    assert all(f"lrkit {command}" in page for command in COMMANDS)
    assert len(page.splitlines()) <= 24 and max(map(len, page.splitlines())) <= 100


def test_version(said: Said) -> None:
    assert said("--version") == said("-V") == f"{metadata.version('lrkit')}\n"


def test_an_unknown_command_says_which_there_are(said: Said) -> None:
    assert said("trian", code=2).startswith("lrkit: lrkit has no command 'trian'. Did you mean 'train'? Accepted: ")


def test_python_dash_m_is_the_same_command() -> None:
    done = lrkit("--version")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, metadata.version("lrkit"), "")


# --- show -----------------------------------------------------------------------------------------

SHOWN = [
    [],
    ["schedule=step", "warmup=linear", "batch_scaling=linear"],
    ["schedule=one_cycle", "optimizer=adamw"],
    ["schedule=restarts", "cooldown=sqrt", "param_groups.rules=[{name:head,pattern:head,lr_scale:0.3}]"],
    ["schedule=rex", "trainer.max_steps=50", "warmup=exponential"],
]


@pytest.mark.parametrize("overrides", SHOWN, ids=" ".join)
def test_csv_is_the_plan_bit_for_bit(overrides: list[str], said: Said) -> None:
    plan = configs.plan(configs.compose(overrides))
    header, *rows = [line.split(",") for line in said("show", *overrides, "format=csv").splitlines()]
    assert header[: 1 + len(plan.groups)] == ["step", *(f"lr/{group.name}" for group in plan.groups)]
    assert [int(row[0]) for row in rows] == list(range(plan.horizon.steps or 0))
    for row in rows:
        t, rates = int(row[0]), [float(cell) for cell in row[1 : 1 + len(plan.groups)]]
        assert rates == [plan.lr(group, t) for group in plan.groups]
        assert list(map(repr, rates)) == row[1 : 1 + len(plan.groups)]
    if plan.momentum is not None:
        column = header.index(f"momentum/{plan.groups[0].name}")
        assert [float(row[column]) for row in rows] == [plan.momentum(t) for t in range(len(rows))]


def test_json_is_the_plan(said: Said) -> None:
    shown = json.loads(said("show", "schedule=step", "warmup=linear", "format=json"))
    config = configs.compose(["schedule=step", "warmup=linear"])
    assert shown == json.loads(json.dumps(configs.plan(config).to_json()))
    assert shown["config"] == {key: node for key, node in config.items() if key != "optimizers"}  # of which it has one
    assert [phase["name"] for phase in shown["phases"]] == ["warmup", "schedule"]


def test_text_says_the_rate_the_length_the_phases_and_draws_the_curve(said: Said) -> None:
    page = said("show", "batch_scaling=linear", "data.batch_size=128", "warmup=linear", "schedule=step")
    assert "lr 0.05 = 0.1 x 0.5 (linear: batch 128 / base 256)" in page
    assert "150 steps" in page and "10 steps an epoch" in page and "128 samples a step" in page
    assert "warmup" in page and "schedule" in page and "█" in page
    assert not Path("outputs").exists()


def test_text_has_no_colours_and_no_wrapped_lines_in_a_pipe() -> None:
    done = lrkit("show", env={"COLUMNS": "40", "PATH": "", "FORCE_COLOR": ""})
    assert done.returncode == 0 and "\x1b" not in done.stdout
    assert done.stdout.splitlines()[0].startswith("lr 0.1")


def test_show_of_a_sweep_prints_one_after_the_other(said: Said) -> None:
    page = said("show", "-m", "schedule=step,cosine", "optimizer.lr=0.1,0.2", "horizon.steps=5", "format=csv")
    marks = [line for line in page.splitlines() if line.startswith("#")]
    assert marks == [
        f"# schedule={schedule} optimizer.lr={lr}" for schedule in ("step", "cosine") for lr in ("0.1", "0.2")
    ]
    assert page.count("step,lr/default") == 4
    one = said("show", "-m", "schedule=step,cosine", "horizon.steps=5", "format=csv")
    assert [line for line in one.splitlines() if line.startswith("#")] == ["# step", "# cosine"]


@pytest.mark.filterwarnings("default")  # matplotlib's are its own affair
def test_png_is_one_picture_that_is_not_blank(said: Said) -> None:
    image = pytest.importorskip("matplotlib.image")
    path = Path(said("show", "-m", "schedule=glob(c*)", "format=png").strip())
    assert list(Path("outputs/show").iterdir()) == [path]
    pixels = image.imread(path)[..., :3]
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3).round(2).tolist()}
    assert min(pixels.shape[:2]) >= 400
    saturated = {colour for colour in colours if max(colour) - min(colour) > 0.5}
    assert len(saturated) >= 3  # a line for each of the three, in a colour of its own
    again = Path(said("show", "format=png").strip())
    assert again != path and again.is_file()


def test_show_loads_neither_torch_nor_lightning() -> None:
    code = """
import contextlib, io, sys
from lrkit.cli.main import main
for argv in {argvs!r}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(argv)
    heavy = ["torch", "numpy", "pytorch_lightning", "lightning", "tensorboard"]
    print(code, [name for name in heavy if name in sys.modules], argv)
"""
    argvs = [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["help", "schedule.cosine", "optimizer.lr"],
        ["help", "nope"],
        ["show"],
        ["show", "optimizer=adamw", "schedule=one_cycle", "warmup=linear", "batch_scaling=auto", "format=csv"],
        ["show", "schedule=plateau", "param_groups=layerwise", "format=json"],
        ["show", "-m", "schedule=step,cosine"],
        ["show", "optimizer.lr=-1"],
        ["train", "optimizer.lr=-1"],
        ["train", "-m", "schedule=cosine,cosin"],
        ["train", "nope=1"],
        ["train", "--cfg", "job"],
    ]
    done = subprocess.run([sys.executable, "-c", code.format(argvs=argvs)], capture_output=True, text=True, check=True)
    codes = [0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 2, 2, 2, 0]
    assert done.stdout.splitlines() == [f"{code} [] {argv}" for code, argv in zip(codes, argvs, strict=True)]


def test_who_reads_our_output_may_stop_reading() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "lrkit", "show", "horizon.steps=20000", "format=csv"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "step,lr/default\n"
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == ""


# --- train ----------------------------------------------------------------------------------------


def test_a_run_leaves_what_it_was_and_what_came_of_it(said: Said) -> None:
    page = said("train", *TINY, "optimizer.lr=0.05", "seed=3")
    (folder,) = Path("outputs/runs").iterdir()
    assert {"plan.json", "config.json", "metrics.json", ".hydra", "checkpoints"} <= {p.name for p in folder.iterdir()}
    plan = json.loads((folder / "plan.json").read_text())
    assert (plan["base_lr"], plan["horizon"]["steps"], plan["config"]["seed"]) == (0.05, 2, 3)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["status"], metrics["steps"]) == ("done", 2) and "val/loss" in metrics["final"]
    assert yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())[-2:] == ["optimizer.lr=0.05", "seed=3"]
    assert str(folder) in page and "val/loss" in page


def test_two_runs_of_the_same_second_do_not_share_a_folder(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Stopped:
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr("lrkit.cli.output_folders.datetime", Stopped)
    for seed in (1, 2):
        said("train", *TINY, f"seed={seed}")
    folders = sorted(Path("outputs/runs").iterdir())
    assert [folder.name for folder in folders] == ["2026-01-02_03-04-05", "2026-01-02_03-04-05-1"]
    assert [json.loads((folder / "config.json").read_text())["seed"] for folder in folders] == [1, 2]
    assert all((folder / "metrics.json").is_file() for folder in folders)


@pytest.mark.slow
def test_a_sweep_has_a_folder_for_each_job_named_by_what_differs(said: Said) -> None:
    said("train", "-m", *TINY, "schedule=step,cosine", "optimizer.lr=0.1,0.2")
    (sweep,) = Path("outputs/sweeps").iterdir()
    jobs = sorted(folder for folder in sweep.iterdir() if folder.is_dir())
    assert [folder.name for folder in jobs] == [
        f"{number}_schedule={schedule},optimizer.lr={lr}"
        for number, (schedule, lr) in enumerate(
            [("step", "0.1"), ("step", "0.2"), ("cosine", "0.1"), ("cosine", "0.2")]
        )
    ]
    for folder in jobs:
        config = json.loads((folder / "config.json").read_text())
        assert f"optimizer.lr={config['optimizer']['lr']}" in folder.name
        assert json.loads((folder / "metrics.json").read_text())["status"] == "done"
    assert not Path("outputs/runs").exists()


MINE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        if width == 13:
            raise RuntimeError("no good with 13")
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)
"""


def test_one_job_that_fails_does_not_stop_the_others(said: Said) -> None:
    """And a model of the user's own, in the current folder, can be imported."""
    Path("mine.py").write_text(MINE)
    shorter = [word for word in TINY if not word.startswith("model")]
    page = said("train", "-m", *shorter, "model=custom", "model._target_=mine.Net", "+model.width=4,13,5", code=1)
    (sweep,) = Path("outputs/sweeps").iterdir()
    folders = sorted(folder for folder in sweep.iterdir() if folder.is_dir())
    ended = [json.loads((folder / "metrics.json").read_text())["status"] for folder in folders]
    assert ended == ["done", "failed", "done"]
    assert "no good with 13" in page and "no good with 13" in (folders[1] / "job.log").read_text()
    assert page.rstrip().endswith("lrkit: of 3 jobs 1 failed; the same command runs the missing jobs")


def test_a_run_that_fails_raises_what_went_wrong(said: Said) -> None:
    Path("mine.py").write_text(MINE.replace("width == 13", "True").replace("RuntimeError", "KeyError"))
    page = said("train", "model=custom", "model._target_=mine.Net", "+model.width=4", code=2)
    assert page.splitlines()[-1].startswith("lrkit: model cannot be built: ") and "no good with 13" in page


def test_cfg_prints_the_config_and_runs_nothing(said: Said) -> None:
    printed = yaml.safe_load(said("train", "--cfg", "job", "schedule=step", "optimizer.lr=0.5"))
    assert printed["schedule"]["_target_"] == "lrkit.schedules.Step" and printed["optimizer"]["lr"] == 0.5
    assert list(printed) == list(configs.compose())
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    "argv", [["--experimental-rerun", "x.pickle"], pytest.param(["--experimental-rerun=x.pickle"])]
)
def test_hydras_rerun_is_refused_for_it_unpickles(argv: list[str], said: Said) -> None:
    assert "--experimental-rerun is refused" in said("train", *argv, code=2)
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--foo"], "--foo is not a flag of lrkit train. "),
        (["--config-name=other"], "--config-name is not a flag of lrkit train. "),
        (["--cfg=jobb"], "--cfg must be followed by job, hydra or all. Received: 'jobb'"),
        (["--cfg"], "--cfg must be followed by job, hydra or all."),
        (["hydra.run.dir=/proc/nope"], "hydra.run.dir must be a folder that can be written to "),
        (["-m", "hydra.sweep.dir=/dev/null", "seed=1,2"], "hydra.sweep.dir must be a folder that can be written to "),
    ],
)
def test_a_wrong_flag_or_folder_is_refused_in_one_line(argv: list[str], message: str, said: Said) -> None:
    (line,) = said("train", *argv, code=2).splitlines()
    assert line.startswith(f"lrkit: {message}")


def test_a_folder_that_has_a_run_is_not_written_over(said: Said) -> None:
    said("train", *TINY, "hydra.run.dir=mine")
    before = {file: file.read_bytes() for file in Path("mine").rglob("*") if file.is_file()}
    (line,) = said("train", *TINY, "hydra.run.dir=mine", "seed=5", code=2).splitlines()
    assert line.startswith("lrkit: hydra.run.dir must be a folder without a run: to resume its run set resume.path=")
    assert before == {file: file.read_bytes() for file in Path("mine").rglob("*") if file.is_file()}


def test_a_file_in_the_way_of_the_results_is_refused_in_one_line(said: Said) -> None:
    Path("outputs").write_text("")
    (line,) = said("train", code=2).splitlines()
    assert "must be a folder that can be written to" in line and "outputs" in line


@pytest.mark.parametrize("at", range(2))
def test_flags_may_stand_anywhere(at: int, said: Said) -> None:
    words = [*TINY, "seed=1,2"]
    words.insert(at * 4, "-m")
    said("train", *words)
    (sweep,) = Path("outputs/sweeps").iterdir()
    assert {folder.name for folder in sweep.iterdir() if folder.is_dir()} == {"0_seed=1", "1_seed=2"}


def test_a_folder_of_the_users_own_configs_is_found_and_wins(said: Said) -> None:
    for name, text in {
        "schedule/mine.yaml": "_target_: lrkit.schedules.Linear\nend: 0.25\n",
        "optimizer/momentum.yaml": "_target_: torch.optim.SGD\nlr: 0.0625\n",
    }.items():
        (Path("own") / name).parent.mkdir(parents=True)
        (Path("own") / name).write_text(text)
    said("train", *TINY, "--config-dir", "own", "schedule=mine")
    (folder,) = Path("outputs/runs").iterdir()
    config = json.loads((folder / "config.json").read_text())
    assert (config["schedule"]["end"], config["optimizer"]["lr"]) == (0.25, 0.0625)
    rows = said("show", "--config-dir=own", "schedule=mine", "horizon.steps=4", "format=csv").splitlines()
    assert float(rows[-1].split(",")[1]) == 0.0625 * (0.25 * 0.75 + 0.25)
    sweep = said("show", "-m", "--config-dir=own", "schedule=glob(m*)", "horizon.steps=4", "format=csv")
    assert [line for line in sweep.splitlines() if line.startswith("#")] == ["# mine", "# multistep"]


def test_ctrl_c_while_it_starts_is_one_line() -> None:
    """A child process for each moment: the signal comes at the so-many-th import after the start of the command."""
    code = """
import os, signal, sys
from lrkit.cli.main import entry
class Interrupt:
    left = 0
    def find_spec(self, *_):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
for moment in (1, 2, 5, 10, 20, 40, 60, 100, 150, 200):
    read, write = os.pipe()
    if os.fork() == 0:
        os.dup2(write, 2)
        os.close(write)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        Interrupt.left = moment
        sys.meta_path.insert(0, Interrupt())
        sys.argv = ['lrkit', 'show']
        entry()
    os.close(write)
    said = open(read).read()
    print(moment, os.waitstatus_to_exitcode(os.wait()[1]), said.strip())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    moments = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert [said for _, said in moments] == ["130 lrkit: interrupted"] * 10, moments


@pytest.mark.parametrize(("command", "what"), [("train", "one run"), ("find", "a search")])
@pytest.mark.parametrize("word", ["stack=on", "stack=auto", "jobs=2", "on_error=stop", "timeout=00:00:10:00"])
def test_a_key_that_only_a_sweep_reads_is_refused_without_one(
    command: str, what: str, word: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, word, *TINY]) == 2
    key, _, value = word.partition("=")
    told = capsys.readouterr().err
    assert told == f"lrkit: {key} is for a sweep, lrkit train -m, and has no effect on {what}. Received: {value!r}\n"
    with pytest.raises(ConfigError, match=f"{key} is for a sweep, .* no effect on {what}"):
        train(word, *TINY) if command == "train" else find([word, *TINY])
    assert not [*elsewhere.iterdir()]
    assert main([command, word.replace(value, "x"), *TINY]) == 2
    assert f"lrkit: {key} must be" in capsys.readouterr().err


def test_the_default_of_such_a_key_is_accepted_and_show_takes_the_words_of_a_sweep(elsewhere: Path) -> None:
    assert main(["show", "stack=on", "jobs=2", *TINY]) == 0
    assert main(["train", "stack=off", "jobs=auto", "on_error=continue", "timeout=null", *TINY]) == 0

"""Launcher plugins: a job returns a number for each outcome, errors are reported first, each preset runs a sweep."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from locations import HELPERS, ROOT
from omegaconf import open_dict

from lrkit.base.errors import ConfigError
from lrkit.cli.main import main
from lrkit.config.hydra_errors import PLUGINS
from lrkit.config.overrides import CONF_DIR, hydra_initialised
from lrkit.config.swept_config import check_sweep, sweep_of_files
from lrkit.sweep import hydra_job as job

PRESETS = sorted(path.stem for path in (CONF_DIR / "launcher").glob("*.yaml"))
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=8", "model.hidden=[8]", "logger=none"]


def fate(fates: dict[str, str]) -> list[str]:
    """Overrides that end a job whose folder's name contains a text; see failing_jobs.py."""
    written = ", ".join(f"'{part} {what}'" for part, what in fates.items())
    return ["+callbacks.fate._target_=failing_jobs.Fate", f"+callbacks.fate.fates=[{written}]"]


pytestmark = pytest.mark.usefixtures("elsewhere")


# --- a plugin that is not installed ----------------------------------------------------------------


@pytest.mark.parametrize("asked", [*(f"+launcher={name}" for name in PRESETS), "hydra/launcher=joblib"])
def test_without_its_plugin_an_engine_is_refused_in_one_line(
    asked: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Plugins.instance()
    groups: Any = ConfigStore.instance().repo["hydra"]
    for group, option in (plugin.split("/")[1:] for plugin in PLUGINS):
        monkeypatch.delitem(groups[group], f"{option}.yaml", raising=False)
    assert main(["train", "-m", asked, "seed=1,2"]) == 2
    out, err = capsys.readouterr()
    name = asked.partition("=")[2]
    extra = "slurm" if name == "submitit" else name
    package = f"hydra-{'submitit' if extra == 'slurm' else extra}-{'sweeper' if name == 'optuna' else 'launcher'}"
    assert (out, err) == ("", f"lrkit: {asked} needs the package {package}: pip install 'lrkit[{extra}]'.\n")
    assert not list(Path().iterdir())


def test_the_extras_bring_what_the_presets_need() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for package, extra in PLUGINS.values():
        assert any(requirement.startswith(f"{package}>=") for requirement in extras[extra])
    for name in PRESETS:
        text = (CONF_DIR / "launcher" / f"{name}.yaml").read_text()
        (plugin,) = re.findall(r"override /(hydra/\w+): (\w+)", text)
        assert f"lrkit[{PLUGINS['/'.join(plugin)][1]}]" in text


def test_the_page_names_every_preset() -> None:
    page = (ROOT / "docs" / "engines.md").read_text()
    assert PRESETS == ["joblib", "optuna", "ray", "slurm", "submitit"]
    assert all(f"+launcher={name}" in page for name in PRESETS)
    assert all(f"lrkit[{extra}]" in page for _, extra in PLUGINS.values())
    assert "[docs/engines.md]" in (ROOT / "README.md").read_text()


PAGE = (ROOT / "docs" / "engines.md").read_text().replace("\\\n", "")
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    lrkit train")]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_page_are_accepted(command: str) -> None:
    overrides = [word for word in shlex.split(command)[2:] if word != "-m"]
    try:
        words, searches = sweep_of_files(overrides)
    except ConfigError as error:
        if "needs the package" in str(error):
            pytest.skip(str(error))
        raise
    check_sweep(words, searches=searches)
    assert searches == ("+launcher=optuna" in words)


# --- the score of a job -----------------------------------------------------------------------------


def scored(folder: Path, *overrides: str, home: Path | None = None) -> float:
    """Return the score that an engine receives from a job in a folder; ``home``: working folder of the command."""
    folder.mkdir(exist_ok=True)
    with hydra_initialised():
        config = hydra.compose("train", overrides=[*SHORT, *overrides], return_hydra_config=True)
    with open_dict(config):
        config.hydra.runtime.output_dir = str(folder)
        config.hydra.runtime.cwd = str(home or Path.cwd())
        config.hydra.job.num = 0
        config.hydra.job.override_dirname = "seed=0"
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        with open_dict(config):
            own = {key: value for key, value in config.items() if key != "hydra"}
        return job.score_job(type(config)(own))
    finally:
        HydraConfig.instance().cfg = before


def left(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


@pytest.mark.parametrize("monitor", ["auto", "val/loss", "val/accuracy"])
def test_a_job_that_is_done_answers_with_its_best(monitor: str, tmp_path: Path) -> None:
    value = scored(tmp_path / "job", f"monitor={monitor}", "trainer.max_epochs=2")
    name = "val/loss" if monitor == "auto" else monitor
    assert value == left(tmp_path / "job")["best"][name] and math.isfinite(value)


@pytest.mark.parametrize(
    ("monitor", "end", "value"),
    [("auto", "diverge", math.inf), ("val/loss", "diverge", math.inf), ("val/accuracy", "diverge", -math.inf),
     ("auto", "raise", math.inf), ("val/loss", "raise", math.inf), ("val/accuracy", "raise", -math.inf)],
)  # fmt: skip
def test_a_bad_end_is_marked_and_never_raised(
    monitor: str, end: str, value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "job"
    assert scored(folder, f"monitor={monitor}", *fate({"job": end})) == value
    out, err = capsys.readouterr()
    if end == "raise":
        assert (left(folder)["status"], left(folder)["why"]) == ("failed", "RuntimeError: an unhappy end")
        assert (
            err.startswith("lrkit: RuntimeError: an unhappy end (failing_jobs.py, line ") and len(err.splitlines()) == 1
        )
        log = (folder / "job.log").read_text()
        assert "Traceback" in log and log.endswith(err)  # the log has the reason
        assert out == "job 0 seed=0: failed\n"
    else:
        assert left(folder)["status"] == "diverged" and err == ""
        assert out.startswith(f"job 0 seed=0: diverged, {value}, ")
        assert "diverged at step 3: the loss is nan" in (folder / "job.log").read_text()


def test_without_a_validation_a_job_answers_with_its_last_loss(tmp_path: Path) -> None:
    value = scored(tmp_path / "job", "trainer.limit_val_batches=0")
    assert value == left(tmp_path / "job")["final"]["train/loss"] and math.isfinite(value)


def test_what_is_wrong_in_a_job_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scored(tmp_path / "job", "+callbacks.fate._target_=failing_jobs.Fate") == math.inf
    assert re.fullmatch(r"lrkit: callbacks\.fate cannot be built: .*'fates'\.\n", capsys.readouterr().err)
    assert left(tmp_path / "job")["why"].startswith("ConfigError: callbacks.fate cannot be built")


def test_a_job_that_is_started_again_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    epochs = ["trainer.limit_train_batches=2", "trainer.max_epochs=3"]
    assert scored(tmp_path / "job", *epochs, *fate({"job": "raise"})) == math.inf  # in its second epoch
    assert math.isfinite(scored(tmp_path / "job", *epochs, *fate({})))
    starts = [line.split()[:2] for line in (tmp_path / "starts.txt").read_text().splitlines()]
    assert starts == [["job", "0"], ["job", "2"]]
    assert (left(tmp_path / "job")["status"], left(tmp_path / "job")["steps"]) == ("done", 6)


def test_a_job_finds_what_lies_where_the_command_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "homely.py").write_text(
        "from pathlib import Path\nfrom lrkit.lightning.imports import Callback\n\n\nclass Here(Callback):\n"
        "    def on_train_start(self, *_):\n        Path('here.txt').touch()\n"
    )
    monkeypatch.delitem(sys.modules, "homely", raising=False)
    assert math.isfinite(scored(tmp_path / "job", "+callbacks.own._target_=homely.Here", home=home))
    assert (home / "here.txt").is_file() and Path.cwd() == tmp_path


def test_further_tasks_of_a_job_train_along_and_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def run(config: dict[str, Any], folder: Path, *, quiet: bool) -> None:
        calls.append((config["seed"], folder, quiet))

    monkeypatch.setattr("lrkit.training.run.run_training", run)
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert math.isnan(scored(tmp_path / "job", "seed=7"))
    ((seed, folder, quiet),) = calls
    assert (seed, quiet) == (7, True) and tmp_path / "job" not in (folder, *folder.parents)
    assert not list((tmp_path / "job").iterdir())


# --- the checks before the first job ----------------------------------------------------------------

RANGES = [
    ("optimizer.lr=interval(0,1)", "optimizer.lr must be > 0: with 0 nothing would train. Received: 0.0"),
    ("optimizer.lr=interval(1e-4,100)", "optimizer.lr must be in [1e-08, 10]; …"),
    ("optimizer.lr=interval(1,0.1)",
     "optimizer.lr must have its lower value first in a search. Received: 'interval(1,0.1)'"),
    ("optimizer.momentum=tag(log,interval(0,0.9))",
     "optimizer.momentum must be > 0 in a search on a logarithmic scale. Received: …"),
    ("optimizer.nope=interval(0.1,0.2)", "optimizer.nope is not a key. …"),
    ("schedule=cosine,cosin", "schedule has no option 'cosin'. …"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "said"), RANGES)
def test_both_ends_of_what_is_searched_are_checked(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_sweep([override, "seed=1,2"], searches=True)
    assert str(error.value).startswith(said.rstrip("…"))


def test_ranges_are_fine_for_a_search_and_only_there() -> None:
    check_sweep(["optimizer.lr=tag(log, interval(1e-4, 1.0))", "seed=range(1,100000)"], searches=True)
    for override in ("optimizer.lr=interval(1e-4, 1.0)", "seed=range(1,100000)"):
        with pytest.raises(ConfigError):
            check_sweep([override])


def test_a_search_with_optuna_is_checked_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="hydra-optuna-sweeper is not installed")
    words, searches = sweep_of_files(["+launcher=optuna"])
    assert searches and words == ["+launcher=optuna", "optimizer.lr=tag(log, interval(1e-4, 1.0))"]
    assert sweep_of_files(["+launcher=optuna", "optimizer.lr=1,2"]).words == ["+launcher=optuna", "optimizer.lr=1,2"]
    assert main(["train", "+launcher=optuna", "optimizer.lr=interval(0,1)"]) == 2
    assert capsys.readouterr().err.startswith("lrkit: optimizer.lr must be > 0")
    with hydra_initialised():
        config = hydra.compose("train", ["+launcher=optuna", "monitor=val/accuracy"], return_hydra_config=True)
    assert config.hydra.sweeper.direction == "maximize"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "seed=1,2 jobs=2",
            "jobs applies to sweeps that lrkit runs itself: use hydra.launcher and hydra.sweeper.",
        ),
        ("seed=1,2 on_error=stop", "on_error applies to sweeps that lrkit runs itself: …"),
        (
            "seed=1,2 hydra.sweep.dir=${now:%H}",
            "hydra.sweep.dir must be a folder without an interpolation. Received: …",
        ),
        ("seed=1,2 hydra.sweep.dir=old", "hydra.sweep.dir must be a folder without runs: a launcher of Hydra …"),
        ("seed=interval(1,2)", "seed must sweep over a list of values, or a range of them: …"),
        ("seed=1,-1", "seed must be a whole number in …"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("old/0_x").mkdir(parents=True)
    Path("old/0_x/metrics.json").write_text("{}")
    assert main(["train", "-m", "hydra/launcher=basic", *words.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"lrkit: {said.rstrip('…')}") and len(err.splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["old"]


# --- the end of a sweep, here with the launcher that comes with Hydra ---------------------------------


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        ({}, 0, ""),
        ({"seed=2": "diverge"}, 3, "lrkit: of 3 jobs 1 diverged\n"),
        ({"seed=1": "raise", "seed=2": "diverge"}, 1, "lrkit: of 3 jobs 1 failed, 1 diverged\n"),
    ],
)
def test_the_table_and_the_exit_code(
    ends: dict[str, str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["hydra/launcher=basic", "hydra.sweep.dir='my sweep'", "seed=1,2,3", *SHORT, *fate(ends)]
    assert main(["train", "-m", *words]) == code
    out, err = capsys.readouterr()
    assert sorted(path.name for path in Path("my sweep").iterdir() if path.is_dir()) == [
        "0_seed=1", "1_seed=2", "2_seed=3"
    ]  # fmt: skip
    assert out.startswith("the sweep's folder is my sweep\n") and err.endswith(said)
    assert "are in my sweep\n" in out
    rows = list(csv.DictReader(Path("my sweep/results.csv").read_text().splitlines()))
    assert Counter(row["status"] for row in rows)["done"] == 3 - len(ends)


@pytest.mark.parametrize("by", ["command line", "preset"])
def test_an_engine_takes_paired_values(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(config: Any) -> float:
        folder = Path(HydraConfig.get().runtime.output_dir)
        ran.append((folder.name, config.optimizer.lr, config.data.batch_size, config.seed))
        (folder / "metrics.json").write_text('{"status": "done"}')
        return 0.0

    ran: list[Any] = []
    monkeypatch.setattr("lrkit.sweep.hydra_job.score_job", record)
    pairs, words = ("optimizer.lr,data.batch_size", "(0.1,64),(0.2,128)"), ["seed=1,2", "test=true"]
    if by == "preset":
        (tmp_path / "own" / "sweep").mkdir(parents=True)
        text = f"# @package _global_\nhydra: {{sweeper: {{params: {{'{pairs[0]}': '{pairs[1]}', seed: '7,8'}}}}}}\n"
        (tmp_path / "own" / "sweep" / "mine.yaml").write_text(text)
        words = ["--config-dir", "own", "+sweep=mine", "test=true"]
    else:
        words.append("=".join(pairs))
    assert main(["train", "-m", "hydra/launcher=basic", "hydra.sweep.dir=mine", *words]) == 0
    seeds = {"preset": (7, 8), "command line": (1, 2)}[by]
    jobs = [(0.1, 64, seeds[0]), (0.1, 64, seeds[1]), (0.2, 128, seeds[0]), (0.2, 128, seeds[1])]
    assert sorted(job[1:] for job in ran) == jobs
    for name, lr, size, seed in ran:
        assert name[0] in "0123" and set(name[2:].split(",")) == {
            f"optimizer.lr={lr}", f"data.batch_size={size}", f"seed={seed}"
        }  # fmt: skip


def test_an_engine_that_breaks_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("no\nsuch cluster")

    monkeypatch.setattr("lrkit.cli.sweep.call_hydra", broken)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    assert main(["train", "-m", "hydra/launcher=basic", "seed=1,2"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("lrkit: the engine failed: OSError: no such cluster (test_launcher_plugins.py, line ")
    assert "; add --traceback to see the traceback\n" in err
    assert "Traceback" not in err and err.endswith("lrkit: of 2 jobs 2 lost\n")
    assert "HYDRA_FULL_ERROR" not in os.environ


# --- the engines themselves ---------------------------------------------------------------------------


def engine(words: str, *overrides: str, code: int) -> subprocess.CompletedProcess[str]:
    """A sweep in a separate process."""
    command = [sys.executable, "-m", "lrkit", "train", "-m", *SHORT, *shlex.split(words), *overrides]
    path = os.pathsep.join(filter(None, (str(HELPERS), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    env.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=540)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def plugin(name: str) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{name}", reason=f"hydra-{name.replace('_', '-')} is not installed")


def the_sweep() -> Path:
    (folder,) = Path("outputs/sweeps").iterdir()
    return folder


def statuses() -> dict[str, str]:
    return {path.parent.name: left(path.parent)["status"] for path in the_sweep().glob("*/metrics.json")}


def threads() -> set[int]:
    return {int(line.split()[2]) for line in (the_sweep() / "starts.txt").read_text().splitlines()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joblib", "submitit", "ray"])
def test_a_launcher_runs_four_jobs_of_which_two_end_badly(name: str) -> None:
    plugin(f"{name}_launcher")
    ends = fate({"lr=0.05,seed=2": "raise", "lr=0.1,seed=1": "diverge"})
    done = engine(f"+launcher={name}", "optimizer.lr=0.05,0.1", "seed=1,2", *ends, code=1)
    assert done.stderr.endswith("lrkit: of 4 jobs 1 failed, 1 diverged\n"), done.stderr
    assert "RuntimeError: an unhappy end" in (the_sweep() / "1_optimizer.lr=0.05,seed=2" / "job.log").read_text()
    assert statuses() == {
        "0_optimizer.lr=0.05,seed=1": "done", "1_optimizer.lr=0.05,seed=2": "failed",
        "2_optimizer.lr=0.1,seed=1": "diverged", "3_optimizer.lr=0.1,seed=2": "done",
    }  # fmt: skip
    assert {"results.csv", "results.md", "compare.html"} <= {p.name for p in the_sweep().iterdir()}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert max(threads()) <= max(1, cores // 2)  # several at a time: not all cores for each


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joblib", "submitit"])
def test_a_launcher_takes_paired_values(name: str) -> None:
    plugin(f"{name}_launcher")
    engine(f"+launcher={name}", "optimizer.lr,data.batch_size=(0.05,64),(0.1,128)", code=0)
    assert statuses() == {
        "0_data.batch_size=64,optimizer.lr=0.05": "done", "1_data.batch_size=128,optimizer.lr=0.1": "done"
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_optuna_searches_past_bad_ends(launcher: str) -> None:
    plugin("optuna_sweeper")
    plugin("joblib_launcher")
    # Four trials; after the second one the sampler uses the scores.
    words = "hydra.sweeper.n_trials=4 hydra.sweeper.sampler.n_startup_trials=2 hydra.sweeper.n_jobs=2"
    ends = fate({"0_optimizer": "raise", "1_optimizer": "diverge"})
    done = engine(f"+launcher=optuna hydra/launcher={launcher} {words}", *ends, code=1)
    assert done.stderr.endswith("lrkit: of 4 jobs 1 failed, 1 diverged\n"), done.stderr
    ended = statuses()
    assert Counter(ended.values()) == {"done": 2, "failed": 1, "diverged": 1}
    rates = [float(name.partition("lr=")[2]) for name in ended]
    assert len(set(rates)) == 4 and all(1e-4 <= rate <= 1 for rate in rates)
    answer = yaml.safe_load((the_sweep() / "optimization_results.yaml").read_text())
    best = {left(the_sweep() / name)["best"]["val/loss"]: name for name, end in ended.items() if end == "done"}
    assert answer["best_value"] == min(best)
    assert best[min(best)].endswith(f"optimizer.lr={answer['best_params']['optimizer.lr']}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joblib", "submitit", "ray"])
def test_a_job_on_two_processes_starts_no_second_sweep(name: str) -> None:
    plugin(f"{name}_launcher")
    two = "trainer.devices=2 trainer.accelerator=cpu trainer.strategy=ddp"
    engine(f"+launcher={name} {two}", "seed=1,2", code=0)
    assert statuses() == {"0_seed=1": "done", "1_seed=2": "done"}
    assert {left(the_sweep() / job)["steps"] for job in statuses()} == {8}
    assert [path.name for path in Path("outputs").iterdir()] == ["sweeps"]


@pytest.mark.slow
def test_a_job_that_dies_is_missed() -> None:
    plugin("joblib_launcher")
    done = engine("+launcher=joblib hydra.launcher.n_jobs=2", "seed=1,2", *fate({"seed=2": "die"}), code=1)
    assert "lrkit: the engine failed: TerminatedWorkerError: " in done.stderr and "Traceback" not in done.stderr
    assert "1_seed=2" not in statuses()  # the other job may have finished or not
    assert re.search(r"lrkit: of 2 jobs .*[12] unfinished\n$", done.stderr), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("srun") is not None, reason="here SLURM would run it")
def test_slurm_where_there_is_none() -> None:
    plugin("submitit_launcher")
    done = engine("+launcher=slurm hydra.launcher.partition=short trainer.devices=2", "seed=1,2", code=1)
    assert "lrkit: the engine failed: RuntimeError: " in done.stderr and "srun" in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.endswith("lrkit: of 2 jobs 2 lost\n")

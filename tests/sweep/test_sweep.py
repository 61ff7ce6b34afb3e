"""Sweeps: jobs in their own processes, failures, resume after a kill, and the comparison at the end."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from locations import python_path

from lrkit.base import process_pool
from lrkit.base.errors import ConfigError
from lrkit.checkpoint.saved_run import load_saved_run
from lrkit.cli.main import main
from lrkit.config.compose import compose
from lrkit.sweep.job import folder_name, job_identity
from lrkit.sweep.sweep import Sweep, apply_preset
from lrkit.sweep.sweep_file import find_unfinished
from lrkit.training.run import run_training

SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=8", "model.hidden=[8]"]


def fate(fates: dict[str, str]) -> list[str]:
    written = ", ".join(f"'{part} {what}'" for part, what in fates.items())
    return ["+callbacks.fate._target_=failing_jobs.Fate", f"+callbacks.fate.fates=[{written}]"]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "lrkit", "train", "-m", *SHORT, *words]


def swept(tmp_path: Path, *words: str, code: int = 0) -> str:
    """Run a sweep to its end in this process, whose fork server imports torch once for all tests; return its output."""
    said = io.StringIO()
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        ended = main(["train", "-m", *SHORT, *words])
    assert ended == code, said.getvalue()
    return said.getvalue()


def the_sweep(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    return folder


def statuses(folder: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["status"] for path in sorted(folder.glob("*/metrics.json"))}


def test_bad_ends_are_told_when_they_happen_and_seen_in_the_exit_code(tmp_path: Path) -> None:
    bad = {"schedule=step,seed=2": "diverge", "schedule=cosine,seed=1": "raise", "schedule=cosine,seed=2": "die"}
    page = swept(tmp_path, "schedule=step,cosine", "seed=1,2", "jobs=2", *fate(bad), code=1)
    folder = the_sweep(tmp_path)
    assert [*statuses(folder).values()] == ["done", "diverged", "failed", "failed"]
    assert "RuntimeError: an unhappy end" in page  # when it happens, and in the job's own log
    assert "RuntimeError: an unhappy end" in (folder / "2_schedule=cosine,seed=1" / "job.log").read_text()
    assert json.loads((folder / "3_schedule=cosine,seed=2" / "metrics.json").read_text())["why"] == "signal 9"
    assert page.rstrip().endswith("of 4 jobs 1 diverged, 2 failed; the same command runs the missing jobs")


@pytest.mark.slow
def test_of_twelve_jobs_with_bad_ends_there_is_an_answer(tmp_path: Path) -> None:
    words = ["schedule=step,cosine,linear,constant", "seed=1,2,3", "jobs=2"]
    bad = {"schedule=step,seed=2": "diverge", "schedule=linear,seed=3": "die"}
    swept(tmp_path, *words, *fate(bad), code=1)
    folder = the_sweep(tmp_path)
    ended = statuses(folder)
    assert len(ended) == 12 and Counter(ended.values()) == {"done": 10, "diverged": 1, "failed": 1}
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert len(rows) == 12 and Counter(row["status"] for row in rows) == Counter(ended.values())
    table = (folder / "results.md").read_text()
    # settings with failed runs are last
    assert table.index("cosine") < min(table.index(name) for name in ("step", "linear"))
    assert {"compare.png", "compare.html", "sweep.json"} < {path.name for path in folder.iterdir()}

    # The same command again skips finished and diverged jobs, and runs failed jobs again.
    again = swept(tmp_path, *words, *fate(bad), code=1)
    assert "11 of 12 jobs are done" in again and "1 job; each writes" in again
    starts = Counter(line.split()[0] for line in (folder / "starts.txt").read_text().splitlines())
    assert starts == Counter({name: 2 if ended[name] == "failed" else 1 for name in ended})


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    words = ["schedule=step,cosine,linear,constant", "seed=1,2,3", "jobs=1", "trainer.max_epochs=2"]
    words += fate({"seed": "slow"})
    env = {**os.environ, "PYTHONPATH": python_path()}
    line = [word for word in command(*words) if word != "trainer.max_epochs=1"]
    process = subprocess.Popen(line, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for printed in process.stdout:
        if printed.startswith("job 4 "):
            break
    time.sleep(0.3)  # the next job has begun
    process.kill()
    process.wait()
    process.stdout.close()
    folder = the_sweep(tmp_path)
    assert Counter(statuses(folder).values()) == {"done": 5}
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 of 12 jobs are done" in done.stdout and "7 jobs, 1 at a time" in done.stdout
    starts = Counter(line.split()[0] for line in (folder / "starts.txt").read_text().splitlines())
    assert len(starts) == 12 and sum(starts.values()) <= 13  # one job was running
    assert Counter(statuses(folder).values()) == {"done": 12}
    # After a complete sweep, the same command begins a new one.
    assert find_unfinished(line[5:], tmp_path / "outputs" / "sweeps") is None


def test_a_sweep_that_ends_before_its_first_job_goes_on_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep writes ``sweep.json`` before anything else, so that an early end can be resumed."""
    words = ["schedule=step,cosine", "trainer.max_epochs=1"]
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr(Sweep, "_write_tensorboard_summaries", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Sweep(words, tmp_path / "mine").run(lambda *_: 0, print)
    assert find_unfinished(words, tmp_path) == tmp_path / "mine"


@pytest.mark.parametrize("when", ["a job runs", "torch is loaded"])
def test_ctrl_c_ends_it_with_130_and_a_word_on_going_on(when: str, tmp_path: Path) -> None:
    line = command("seed=1,2", "jobs=2", "trainer.max_epochs=20", *fate({"seed": "slow"}))
    line.remove("trainer.max_epochs=1")
    env = {**os.environ, "PYTHONPATH": python_path()}
    process = subprocess.Popen(
        line, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore SIGINT
    )  # fmt: skip
    starts = tmp_path / "outputs" / "sweeps"
    for _ in range(600):
        if any(starts.glob("*/starts.txt" if when == "a job runs" else "*")):
            break
        time.sleep(0.1)
    else:
        raise AssertionError("it did not begin")
    time.sleep(0 if when == "a job runs" else 1)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    out = re.sub(r"nanobind: leaked.*?refleaks\.html\n?", "", out, flags=re.DOTALL)  # torch 2.15, where a process ends
    assert (
        out.rstrip().splitlines()[-1]
        == f"lrkit: interrupted; the same command goes on in {the_sweep(tmp_path).relative_to(tmp_path)}"
    )
    assert "Traceback" not in out
    assert find_unfinished(line[5:], starts) == the_sweep(tmp_path)


@pytest.mark.slow
def test_on_error_stop_starts_no_more(tmp_path: Path) -> None:
    swept(tmp_path, "seed=1,2,3,4", "jobs=1", "on_error=stop", *fate({"seed=2": "raise"}), code=1)
    state = json.loads((the_sweep(tmp_path) / "sweep.json").read_text())["jobs"]
    assert [job["status"] for job in state.values()] == ["done", "failed"]


def test_a_job_is_what_it_would_be_alone(tmp_path: Path) -> None:
    """A job's weights are bit-identical with any job before it or in parallel."""
    swept(tmp_path, "seed=1,2", "jobs=2", "optimizer=adamw", *fate({}))
    threads = {line.split()[2] for line in (the_sweep(tmp_path) / "starts.txt").read_text().splitlines()}
    assert threads == {str(max(1, len(os.sched_getaffinity(0)) // 2))}
    torch.set_num_threads(int(threads.pop()))
    alone = tmp_path / "alone"
    alone.mkdir()
    run_training(compose([*SHORT, "optimizer=adamw", "seed=2"]), alone, quiet=True)
    mine, theirs = (load_saved_run(str(f)).content["state_dict"] for f in (alone, the_sweep(tmp_path) / "1_seed=2"))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_an_interrupted_job_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """The words of a job's command line have ``resume.path`` if there is a checkpoint with the same config."""
    overrides = [*SHORT, "seed=1,2"]
    sweep = Sweep(overrides, tmp_path)
    job = sweep.jobs[0]
    words = sweep._prepare_job(job)[0]
    assert words == [*SHORT, "seed=1", f"hydra.run.dir='{job.folder}'"]
    run_training(compose([*SHORT, "seed=1"]), job.folder, quiet=True)
    (job.folder / "metrics.json").unlink()  # it was killed after its last checkpoint
    sweep._record_status(job, "running")
    again = Sweep(overrides, tmp_path)
    assert again._prepare_job(job)[0][-2:] == [f"resume.path='{job.folder}'", "hydra.output_subdir=null"]
    other = Sweep([*SHORT[1:], "trainer.max_epochs=2", "seed=1,2"], tmp_path)
    assert other._prepare_job(other.jobs[0])[0][-1] == f"hydra.run.dir='{job.folder}'"  # another config: anew
    assert not (job.folder / "checkpoints").exists()


def test_the_identity_is_that_of_the_resolved_config() -> None:
    plain = compose(["schedule=step"])
    assert job_identity(plain) == job_identity(compose(["schedule=step", "schedule.gamma=0.1"]))  # its default
    assert job_identity(plain) != job_identity(compose(["schedule=step", "schedule.gamma=0.2"]))


def test_folders_have_short_and_harmless_names() -> None:
    assert folder_name("schedule=step,optimizer.lr=0.1") == "schedule=step,optimizer.lr=0.1"
    assert folder_name("a=/etc/../x y") == "a=-etc-..-x-y"
    assert len(folder_name("x" * 500)) < 130
    assert folder_name("x" * 500) != folder_name("x" * 501)


@pytest.mark.parametrize(
    ("visible", "jobs_key", "per_job", "expected"),
    [
        ("0,1,2,3", "auto", 1, ("0", "1", "2", "3")),
        ("0,1,2,3", "auto", 2, ("0,1", "2,3")),
        ("4,7", 4, 1, ("4", "7", "4", "7")),
        ("0,1,2", "auto", 2, ("0,1",)),
        ("0", "auto", 2, ("0",)),
        ("", 3, 1, ()),
        ("-1", 2, 1, ()),
    ],
)
def test_devices_are_pinned_in_turn(
    visible: str, jobs_key: Any, per_job: int, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    share = process_pool.available_slots(jobs_key, per_job, "auto")
    assert share.devices == expected
    assert share.count == (len(expected) or jobs_key)
    assert share.threads >= 1


def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_pool, "count_cores", lambda: 8)
    assert process_pool.available_slots("auto", 1, "cpu") == process_pool.Slots(4, 2)
    assert process_pool.available_slots(2, 1, "cpu") == process_pool.Slots(2, 4)
    assert process_pool.available_slots("auto", 4, "cpu") == process_pool.Slots(2, 4)
    assert process_pool.available_slots(16, 1, "cpu") == process_pool.Slots(16, 1)


def test_a_preset_sweeps_what_the_command_line_leaves_to_it() -> None:
    both = apply_preset(["+sweep=schedules", "seed=7"], None)
    keys = [override.partition("=")[0] for override in both]
    assert keys.count("seed") == 1 and "schedule" in keys and "optimizer.lr" in keys


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jobs=0"], "jobs must be a whole number >= 1. Received: 0"),
        (["on_error=ignore"], "on_error must be continue or stop. Received: 'ignore'"),
        (["hydra.sweep.subdir=x"], "hydra.sweep.subdir does not apply to a sweep on this machine;"),
    ],
)
def test_bad_input_is_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    page = swept(tmp_path, "seed=1,2", *words, code=2)
    assert page.startswith(f"lrkit: {said}") and not (tmp_path / "outputs").exists()


def test_what_another_sweep_has_left_is_not_written_over(tmp_path: Path) -> None:
    words = ["seed=1,2", "jobs=1", "hydra.sweep.dir=mine"]
    swept(tmp_path, *words)
    before = {file: file.read_bytes() for file in (tmp_path / "mine").glob("*/checkpoints/*")}
    said = swept(tmp_path, *words, "optimizer.lr=0.5", code=2)
    assert "lrkit: hydra.sweep.dir must be a folder without another sweep: its 0_seed=1 belongs to one." in said
    assert before == {file: file.read_bytes() for file in (tmp_path / "mine").glob("*/checkpoints/*")} != {}
    swept(tmp_path, "seed=1,2,3", *words[1:])  # more values of the same key use the same folder
    assert len(statuses(tmp_path / "mine")) == 3


def test_a_folder_of_the_users_is_no_jobs(tmp_path: Path) -> None:
    theirs = tmp_path / "mine" / "0_seed=1" / "notes.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    sweep = Sweep(["seed=1,2", *SHORT], tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"^hydra\.sweep\.dir must be a folder without another sweep: its 0_seed=1"):
        sweep.run(lambda *_: 0, print)
    assert theirs.read_text() == "mine"


def test_event_files_of_others_in_a_sweeps_folder_are_left(tmp_path: Path) -> None:
    theirs = tmp_path / "events.out.tfevents.1700000000.host.1.0"
    theirs.write_bytes(b"somebody's")
    sweep = Sweep(["optimizer.lr=0.1,0.2", *SHORT], tmp_path)
    for _ in range(2):  # what was written before is replaced
        sweep._write_tensorboard_summaries()
        ours = [file for file in tmp_path.glob("*tfevents*") if file != theirs]
        assert len(ours) == 1 and ours[0].name.endswith(".lrkit")
    assert theirs.read_bytes() == b"somebody's"

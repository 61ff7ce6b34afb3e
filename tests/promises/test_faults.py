"""Faults: which checkpoints survive each fault, and the message that the user sees.

    LRKIT_FAULTS=docs/faults.md pytest tests/promises/test_faults.py tests/promises/test_sweep_faults.py \
        -m 'slow or not slow'

writes the table. Each row has three counts: how often the fault was injected, how often a complete checkpoint existed
afterwards, and how often saved data were lost.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import failing_parts
import pytest
import torch
from equality import same
from faults_page import Row, rows
from file_damages import DAMAGES
from locations import environment
from signalled_runs import at, metrics, only, words

from lrkit.base.errors import RunError
from lrkit.checkpoint import durable_io, saved_run
from lrkit.cli.main import main

row = pytest.fixture(scope="module")(rows)


pytestmark = pytest.mark.usefixtures("elsewhere")


# --- kill -9 ----------------------------------------------------------------------------------------


#: Saves often, some megabytes each: two checkpoints an epoch of two steps.
def big(epochs: int) -> list[str]:
    return ["train", f"trainer.max_epochs={epochs}", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1",
            "model.hidden=[900,900]", "model.dropout=0.1", "logger=none", "trainer.num_sanity_val_steps=0",
            "schedule=constant", "+callbacks.slow={_target_: failing_parts.Slow}"]  # fmt: skip


def state(folder: Path) -> dict[str, Any]:
    content, wrong = durable_io.read_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert not wrong
    return dict(content)


def killed(
    place: Path, temporary: Path | None, kills: int, epochs: int, *, plain: bool = False
) -> tuple[Path, int, int, int]:
    """Kill a run again and again, half of the times while it saves: the folder, kills, survived, torn files.

    With Lightning's own saving no run is resumed: each try begins anew.
    """
    chance, survived, torn, done, resume = random.Random(0), 0, 0, 0, []
    folder = place / "run"
    checkpoints = folder / "checkpoints"
    own = [f"hydra.run.dir={folder}"]
    while done < kills:
        if plain:
            shutil.rmtree(folder, ignore_errors=True)
        before = {f.name: f.stat().st_mtime_ns for f in checkpoints.glob("*")}
        process = failing_parts.start([*big(epochs), *(resume or own)], place, temporary, plain=plain)

        def wrote(process: Any = process, before: dict[str, int] = before) -> bool:
            now = {f.name: f.stat().st_mtime_ns for f in checkpoints.glob("last.ckpt")}
            return bool(now) and now != {n: t for n, t in before.items() if n in now}

        failing_parts.until(wrote, process)
        time.sleep(chance.uniform(0.0, 0.4))
        if done % 2:
            place_of_writing = temporary if plain and temporary else checkpoints
            there = {*place_of_writing.iterdir()}

            def writes(where: Path = place_of_writing, there: set[Path] = there) -> bool:
                return any(file.suffix in ("", ".new") for file in {*where.iterdir()} - there)

            failing_parts.until(writes, process)
            time.sleep(chance.uniform(0.0, 0.03))
        process.kill()
        process.join()
        done += 1
        broken = [f.name for f in checkpoints.glob("*.ckpt") if durable_io.find_damage(f)]
        torn += bool(broken)
        survived += not durable_io.find_damage(checkpoints / "last.ckpt")
        if not plain:
            resume = [f"resume.path={folder}"]
    return folder, done, survived, torn


def undisturbed(place: Path, epochs: int) -> Path:
    process = failing_parts.start([*big(epochs), f"hydra.run.dir={place / 'whole'}"], place)
    process.join()
    assert process.exitcode == 0, failing_parts.said(place)
    return place / "whole"


def goes_on_to_the_bit(folder: Path, whole: Path, epochs: int) -> None:
    process = failing_parts.start([*big(epochs), f"resume.path={folder}"], folder.parent)
    process.join()
    assert process.exitcode == 0, failing_parts.said(folder.parent)
    assert not [*folder.rglob("*.new")]
    one, other = state(whole), state(folder)
    for part in ("state_dict", "optimizer_states", "global_step", "lr_schedulers"):
        assert same(one[part], other[part]), part
    for part in ("final", "best", "steps", "status"):
        assert metrics(whole)[part] == metrics(folder)[part], part


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "where", "temporary", "told"),
    [
        (30, "disk", None, "TMPDIR on the same file system"),
        (15, "disk", "memory", "TMPDIR in memory, the run on a disk"),
        (15, "memory", "disk", "TMPDIR on a disk, the run in memory"),
    ],
    ids=["same", "disk", "memory"],
)
def test_kill_9(kills: int, where: str, temporary: str | None, told: str, tmp_path: Path, row: Row) -> None:
    memory = Path("/dev/shm")
    if (temporary or where == "memory") and not (
        memory.is_dir() and os.stat(memory).st_dev != os.stat(tmp_path).st_dev
    ):
        pytest.skip("there is no second file system")
    beside = memory / f"lrkit-faults-{os.getpid()}"
    places = {"disk": tmp_path / "d", "memory": beside}
    try:
        for place in places.values():
            place.mkdir()
        epochs = 250 if kills > 20 else 150
        whole = undisturbed(places[where], epochs)
        folder, done, survived, torn = killed(places[where], places.get(temporary or ""), kills, epochs)
        assert (done, survived, torn) == (kills, kills, 0)
        reached = int(state(folder)["global_step"])
        goes_on_to_the_bit(folder, whole, epochs)
        seen = (
            f"nothing; at the end the same weights and metrics to the bit (killed up to step {reached} of {2 * epochs})"
        )
        row(f"`kill -9`, every second one while it saves; {told}", done, survived, torn, seen)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@pytest.mark.slow
def test_the_control_is_torn(tmp_path: Path, row: Row) -> None:
    """Lightning's own saving, where TMPDIR is on another file system."""
    memory = Path("/dev/shm") / f"lrkit-faults-{os.getpid()}"
    if not memory.parent.is_dir():
        pytest.skip("there is no second file system")
    memory.mkdir()
    try:
        _, done, survived, torn = killed(tmp_path, memory, 15, 400, plain=True)
    finally:
        shutil.rmtree(memory)
    row(
        "*control:* as above by Lightning's own saving; TMPDIR in memory, the run on a disk",
        done,
        survived,
        torn,
        "a checkpoint is cut off; where it is `last.ckpt`, the run cannot be resumed",
    )


# --- signals ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_signals_at_any_moment(name: str, tmp_path: Path, row: Row) -> None:
    signum, chance, lost = getattr(signal, name), random.Random(1), 0
    whole = undisturbed(tmp_path, 120)
    folder, words_ = tmp_path / "run", [*big(120)]
    more = [f"hydra.run.dir={folder}"]
    line = ""
    for _ in range(8):
        (tmp_path / "out.txt").write_text("")
        process = failing_parts.start([*words_, *more], tmp_path)
        failing_parts.until(lambda: "epoch" in (tmp_path / "out.txt").read_text(), process)
        time.sleep(chance.uniform(0.0, 0.3))
        before = durable_io.read_checkpoint(folder / "checkpoints" / "last.ckpt")[0]
        os.kill(process.pid, signum)
        process.join()
        assert process.exitcode == 128 + signum, failing_parts.said(tmp_path)
        line = failing_parts.said(tmp_path).splitlines()[-1]
        after = state(folder)["global_step"]
        assert f"at step {after} of 240; checkpoint saved" in line
        lost += after < (0 if before is None else before["global_step"])
        more = [f"resume.path={folder}"]
    goes_on_to_the_bit(folder, whole, 120)
    called = "Ctrl-C" if name == "SIGINT" else name
    row(called, 8, 8 - lost, lost, f"exit code {128 + signum}; `lrkit: stopped by {called} at step 45 of 240;"
        " checkpoint saved; go on with: lrkit train ...`; to the bit")  # fmt: skip


def test_ctrl_c_twice(tmp_path: Path, row: Row, capsys: pytest.CaptureFixture[str]) -> None:
    two = f"+callbacks.again={at(8, 'SIGINT').partition('=')[2]}"
    assert main(words(at(8, "SIGINT"), two)) == 130
    assert state(only())["global_step"] == 6
    assert "the last good one is" in capsys.readouterr().err
    row("Ctrl-C twice", 1, 1, 0, "exit code 130 at once; one line: the step, and the last good checkpoint")


@pytest.mark.slow
def test_a_sweep_is_asked_to_end(tmp_path: Path, row: Row) -> None:
    words_ = ["train", "-m", "seed=1,2,3", "jobs=2", "trainer.max_epochs=10", "model.hidden=[8]", "logger=none",
              "+callbacks.slow={_target_: failing_jobs.Fate, fates: ['seed slow']}"]  # fmt: skip
    line = [sys.executable, "-m", "lrkit", *words_]
    env = environment()
    process = subprocess.Popen(line, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 90
    while len([*tmp_path.glob("outputs/sweeps/*/*/checkpoints/last.ckpt")]) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=90)
    how = "; the same command goes on in outputs/sweeps/"
    assert process.returncode == 143 and out.splitlines()[-1].startswith(f"lrkit: stopped by SIGTERM{how}"), out
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    jobs = json.loads((sweep / "sweep.json").read_text())["jobs"]
    assert [job["status"] for job in jobs.values()] == ["interrupted"] * 2
    steps = [metrics(folder)["steps"] for folder in sorted(f for f in sweep.iterdir() if f.is_dir())]
    assert all(metrics(sweep / name)["status"] == "preempted" for name in jobs)
    again = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    starts = [tuple(text.split()[:2]) for text in (sweep / "starts.txt").read_text().splitlines()]
    assert sorted(int(step) for name, step in starts)[-2:] == sorted(steps)  # each went on where it had been
    row("SIGTERM to a sweep with two jobs under way", 1, 1, 0, "exit code 143; the jobs save, count as interrupted, and"
        " the same command goes on with them")  # fmt: skip


# --- disks ------------------------------------------------------------------------------------------


def on_a_small_disk(tmp_path: Path, megabytes: int, *more: str) -> tuple[int, str, Path]:
    """Train in a file system of this many megabytes; return the exit code, the output, and a copy of the files."""
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    script = (
        f'mount -t tmpfs -o size={megabytes}m none {disk} || exit 77\n"$@"\ncode=$?\ncp -r {disk} {copy}\nexit $code\n'
    )
    command = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-m", "lrkit", *more]
    env = environment()
    if shutil.which("unshare") is None:
        pytest.skip("a small disk cannot be mounted here")
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    if done.returncode == 77 or "unshare" in done.stderr[:20]:
        pytest.skip("a small disk cannot be mounted here")
    return done.returncode, done.stderr, copy


@pytest.mark.slow
def test_a_full_disk_under_checkpoints(tmp_path: Path, row: Row) -> None:
    # Without momentum a checkpoint takes 3.5 MB: best, last and previous fit, and a fourth does not.
    code, told, left = on_a_small_disk(
        tmp_path, 12, *big(40), f"hydra.run.dir={tmp_path}/disk/run", "optimizer=sgd", "optimizer.lr=0.05"
    )
    assert code == 1, told
    assert told.count("\n") == 1 and "No space left on device" in told and "Traceback" not in told
    assert told.startswith("lrkit: checkpoint ") and "; the last good one is " in told
    checkpoints = left / "run" / "checkpoints"
    assert all(durable_io.find_damage(file) == "" for file in checkpoints.iterdir()) and not [
        *checkpoints.glob("*.new")
    ]
    kept = metrics(left / "run")
    assert kept["status"] == "failed" and "No space left" in kept["why"]
    row("disk full at a checkpoint", 1, 1, 0, "exit code 1; `lrkit: checkpoint .../last.ckpt cannot be written (No"
        " space left on device); the last good one is ..., step 4`")  # fmt: skip


@pytest.mark.slow
def test_a_full_disk_under_tensorboard(tmp_path: Path, row: Row) -> None:
    board = f"save_dir: '{tmp_path}/disk', name: '', version: '', flush_secs: 1"
    code, told, _ = on_a_small_disk(
        tmp_path, 1, "train", "logger=none", "trainer.max_epochs=60", "trainer.log_every_n_steps=1", "model.hidden=[8]",
        f"+logger.board={{_target_: pytorch_lightning.loggers.TensorBoardLogger, {board}}}",
        "+callbacks.fill={_target_: failing_parts.Flood}",
    )  # fmt: skip
    assert code == 0 and told.count("\n") == 1, told
    assert told.startswith("lrkit: logger.board has failed at step ") and "Traceback" not in told
    assert metrics(only())["status"] == "done"
    row("disk full under TensorBoard", 1, 1, 0, "exit code 0; `lrkit: logger.board has failed at step 117 (OSError:"
        " ...); training goes on without it`")  # fmt: skip


def test_metrics_that_cannot_be_written(row: Row, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def full(*_: Any) -> None:
        raise RunError("metrics.json cannot be written (No space left on device)")

    monkeypatch.setattr("lrkit.callbacks.results_writer.write_json", full)
    assert main(words("trainer.max_epochs=1")) == 1
    assert capsys.readouterr().err == "lrkit: metrics.json cannot be written (No space left on device)\n"
    assert state(only())["global_step"] == 6
    row("`metrics.json` cannot be written", 1, 1, 0, "exit code 1; `lrkit: .../metrics.json cannot be written (No space"
        " left on device)`")  # fmt: skip


def test_a_read_only_folder(tmp_path: Path, row: Row, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Nothing stops root, so the refusal is injected."""
    assert main(words(at(8, "SIGTERM"))) == 143
    folder = only()
    capsys.readouterr()

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    assert main([*words(), f"resume.path={folder}", "~callbacks.signal"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("lrkit: resume.path must be a folder that can be written to (Permission denied)")
    assert told.count("\n") == 1 and state(folder)["global_step"] == 9
    row("the run's folder is read-only on resume", 1, 1, 0, "exit code 2 before training; `lrkit: resume.path must be a"
        " folder that can be written to (Permission denied)`")  # fmt: skip


def test_torn_checkpoints(row: Row) -> None:
    """That each kind of damage is seen is proved in test_durable_io; here is the page's row for it."""
    assert main(words("trainer.max_epochs=3")) == 0
    folder, seen = only(), 0
    keep = folder.parent / "keep"
    folder.rename(keep)

    for harm in DAMAGES.values():
        shutil.copytree(keep, folder)
        harm(folder / "checkpoints" / "last.ckpt")
        seen += saved_run.load_saved_run(str(folder)).path.name == "previous.ckpt"
        shutil.rmtree(folder)
    assert seen == len(DAMAGES)
    row(f"`last.ckpt` damaged: {', '.join(DAMAGES)}", seen, seen, 0, "`lrkit: damaged checkpoint skipped: last.ckpt:"
        " the checksum of ... is wrong; resuming from previous.ckpt, step 12`; an entry in `events.json`")  # fmt: skip


# --- divergence -------------------------------------------------------------------------------------

#: The guard's policies for a loss that is nan, and the end of the run under each.
POLICIES = {
    "off": (3, [], "trains on to its end, and says that it has diverged"),
    "stop": (3, ["stop"], "`diverged at step 20: the loss is nan; the last good checkpoint is ...`"),
    "skip": (0, ["skip"], "`guard: step 20: skipped: the loss is nan`"),
    "reduce": (0, ["reduce"], "`guard: step 20: back to the last good weights, gain 0.5: the loss is nan`"),
}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("policy", POLICIES)
def test_nan_under_each_policy(policy: str, processes: int, tmp_path: Path, row: Row) -> None:
    code, expected, seen = POLICIES[policy]
    steps, survived, lost = (20, 27, 33), 0, 0
    for i, step in enumerate(steps):
        where = tmp_path / f"{i}"
        where.mkdir()
        command = [
            sys.executable, "-m", "lrkit", "train", f"guard={policy}", f"trainer.devices={processes}",
            "trainer.accelerator=cpu", f"trainer.strategy={'auto' if processes == 1 else 'ddp'}", "logger=none",
            "trainer.max_epochs=4", "trainer.limit_train_batches=10", "trainer.limit_val_batches=1",
            "+callbacks.ill={_target_: diverging_training.Ill, "
            f"steps: [{step}], rank: {processes - 1}, out: {where}}}",
        ]  # fmt: skip
        env = environment()
        done = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, timeout=240)
        assert done.returncode == code, done.stdout + done.stderr
        (folder,) = (where / "outputs" / "runs").iterdir()
        file = folder / "events.json"
        assert [e["event"] for e in (json.loads(file.read_text()) if file.exists() else [])] == expected
        ends = [json.loads((where / f"left{rank}.json").read_text()) for rank in range(processes)]
        assert all(end == ends[0] for end in ends)  # the processes did the same
        kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        good = all(bool(torch.isfinite(value).all()) for value in kept.values())
        survived, lost = survived + good, lost + (not good)
    assert lost == (len(steps) if policy == "off" else 0)
    told = f"the loss is nan, `guard={policy}`, {processes} process{'es' * (processes > 1)}"
    row(told, len(steps), survived, lost, f"exit code {code}; {seen}")


# --- code -------------------------------------------------------------------------------------------


def test_a_mistake_in_the_users_code(row: Row, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("+callbacks.wrong={_target_: failing_parts.RaiseAt, step: 8}")) == 1
    folder = only()
    log = folder / "error.log"
    assert "Traceback" in log.read_text() and "failing_parts.py" in log.read_text()
    said = capsys.readouterr().err.strip()
    assert said.startswith("lrkit: ValueError: two and two make five (failing_parts.py, line ")
    assert said.endswith(f"; the traceback is in {log.resolve()}")
    kept = metrics(folder)
    assert kept["status"] == "failed"
    assert kept["why"].startswith("ValueError: two and two make five (failing_parts.py, line ")
    assert state(folder)["global_step"] == 6
    row("an exception in the user's code", 1, 1, 0, "exit code 1; what it was, where, and that the traceback is in"
        " `error.log`; `metrics.json` says why")  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*fork")
# The handler of torch for SIGCHLD raises wherever the main thread is, also while torch has a temporary file open.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_that_dies(row: Row, capsys: pytest.CaptureFixture[str]) -> None:
    more = [
        "data=custom",
        "data._target_=failing_parts.DyingWorkers",
        "data.batch_size=8",
        "trainer.limit_train_batches=null",
    ]
    plain = [word for word in words() if not word.startswith("trainer.limit_train")]
    assert main([*plain, *more, "model.inputs=64", "model.outputs=10"]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("lrkit: a process that loads data has died at step ") and "data.workers=0" in told
    assert metrics(only())["status"] == "failed"
    row("a process of the data loader is killed", 1, 1, 0, "exit code 1; `lrkit: a process that loads data has died at"
        " step 3 of 32 (DataLoader worker (pid ...) is killed by signal: Killed): ..., try ...`")  # fmt: skip


def test_a_logger_whose_server_is_down(row: Row, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("+logger.server={_target_: failing_parts.ServerDown, at: log_metrics, after: 2}")) == 0
    assert "lrkit: logger.server has failed" in capsys.readouterr().err
    row("a logger raises: server down, folder deleted", 1, 1, 0, "exit code 0; one line, an entry in `events.json`; the"
        " training goes on without that logger")  # fmt: skip

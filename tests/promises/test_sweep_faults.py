"""Faults of clocks, of jobs in a sweep, and of connecting processes. test_faults.py says how to write the page."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from equality import same
from faults_page import Row, rows
from locations import HELPERS, environment, python_path

from lrkit.base.errors import ConfigError
from lrkit.checkpoint import durable_io, saved_run
from lrkit.comparison.ranking import compare
from lrkit.config.compose import check, compose
from lrkit.sweep.sweep import Sweep
from lrkit.sweep.sweep_file import find_unfinished

QUICK = ["trainer.max_epochs=1", "trainer.limit_train_batches=4", "trainer.limit_val_batches=1", "model.hidden=[8]",
         "trainer.num_sanity_val_steps=0", "logger=none"]  # fmt: skip

row = pytest.fixture(scope="module")(rows)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "lrkit", "train", *words]


def done(folder: Path, *words: str, seconds: float = 300, **more: str) -> tuple[int, str]:
    """The exit code of ``lrkit train``, and all that it said."""
    ended = subprocess.run(
        command(*words), cwd=folder, env=environment(**more), timeout=seconds, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return ended.returncode, ended.stdout


@contextmanager
def started(folder: Path, *words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """``lrkit train`` under way, in a group of processes of its own, which is ended at the latest at the end."""
    process = subprocess.Popen(
        command(*words), cwd=folder, env=environment(**more), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


def fate(*fates: str) -> str:
    return f"+callbacks.fate={{_target_: failing_jobs.Fate, fates: [{', '.join(map(repr, fates))}]}}"


def the_sweep(folder: Path) -> Path:
    (sweep,) = (folder / "outputs" / "sweeps").iterdir()
    return sweep


def states(sweep: Path) -> list[str]:
    return [job["status"] for job in json.loads((sweep / "sweep.json").read_text())["jobs"].values()]


# --- clocks -----------------------------------------------------------------------------------------


@pytest.fixture
def clock(tmp_path: Path) -> tuple[dict[str, str], Callable[[int], None]]:
    """Return the environment of processes whose clock is shifted, and a function that shifts it while they run."""
    if shutil.which("cc") is None or sys.platform != "linux":
        pytest.skip("there is no compiler")
    library, file = tmp_path / "clock.so", tmp_path / "clock.txt"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", str(library), str(HELPERS / "settable_clock.c"), "-ldl"], check=True
    )
    return {"LD_PRELOAD": str(library), "CLOCK_SET": str(file)}, lambda seconds: void(file.write_text(f"{seconds}\n"))


def void(_: Any) -> None:
    """Nothing."""


@pytest.mark.slow
def test_the_clock_goes_backwards_in_a_run(tmp_path: Path, clock: Any, row: Row) -> None:
    env, put = clock
    put(0)
    long = [*QUICK[1:-1], "trainer.max_epochs=40", "model.dropout=0.1", "trainer.log_every_n_steps=1", "seed=3"]
    assert done(tmp_path, *long, "hydra.run.dir=whole")[0] == 0
    slow = [*long, "+callbacks.slow={_target_: failing_parts.Slow}"]
    with started(tmp_path, *slow, "hydra.run.dir=run", **env) as process:
        waits_for(lambda: (tmp_path / "run" / "checkpoints" / "last.ckpt").exists(), process)
        put(-86_400)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 143 and "; checkpoint saved; go on with: " in said, said
    reached = metrics(tmp_path / "run")["steps"]
    put(-2 * 86_400)
    in_future = time.time() + 86_400
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        if file.name != "last.ckpt":
            os.utime(file, (in_future, in_future))
    assert (
        saved_run.load_saved_run(str(tmp_path / "run")).path.name == "last.ckpt"
        and saved_run.load_saved_run(str(tmp_path / "run")).step == reached
    )
    code, said = done(tmp_path, *slow, "resume.path=run", **env)
    assert code == 0, said
    assert 0 < metrics(tmp_path / "run")["seconds"] < 200
    whole, run = (
        durable_io.read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")[0] for name in ("whole", "run")
    )
    assert all(same(whole[part], run[part]) for part in ("state_dict", "optimizer_states", "global_step"))
    assert metrics(tmp_path / "whole")["final"] == metrics(tmp_path / "run")["final"]
    # The curves that are compared, too, though the file of the second half has the older name.
    one, other = (compare([tmp_path / name]).settings[0].runs[0] for name in ("whole", "run"))
    assert one.series.keys() == other.series.keys()
    shown = [name for name in one.series if not name.startswith("result/")]
    assert {"val/loss", "train/loss", "lr/default"} <= {*shown}, shown
    for name in shown:
        mine, theirs = (dict(zip(run.series[name].steps, run.series[name].values, strict=True)) for run in (one, other))
        around = {reached - 1, reached, reached + 1}  # Lightning logs a step after the hook that ends the run
        assert {**mine, **theirs} == mine and {*mine} - {*theirs} <= around, name
    row(f"the clock is set back by a day within a run (at step {reached} of 160), by another before it goes on; older"
        " checkpoints dated in the future", 1, 1, 0, "nothing; at the end the same weights, metrics and curves to the"
        " bit; seconds are of a clock that nobody sets")  # fmt: skip


@pytest.mark.slow
def test_the_clock_goes_backwards_between_sweeps(tmp_path: Path, clock: Any, row: Row) -> None:
    env, put = clock
    words = ["-m", "seed=1,2,3", "jobs=1", *QUICK]
    put(0)
    assert done(tmp_path, *words, **env)[0] == 0
    put(-86_400)
    with started(tmp_path, *words, **env) as process:  # complete is complete: this is a new one, with an older name
        waits_for(lambda: process.stdout is not None and process.stdout.readline().startswith("job 0 "), process)
        process.kill()
    newest, complete = sorted((tmp_path / "outputs" / "sweeps").iterdir())
    assert states(complete) == ["done"] * 3
    put(-3600)
    code, said = done(tmp_path, *words, **env)
    assert code == 0 and f"resuming {newest.relative_to(tmp_path)}: 1 of 3 jobs are done" in said, said
    assert states(newest) == ["done"] * 3
    assert sorted((tmp_path / "outputs" / "sweeps").iterdir()) == [newest, complete]
    row("the clock is set back by a day between two sweeps, the second killed", 1, 1, 0,
        "the same command goes on with the second")  # fmt: skip


def test_the_newest_sweep_is_not_that_with_the_latest_name(tmp_path: Path) -> None:
    words = [*QUICK, "seed=1,2"]
    for name in ("2026-01-02", "2026-01-01"):
        (tmp_path / name).mkdir()
        sweep = Sweep(words, tmp_path / name)
        for job in sweep.jobs:
            sweep._record_status(job, "done")
    assert find_unfinished(words, tmp_path) is None
    (tmp_path / "2026-01-02" / "sweep.json").write_text(
        (tmp_path / "2026-01-02" / "sweep.json").read_text().replace("done", "running")
    )
    assert find_unfinished(words, tmp_path) is None  # the newer one is complete
    (tmp_path / "2026-01-01" / "sweep.json").write_text(
        (tmp_path / "2026-01-01" / "sweep.json").read_text().replace("done", "running")
    )
    assert find_unfinished(words, tmp_path) == tmp_path / "2026-01-01"


def waits_for(holds: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


# --- jobs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["60", "0:0:0:0", "1:2:3", "-1:0:0:0", "a", "60 s", "00:00:00:100"])
def test_a_timeout_is_written_as_max_time_is(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^timeout must be days:hours:minutes:seconds, such as 00:02:30:00"):
        check(compose([f"timeout='{text}'"]))
    check(compose(["timeout=00:00:01:00"]))
    assert compose(["timeout=00:00:01:00"])["timeout"] == "00:00:01:00"


@pytest.mark.slow
def test_a_job_that_hangs(tmp_path: Path, row: Row) -> None:
    """One handles a signal while it waits; one ignores signals, and is killed. Both go on by the same command."""
    words = ["-m", "seed=1,2,3", "jobs=3", "timeout=00:00:00:20", *QUICK, "trainer.max_epochs=3",
             fate("seed=1 hang", "seed=2 stop")]  # fmt: skip
    words.remove("trainer.max_epochs=1")
    since = time.monotonic()
    code, said = done(tmp_path, *words)
    assert code == 1 and time.monotonic() - since < 150, said
    sweep = the_sweep(tmp_path)
    assert states(sweep) == ["timeout", "timeout", "done"]
    jobs = sorted(folder for folder in sweep.iterdir() if folder.is_dir())
    assert [metrics(job)["status"] for job in jobs] == ["timeout", "timeout", "done"]
    assert metrics(jobs[0])["why"] == "it took longer than timeout=00:00:00:20"
    assert said.rstrip().endswith("of 3 jobs 2 timeout; the same command runs the missing jobs")
    table = (sweep / "results.csv").read_text()
    assert table.count(",timeout,") == 2, table
    code, said = done(tmp_path, *words)
    assert code == 0 and "resuming " in said and "1 of 3 jobs are done" in said, said
    assert states(sweep) == ["done"] * 3
    starts = sorted(tuple(line.split()[:2]) for line in (sweep / "starts.txt").read_text().splitlines())
    assert [step for _, step in starts] == ["0", "4", "0", "4", "0"]  # each from its checkpoint of the first epoch
    row("a job of a sweep hangs, `timeout=00:00:00:20`: one handles signals, one ignores them", 2, 2, 0, "exit code 1;"
        " `job 0 seed=1: timeout`; it is asked to end and to save, after a minute killed; the others are not held up,"
        " and the same command goes on with it")  # fmt: skip


@pytest.mark.slow
def test_a_job_without_memory(tmp_path: Path, row: Row) -> None:
    code, said = done(tmp_path, "-m", "seed=1,2,3", "jobs=2", *QUICK, fate("seed=2 starve"))
    assert code == 1, said
    sweep = the_sweep(tmp_path)
    assert states(sweep) == ["done", "failed", "done"]
    (job,) = sweep.glob("1_*")
    last = (job / "job.log").read_text().splitlines()[-1]
    assert last.startswith("lrkit: memory ran out at step 3 of 4 (") and "; there was no checkpoint yet" in last, last
    assert last in said and "Traceback" not in said
    assert metrics(job)["status"] == "failed" and "memory ran out" in metrics(job)["why"]
    row("`ulimit -v` in a job of a sweep: there is no more memory", 1, 1, 0, "exit code 1, the job's too; `lrkit:"
        " memory ran out at step 3 of 4 (...): try a smaller data.batch_size, ...`, in its log and where the sweep"
        " runs; the other jobs go on")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [200, 400, 800, 1600, 3200])
def test_a_command_without_memory(megabytes: int, tmp_path: Path) -> None:
    """Wherever the memory ends, in the middle of an import too, one line says so."""
    line = f'ulimit -v {megabytes * 1024}; exec "$@"'
    ended = subprocess.run(
        ["sh", "-c", line, "sh", *command(*QUICK)], cwd=tmp_path, env=environment(OPENBLAS_NUM_THREADS="1"),
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert ended.returncode in (0, 1), ended.stderr
    assert "Traceback" not in ended.stderr and len(ended.stderr.splitlines()) == ended.returncode, ended.stderr


@pytest.mark.slow
def test_three_hundred_jobs(tmp_path: Path, row: Row) -> None:
    """The process of the sweep, and the server of its jobs, grow neither in memory nor in open files."""
    seen: list[tuple[int, int, int, int]] = []
    with started(tmp_path, "-m", "seed=range(0,300)", "jobs=2", *QUICK) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("job "):
                server = next(child for child in children(process.pid) if "forkserver" in named(child))
                seen.append((memory(process.pid), files(process.pid), memory(server), files(server)))
        assert process.wait(60) == 0
    assert states(the_sweep(tmp_path)) == ["done"] * 300
    for early, late, allowed in ((seen[50 + i][k], seen[299][k], more) for i in range(1) for k, more in
                                 enumerate((8_000, 3, 8_000, 3))):  # fmt: skip
        assert late - early <= allowed, seen[::25]
    told = ", ".join(f"{seen[i][0] / 1024:.0f} MB and {seen[i][1]} open files after {i + 1}" for i in (0, 49, 299))
    row("300 jobs in one sweep, two at a time", 300, 300, 0, f"nothing; the sweep's process has {told}")


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in listed.stdout.split()]


def named(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def memory(pid: int) -> int:
    """Kilobytes that it has to itself and shares."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.slow
def test_kill_9_of_a_sweep_after_jobs_have_ended(tmp_path: Path, row: Row) -> None:
    """Each kill falls at a random moment after at least one more job has ended."""
    chance, kills, ended = random.Random(0), 0, dict[str, Any]()
    words = ["-m", "seed=range(0,40)", "jobs=2", *QUICK, fate()]
    while kills < 12:
        more = chance.randint(1, 2)
        with started(tmp_path, *words) as process:
            assert process.stdout is not None
            for line in process.stdout:
                more -= line.startswith("job ")
                if not more:
                    break
            time.sleep(chance.uniform(0.0, 0.5))
            assert process.poll() is None, line
            process.kill()
            process.wait()
            kills += 1
        time.sleep(0.5)  # the jobs end with it
        sweep = the_sweep(tmp_path)
        now = {file.parent.name: file.read_bytes() for file in sweep.glob("*/metrics.json")}
        now = {name: content for name, content in now.items() if json.loads(content)["status"] == "done"}
        assert ended.items() <= now.items() and len(now) > len(ended)  # nothing that was done has been touched
        ended = now
    killed_after = len(ended)
    code, said = done(tmp_path, *words)
    assert code == 0 and states(sweep) == ["done"] * 40, said
    now = {file.parent.name: file.read_bytes() for file in sweep.glob("*/metrics.json")}
    assert ended.items() <= now.items() and len(now) == 40
    starts = Counter(line.split()[0] for line in (sweep / "starts.txt").read_text().splitlines())
    assert len(starts) == 40 and sum(starts.values()) <= 40 + 2 * kills  # two were under way at each
    assert len((sweep / "results.csv").read_text().splitlines()) == 41
    assert all(not durable_io.find_damage(file) for file in sweep.glob("*/checkpoints/*.ckpt"))
    row(
        "`kill -9` of a sweep of 40 jobs, each after at least one job has ended",
        kills,
        kills,
        0,
        "nothing; the same"
        f" command goes on ({killed_after} jobs were done at the last kill); nothing that was done is run again",
    )


def test_a_job_that_ended_as_its_sweep_was_killed_is_done(tmp_path: Path) -> None:
    """Its result is there, and the sweep had no time to take it down."""
    sweep = Sweep([*QUICK, "seed=1,2"], tmp_path)
    job = sweep.jobs[0]
    sweep._prepare_job(job)
    sweep._record_status(job, "running")
    (job.folder / "metrics.json").write_text(json.dumps({"status": "done"}))
    again = Sweep([*QUICK, "seed=1,2"], tmp_path)
    assert [again._is_finished(each) for each in again.jobs] == [True, False]


# --- processes that are to connect ------------------------------------------------------------------

TWO = ["trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp", *QUICK]

#: The second process's behaviour before it connects.
INSTEAD = {
    "dies": "import os; os.kill(os.getpid(), 9)",
    "ends": "import os; os._exit(0)",
    "fails": "import os; os._exit(7)",
    "hangs": "import time; time.sleep(1000)",
}


def one_stays_away(tmp_path: Path, what: str) -> str:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import os\nif os.environ.get('LOCAL_RANK') == '1': {INSTEAD[what]}\n")
    return python_path(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("what", "how"), [("dies", "signal 9"), ("ends", "exit code 0"), ("fails", "exit code 7")])
def test_a_process_dies_before_the_rendezvous(what: str, how: str, tmp_path: Path, row: Row) -> None:
    since = time.monotonic()
    code, said = done(tmp_path, *TWO, PYTHONPATH=one_stays_away(tmp_path, what))
    assert code == 1, said
    assert said.splitlines()[-1] == f"lrkit: process 1 of 2 has ended ({how}) before all had connected"
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    assert metrics(run)["status"] == "failed" and how in metrics(run)["why"]
    seconds = time.monotonic() - since
    if what == "dies":
        row("one of two processes dies before they connect", 1, 1, 0, f"exit code 1 ({seconds:.0f} s after the start);"
            f" `lrkit: process 1 of 2 has ended ({how}) before all had connected`")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_while_one_hangs_before_the_rendezvous(name: str, tmp_path: Path, row: Row) -> None:
    signum = getattr(signal, name)
    with started(tmp_path, *TWO, PYTHONPATH=one_stays_away(tmp_path, "hangs")) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "waiting for" in line)
        assert line.startswith("lrkit: waiting for 1 of 2 processes at 127.0.0.1:") and ", until " in line
        since = time.monotonic()
        process.send_signal(signum)
        said = process.communicate(timeout=60)[0]
        seconds = time.monotonic() - since
    assert process.returncode == 128 + signum and seconds < 12, (process.returncode, seconds, said)
    called = "Ctrl-C" if name == "SIGINT" else name
    assert said.startswith(f"lrkit: stopped by {called} while it waited for 1 of 2 processes; "), said
    if name == "SIGTERM":
        row("one of two processes hangs before they connect; then SIGTERM", 1, 1, 0, "`lrkit: waiting for 1 of 2"
            f" processes at 127.0.0.1:..., until ...`; exit code 143 {seconds:.0f} s after SIGTERM; `lrkit: stopped by"
            " SIGTERM while it waited for 1 of 2 processes; ...`")  # fmt: skip


# --- before a training --------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_while_the_command_loads(tmp_path: Path, row: Row) -> None:
    """At any moment from its first words on: torch and Lightning swallow what is raised in some of their imports."""
    chance, slowest = random.Random(2), 0.0
    for i in range(16):
        with started(tmp_path, "trainer.max_epochs=3000", "model.hidden=[8]") as process:
            time.sleep(chance.uniform(1.0, 5.0))
            since = time.monotonic()
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=40)[0]
            slowest = max(slowest, time.monotonic() - since)
        line = said.splitlines()[-1]
        assert process.returncode == 130 and "Traceback" not in said, (i, said)
        assert line.startswith(("lrkit: interrupted", "lrkit: stopped by Ctrl-C")), (i, said)
    row("Ctrl-C while torch and Lightning are loaded, 1 to 5 s after the start", 16, 16, 0, "exit code 130; one line:"
        f" `lrkit: interrupted`; at the latest after {slowest:.0f} s")  # fmt: skip


@pytest.mark.slow
def test_find_on_a_loss_that_is_nan_at_the_first_step(tmp_path: Path) -> None:
    """No lower rate helps there, so none is advised."""
    (tmp_path / "sick.py").write_text(
        "import torch\nfrom lrkit.lightning.imports import LightningModule\n\n\nclass Net(LightningModule):\n"
        "    def __init__(self):\n        super().__init__()\n        self.layer = torch.nn.Linear(64, 10)\n\n"
        "    def training_step(self, batch, i):\n        return self.layer(batch[0].flatten(1)).sum() * float('nan')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "lrkit", "find", "model=custom", "model._target_=sick.Net"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    assert "at the first step, before any rate was used: check the data, the model and the loss" in ended.stdout
    assert "begin lower" not in ended.stdout + ended.stderr

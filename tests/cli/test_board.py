"""`lrkit board`: its command line for TensorBoard, and its refusals. A slow test starts TensorBoard."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_folders import write_events

from lrkit.base.errors import ConfigError
from lrkit.cli.board import tensorboard_command
from lrkit.cli.main import main


def test_it_is_for_this_machine_alone_and_reads_all_files_of_a_run(tmp_path: Path) -> None:
    write_events(tmp_path / "a" / "b", {"loss": {0: 1.0}})
    expected = ["--logdir", str(tmp_path), "--host", "127.0.0.1", "--port", "6006", "--reload_multifile", "true"]
    assert tensorboard_command([str(tmp_path)]) == [sys.executable, "-P", "-m", "tensorboard.main", *expected]
    assert tensorboard_command([str(tmp_path), "port=0"])[9] == "0"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "lrkit board needs one folder: lrkit board outputs."),
        (["{logs}", "{logs}"], "lrkit board needs one folder"),
        (["{logs}", "--bind_all"], "--bind_all is refused: lrkit board serves only this machine."),
        (["--host=0.0.0.0", "{logs}"], "--host is refused: lrkit board serves only this machine."),
        (["{logs}", "host=0.0.0.0"], "host is refused: lrkit board serves only this machine."),
        (["{logs}/none"], "must be an existing folder"),
        (["{empty}"], "contains no TensorBoard event files (searched recursively)."),
        (["{logs}", "--port", "6011"], "port must be written without dashes: port=6006. Received: '--port'"),
        (["{logs}", "port=http"], "port must be a whole number in [0, 65535]"),
        (["prt=1"], "prt is not a key. Did you mean 'port'? Accepted: port."),
    ],
)
def test_what_it_refuses(argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_events(tmp_path / "logs", {"loss": {0: 1.0}})
    (tmp_path / "empty").mkdir()
    words = [word.format(logs=tmp_path / "logs", empty=tmp_path / "empty") for word in argv]
    with pytest.raises(ConfigError, match=re.escape(message)):
        tensorboard_command(words)
    assert main(["board", *words]) == 2
    assert capsys.readouterr().err.startswith("lrkit: ")


@pytest.mark.slow
def test_tensorboard_takes_these_arguments(tmp_path: Path) -> None:
    write_events(tmp_path, {"loss": {0: 1.0}})
    with subprocess.Popen(tensorboard_command([str(tmp_path), "port=0"]), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = next((line for line in process.stderr if "127.0.0.1" in line), "")
        process.terminate()
        process.stderr.read()
    assert re.search(r"http://127\.0\.0\.1:\d+", said)


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
#: No screen, no network but this machine's.
HEADLESS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=30000"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_a_browser_shows_the_runs_of_a_sweep_and_their_rates(tmp_path: Path) -> None:
    sweep = [sys.executable, "-m", "lrkit", "train", "-m", "schedule=step,cosine", "trainer.max_epochs=1"]
    subprocess.run(sweep, cwd=tmp_path, check=True, capture_output=True, timeout=200)
    with subprocess.Popen(
        tensorboard_command([str(tmp_path / "outputs"), "port=0"]),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None and CHROMIUM is not None
        said = next((line for line in process.stderr if "127.0.0.1" in line), "")
        found = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert found is not None
        time.sleep(10)  # until it has read the files
        page = [CHROMIUM, *HEADLESS, f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom"]
        shown = subprocess.run([*page, f"{found[0]}/#timeseries"], capture_output=True, text=True)
        process.terminate()
        process.stderr.read()
    assert {"0_schedule=step", "1_schedule=cosine"} <= set(re.findall(r"\d_schedule=\w+", shown.stdout))
    assert {"lr", "train", "val", "plan"} <= set(re.findall(r'title="(\w+)"', shown.stdout))  # the groups of cards

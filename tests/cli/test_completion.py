"""Tab: the candidates for each place of a command line, and the scripts in real shells."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrkit.cli.commands import COMMANDS
from lrkit.cli.completion import print_candidates, split_line
from lrkit.cli.completion_candidates import find_candidates
from lrkit.cli.main import main
from lrkit.config.documented_options import DocumentedOptions
from lrkit.config.shipped_options import option_names

BREAKS = " \t\n\"'@><=;|&(:"


def texts(line: str) -> list[str]:
    """The candidates at the end of a line after ``lrkit``."""
    words, current = split_line(line)
    return [each.text for each in find_candidates(words, current)]


# --- candidates -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", [*COMMANDS]), ("trai", ["train"]), ("--v", ["--version"]), ("trian sche", []),
        ("train sche", ["schedule="]), ("show sche", ["schedule="]), ("find sche", ["schedule="]),
        ("train schedule=co", ["schedule=constant", "schedule=cosine"]),
        ("train schedule=", [f"schedule={name}" for name in option_names("schedule")]),
        ("train -m schedule=cosine,co", ["schedule=cosine,constant"]),
        ("train logger=[csv,te", ["logger=[csv,tensorboard"]),
        ("train schedule=step schedule.g", ["schedule.gamma="]), ("train schedule.g", []),
        ("train optimizer.mom", ["optimizer.momentum="]),
        ("train optimizer=adamw optimizer.b", ["optimizer.betas="]),
        ("train horizon=", []), ("train hori", ["horizon."]), ("train horizon.steps_", ["horizon.steps_per_epoch="]),
        ("train trai", ["trainer."]), ("train trainer.gradient_clip_algorithm=", [
            "trainer.gradient_clip_algorithm=norm", "trainer.gradient_clip_algorithm=value"]),
        ("train warmup.len", ["warmup.length="]), ("train warmup=linear warmup.len", ["warmup.length="]),
        ("train seed=1 se", []), ("train test=", ["test=true", "test=false"]),
        ("train optimizer.lr=", ["optimizer.lr=0.1"]), ("train optimizer=adamw optimizer.lr=", ["optimizer.lr=1.0e-3"]),
        ("train resume.policy=re", ["resume.policy=restore", "resume.policy=restart"]),
        ("train ++optimizer.mom", ["++optimizer.momentum="]), ("train ~optimizer.mom", ["~optimizer.momentum="]),
        ("train +", ["+experiment=", "+sweep=", "+launcher="]), ("train +sweep=lr", ["+sweep=lr_sensitivity"]),
        ("train schedule@coschedule.m", ["schedule@coschedule.momentum="]),
        ("train schedule@coschedule.momentum=wsd coschedule.momentum.dec", ["coschedule.momentum.decay="]),
        ("train optimizer@optimizers.actor.optimizer=adamw", ["optimizer@optimizers.actor.optimizer=adamw"]),
        ("train callbacks=ema callbacks.ema.dec", ["callbacks.ema.decay="]),
        ("train --cfg ", ["job", "hydra", "all"]), ("train --tru", ["--trust"]), ("train --trust my", []),
        ("show for", ["format="]), ("show format=", ["format=text", "format=csv", "format=json", "format=png"]),
        ("compare by=", ["by=best", "by=final"]), ("compare met", ["metric="]),
        ("board po", ["port="]),
        ("completion ", [*COMMANDS["completion"].words]),
        ("help optimizer.adamw_e", ["optimizer.adamw_eps"]), ("help horizon.sto", [
            "horizon.stop_after"]),
        ("help comp", ["compare", "completion", "compile"]), ("--traceback train sche", ["schedule="]),
    ],
)  # fmt: skip
def test_candidates(line: str, expected: list[str]) -> None:
    found = texts(line)
    assert found == expected


def test_a_sweep_has_the_keys_of_all_its_options_and_flags_are_those_of_the_command() -> None:
    assert {"schedule.gamma=", "schedule.power="} <= {*texts("train -m schedule=step,cosine schedule.")}
    assert texts("show -") == ["-m", "--multirun", "--config", "--config-dir", "--trust", "--traceback", "--help"]
    assert texts("board -") == ["--traceback", "--help"]


def test_every_option_and_key_is_a_candidate() -> None:
    options = DocumentedOptions()
    for group in options.groups:
        for name in options.names(group.name):
            word = f"{group.word}={name}"
            assert word in texts(f"train {word}")
            if group.added:
                continue
            option = options.read(group.name, name)
            prefix = (option.keys or option.shared)[0].path.partition(".")[0] if option.keys or option.shared else None
            found = texts(f"train {word} {prefix}.") if prefix else []
            assert {f"{key.path}=" for key in (*option.keys, *option.shared)} <= {*found}
    assert {f"{key.path}=" for key in options.settings if "." in key.path} <= {
        each for section in options.sections for each in texts(f"train {section.path}.")
    }


def test_paths_where_a_command_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "outputs"))
    (tmp_path / "outputs" / "runs" / "a b").mkdir(parents=True)
    (tmp_path / "outputs" / ".hidden").mkdir()
    (tmp_path / "outputs" / "rates.csv").write_text("")
    assert texts("compare outp") == ["outputs/"] == texts("train --config-dir ")
    assert texts("compare outputs/") == ["outputs/runs/"]
    assert texts("compare out=outputs/r") == ["out=outputs/runs/"]
    assert texts("train resume.path=outputs/r") == ["resume.path=outputs/rates.csv", "resume.path=outputs/runs/"]
    assert texts("train hydra.run.dir=~/ru") == ["hydra.run.dir=~/runs/"]
    assert texts("train --config-dir=out") == ["--config-dir=outputs/"]
    assert texts("train --config outputs/ra") == ["outputs/rates.csv"]
    assert texts("train --config=outputs/ra") == ["--config=outputs/rates.csv"]
    assert texts("train --config outputs/r") == ["outputs/rates.csv", "outputs/runs/"]
    assert texts("show --config=outputs/ra") == ["--config=outputs/rates.csv"]
    assert texts("train data=idx data.path=outputs/runs/") == ["data.path=outputs/runs/a b/"]
    assert texts("compare no/such/") == []


def test_the_users_own_options_are_candidates(tmp_path: Path) -> None:
    for name in ("schedule/mine.yaml", "place/here.yaml"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("# Mine.\nroom: 5\n")
    assert texts(f"train --config-dir {tmp_path} schedule=m") == ["schedule=mine", "schedule=multistep"]
    assert texts(f"train --config-dir={tmp_path} schedule=mine schedule.r") == ["schedule.room="]
    assert texts(f"help --config-dir={tmp_path} place.h") == ["place.here"]
    assert "+place=" in texts(f"train --config-dir={tmp_path} +")


# --- the form that each shell needs ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("lrkit train sche", ["schedule="]), ("lrkit train schedule=cos", ["cosine "]),
        ("lrkit train schedule@coschedule.momentum=cos", ["cosine "]),
        ("lrkit train schedule@coschedule.mom", ["@coschedule.momentum="]), ("lrkit train -m schedule=step,cos", [
            "step,cosine "]),
        ("lrkit train 'logger=[csv,te", ["logger=[csv,tensorboard"]),
        ('lrkit train "schedule=cos', ["schedule=cosine"]),
        ("lrkit train logger=[te", ["[tensorboard"]), ("lrkit train 'a b' sche", ["schedule="]),
        ("/some/where/lrkit trai", ["train "]), ("lrkit train trainer.max_time=00:1", []),
    ],
)  # fmt: skip
def test_bash_gets_the_part_of_the_word_that_it_replaces(
    line: str, printed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert print_candidates(["bash", line, BREAKS]) == 0
    assert capsys.readouterr().out.splitlines() == printed


def test_bash_gets_special_characters_of_a_path_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b$c").mkdir()
    print_candidates(["bash", "lrkit compare a", BREAKS])
    print_candidates(["bash", "lrkit compare a\\ ", BREAKS])
    print_candidates(["bash", "lrkit compare 'a ", BREAKS])
    assert capsys.readouterr().out.splitlines() == ["a\\ b\\$c/", "a\\ b\\$c/", "a b$c/"]


def test_zsh_and_fish_get_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    print_candidates(["zsh", "train", "schedule=cosi"])
    print_candidates(["fish", "train", "schedule=cosi"])
    zsh, fish = capsys.readouterr().out.splitlines()
    assert zsh == "schedule=cosine \tHalf a cosine, by default to zero (Loshchilov and Hutter..."
    assert fish == zsh.replace(" \t", "\t")


@pytest.mark.parametrize("words", [[], ["bash"], ["bash", "lrkit 'train", "x"], ["zsh"], ["zsh", "train", "a\0b"],
                                   ["fish", "train", "--config-dir=/nope", "x"], ["tcsh", "train", ""]])  # fmt: skip
def test_nothing_wrong_is_printed_into_the_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complete", *words]) == 0
    assert capsys.readouterr().err == ""


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bsh"]) == 2
    assert capsys.readouterr().err == (
        "lrkit: lrkit completion needs a shell. Did you mean 'bash'? Accepted: bash, fish, zsh. Received: 'bsh'\n"
    )


def test_candidates_load_neither_hydra_nor_torch() -> None:
    code = """
import sys
from lrkit.cli.main import main
main(["complete", "zsh", "train", "optimizer=adamw", "optimizer."])
print([name for name in ("torch", "hydra", "omegaconf", "rich", "numpy", "lrkit.schedules") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("optimizer.lr=\t") and done.stdout.endswith("\n[]\n")


# --- real shells ----------------------------------------------------------------------------------

#: How each shell starts without the user's files, and prints the words that the command would get.
STARTS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"],
             'PS1="ready> "; lrkit() { printf "<%s>" got "$@"; echo; }; eval "$(command lrkit completion bash)"'),
    "zsh": (["zsh", "-f", "-i"],
            'PS1="ready> "; autoload -U compinit; compinit -D -u; lrkit() { printf "<%s>" got "$@"; echo; }; '
            'eval "$(command lrkit completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"],
             'function fish_prompt; echo "ready> "; end; function lrkit; printf "<%s>" got $argv; echo; end; '
             "command lrkit completion fish | source"),
}  # fmt: skip


class Shell:
    """An interactive shell in a pseudo-terminal."""

    def __init__(self, name: str, folder: Path) -> None:
        argv, setup = STARTS[name]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {"PATH": path, "TERM": "xterm", "HOME": str(folder), "LANG": "C.UTF-8", "COLUMNS": "120", "LINES": "50"}
        self.number, slave = pty.openpty()
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=env, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # fish needs a terminal of its own
        )  # fmt: skip
        os.close(slave)
        self.send(setup + "\n", until="ready> ")
        self.send("lrkit begin\n", until="<got><begin>")

    def send(self, keys: str, until: str, seconds: float = 30) -> str:
        """Type keys and return what the shell shows, up to a text."""
        os.write(self.number, keys.encode())
        shown, end = "", time.monotonic() + seconds
        while until not in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown) and time.monotonic() < end:
            if select.select([self.number], [], [], 0.5)[0]:
                shown += os.read(self.number, 65536).decode(errors="replace")
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
        assert until in plain, plain
        return plain

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.number)


@pytest.fixture(params=["bash", *(pytest.param(name, marks=pytest.mark.slow) for name in ("zsh", "fish"))])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    if not (Path(sys.executable).parent / "lrkit").exists():
        pytest.skip("lrkit is not installed as a command")
    (tmp_path / "outputs" / "runs").mkdir(parents=True)
    opened = Shell(request.param, tmp_path)
    yield opened
    opened.close()


def test_tab_in_a_real_shell(shell: Shell) -> None:
    for typed, words in (
        (
            "lrkit trai\tsche\tcosi\toptimizer=adamw optimizer.ep\t1e-7",
            ["train", "schedule=cosine", "optimizer=adamw", "optimizer.eps=1e-7"],
        ),
        (
            "lrkit train schedule@coschedule.mom\twsd -m schedule=step,one\t",
            ["train", "schedule@coschedule.momentum=wsd", "-m", "schedule=step,one_cycle"],
        ),
        ("lrkit compare outp\trun\t by=fi\t", ["compare", "outputs/runs/", "by=final"]),
    ):
        shell.send(f"{typed}\n", until="".join(f"<{word}>" for word in ["got", *words]))
    shell.send("lrkit train warmup=co\t\t", until="constant")

"""No file in an untrusted working folder is imported or run by any process.

The folder has a module for the name of every module of the standard library and of every installed package, and some
programs. Each one writes a marker file when it is imported or run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).parent / "lrkit"
AS_MODULE = [sys.executable, "-m", "lrkit"]

#: Further names of modules: plugins, modules of Python's start, and optional packages that are not installed.
OTHERS = (
    "sitecustomize usercustomize conftest setup evil hydra_plugins.evil hydra_plugins.__init__ tensorboard_plugin_evil"
    " wandb mlflow comet_ml neptune tensorboardX deepspeed apex torch_xla habana_frameworks bitsandbytes colossalai"
    " torch_tensorrt torchvision datasets pandas tensorflow jax lightning_habana lightning_cloud psutil IPython mpi4py"
    " colorama schedulefree pytorch_optimizer mnist1d"
)
PROGRAMS = ["python", "python3", "sh", "git", "gs", "nvidia-smi", "tensorboard", "uname", "ldconfig", "gcc"]
GROUPS = (
    "torch.backends torch_dynamo_backends tensorboard_plugins lightning.pytorch.callbacks_factory"
    " pytorch_lightning.callbacks_factory lightning.fabric.callbacks_factory lightning.pytorch.strategies_factory"
    " lightning.fabric.strategies hydra.plugins fsspec.specs console_scripts numpy_pyinstaller"
)

SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "model.hidden=[8]"]
TWO = ["trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp", "logger=none"]


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """The folder; ``executed`` beside it is the mark."""
    folder, mark = tmp_path / "trap", tmp_path / "executed"
    names = {*sys.stdlib_module_names, *metadata.packages_distributions(), *OTHERS.split()} - {"lrkit"}
    names |= {"lrkit.cli.main", "lrkit.__init__", "lrkit.__main__"}
    for name in sorted(names):
        if all(part.isidentifier() for part in name.split(".")):
            file = folder / f"{name.replace('.', '/')}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"open({str(mark)!r}, 'a').write({name + chr(10)!r})\n")
    for name in PROGRAMS:
        (folder / name).write_text(f"#!/bin/sh\necho program {name} >> {mark}\n")
        (folder / name).chmod(0o755)
    (folder / "evil.pth").write_text("import evil\n")
    (folder / ".env").write_text("PYTHONPATH=.\nPYTHONSTARTUP=evil.py\n")
    (folder / "pyproject.toml").write_text("[tool.hydra]\nplugins = ['evil']\n[build-system]\nbuild-backend = 'evil'\n")
    (folder / "setup.cfg").write_text("[options.entry_points]\nconsole_scripts = lrkit = evil:main\n")
    (folder / "pyvenv.cfg").write_text("home = .\n")
    info = folder / "evil-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("".join(f"[{group}]\nevil = evil:main\n" for group in GROUPS.split()))
    (folder / "conf").mkdir()
    (folder / "conf" / "train.yaml").write_text("model: {_target_: evil.Net}\n")
    for name in (".hydra", "experiment"):
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text("model: {_target_: evil.Net}\n")
    return folder


def given(trap: Path, *words: str, command: list[str] | None = None, code: int = 0, **environment: str) -> str:
    """Return the output of a command in the folder, after a check that no file in it was executed."""
    if command is None and not COMMAND.exists():
        pytest.skip("lrkit is not installed as a command")
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run(
        [*(command or [str(COMMAND)]), *words], cwd=trap, capture_output=True, text=True, timeout=150,
        env={**env, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    mark = trap.parent / "executed"
    assert not mark.exists(), f"{' '.join(words)}: {mark.read_text()}"
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_commands_that_load_little(trap: Path) -> None:
    given(trap, "show", "horizon.steps=2", "format=csv")
    given(trap, "find", "--help")
    given(trap, "board", "--help")
    given(trap, "--help")
    given(trap, "help", "--config-dir", "conf", "model")
    given(trap, "complete", "zsh", "train", "--config-dir", "conf", "model=")


@pytest.mark.slow
def test_a_training_and_what_looks_at_it(trap: Path) -> None:
    given(trap, "train", *SHORT)
    given(trap, "train", "--help")
    (run,) = (trap / "outputs" / "runs").iterdir()
    given(trap, "compare", str(run))
    given(trap, "show", "format=png", "horizon.steps=4")
    given(trap, "train", f"resume.path={run}", "trainer.max_epochs=2", "resume.policy=extend")


@pytest.mark.slow
@pytest.mark.parametrize("engine", [[], ["hydra/launcher=basic"]], ids=["lrkit", "basic"])
def test_a_sweep_and_its_jobs(engine: list[str], trap: Path) -> None:
    given(trap, "train", "-m", "seed=1,2", *SHORT, *engine)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["train"], ["train", "-m", "seed=1,2", "jobs=1"]], ids=["run", "sweep"])
def test_processes_for_further_devices(words: list[str], trap: Path) -> None:
    given(trap, *words, *SHORT, *TWO)


@pytest.mark.slow
def test_a_search(trap: Path) -> None:
    words = ["find.confirm=false", "find.steps=100", "model.hidden=[8]"]
    given(trap, "find", *words)
    given(trap, "find", *words, *TWO)


SAFE = [sys.executable, "-P", "-m", "lrkit"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["train", *SHORT, *TWO], ["train", "-m", "seed=1,2", *SHORT]], ids=["two", "sweep"])
def test_python_p_m_lrkit(words: list[str], trap: Path) -> None:
    given(trap, *words, command=SAFE)


@pytest.mark.slow
def test_python_m_lrkit_looks_here_for_the_standard_library_alone(trap: Path) -> None:
    """Python itself does that before lrkit starts; no other file of the folder is executed."""
    for file in trap.rglob("*.py"):
        name = file.stem if file.parent == trap else file.parent.name
        if name in sys.stdlib_module_names:
            file.unlink()
    shutil.rmtree(trap / "lrkit")
    for words in (["show", "horizon.steps=2"], ["train", *SHORT, *TWO], ["train", "-m", "seed=1,2", *SHORT]):
        given(trap, *words, command=AS_MODULE)

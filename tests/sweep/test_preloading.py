"""What the jobs of a sweep inherit: modules and caches of the server process, and the config that was composed."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from lrkit.cli.main import main
from lrkit.cli.sweep import run_job
from lrkit.config.compose import compose, compose_with_hydra
from lrkit.sweep.preloading import list_preloaded

TINY = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=0", "model.hidden=[]"]

#: Prints what the warm-up leaves behind that a fork must not inherit: random numbers used, threads, torch.
LEFT_BEHIND = """
import gc, random, sys, threading, numpy
before = random.getstate(), numpy.random.get_state()[1].tolist(), {*threading.enumerate()}
import lrkit.sweep.server_warmup as warm
assert before == (random.getstate(), numpy.random.get_state()[1].tolist(), {*threading.enumerate()})
assert "torch" not in sys.modules and gc.get_freeze_count() > 10**4 and warm.plan is not None
"""


@pytest.fixture
def composings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """An entry for each time that Hydra composes a config."""
    seen: list[object] = []
    compose_config = ConfigLoaderImpl.load_configuration

    def load(self: Any, *args: Any, **more: Any) -> Any:
        seen.append(more)
        return compose_config(self, *args, **more)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", load)
    return seen


def test_a_run_composes_its_config_once(
    composings: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *TINY, "seed=3"]) == 0
    assert len(composings) == 1
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    assert (run / ".hydra" / "overrides.yaml").read_text().split("\n")[-2] == "- seed=3"
    assert f"dir: {run.relative_to(tmp_path)}" in (run / ".hydra" / "hydra.yaml").read_text()
    assert json.loads((run / "config.json").read_text()) == json.loads(json.dumps(compose([*TINY, "seed=3"])))


def test_a_job_of_a_sweep_composes_nothing(composings: list[object], tmp_path: Path) -> None:
    words = [*TINY, "seed=4", f"hydra.run.dir='{tmp_path}/a job, of mine'"]
    composed = pickle.loads(pickle.dumps(compose_with_hydra(words)[1]))
    composings.clear()
    assert run_job(words, None, composed) == 0
    assert composings == []
    assert json.loads((tmp_path / "a job, of mine" / "config.json").read_text())["seed"] == 4


def test_the_warmup_leaves_no_thread_no_torch_and_no_used_random_numbers() -> None:
    subprocess.run([sys.executable, "-c", LEFT_BEHIND], check=True, timeout=120)


@pytest.mark.parametrize(
    ("words", "config_dir", "expected"),
    [
        (["schedule=step", "callbacks=[early_stopping]"], None, True),
        (["+callbacks.mine._target_=mycode.Mine"], None, False),
        (["+callbacks.mine={_target_: mycode.Mine}"], None, False),
        (["trust=[mycode]"], None, False),
        (["config_file='config.yaml'"], None, False),
        (["seed=1"], "configs", False),
    ],
)
def test_the_class_of_a_user_decides_in_its_job_which_lightning_package_is_used(
    words: list[str], config_dir: str | None, expected: bool
) -> None:
    assert ("lrkit.training.run" in list_preloaded(words, config_dir)) is expected

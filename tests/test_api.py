"""Ordinary Python: what the command does, in a script of plain Lightning; and the groups inside another Hydra app."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_lightning import Data, Net
from recorded_rates import Recorded

import lrkit
from lrkit import ConfigError, Plateau
from lrkit.config.compose import compose
from lrkit.config.compose import plan as plan_of
from lrkit.lightning.classes import Trainer
from lrkit.schedules.shapes import Cosine, Linear

HEAD = [{"name": "head", "pattern": "^head", "lr_scale": 2}]


def test_the_function_and_the_command_give_the_same_plan() -> None:
    command = plan_of(compose(["optimizer=adamw", "schedule=wsd", "warmup=linear", "batch_scaling=auto",
                               "param_groups=no_decay", "trainer.max_epochs=10", "data.batch_size=64"]))  # fmt: skip
    function = lrkit.plan(
        lr=command.base_lr, options={"weight_decay": 0.01}, schedule="wsd", warmup="linear", steps=190,
        steps_per_epoch=19, batch_size=64, batch_scaling="auto", param_groups={"no_decay": True},
    )  # fmt: skip
    assert [function.lr(g, t) for g in function.groups for t in range(190)] == [
        command.lr(g, t) for g in command.groups for t in range(190)
    ]


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.parametrize("optimizer", ["torch.optim.SGD", torch.optim.AdamW])
def test_configure_in_a_script_of_plain_lightning(optimizer: Any, tmp_path: Path, recorded: Recorded) -> None:
    module = lrkit.configure(
        Net(), lr=0.1, optimizer=optimizer, schedule=Cosine(), warmup=Linear(length=3), batch_scaling="linear",
        base_batch_size=10, plateau=Plateau(monitor="val_loss"), param_groups=HEAD,
    )  # fmt: skip
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accumulate_grad_batches=2, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, datamodule=Data(batch_size=10))
    expected = lrkit.plan(
        lr=0.1, schedule="cosine", warmup=Linear(length=3), steps=6, steps_per_epoch=3, batch_size=20,
        batch_scaling="linear", base_batch_size=10, param_groups=HEAD,
    )  # fmt: skip
    assert [[step[g.name][0] for g in expected.groups] for step in recorded] == [
        [expected.lr(g, t) for g in expected.groups] for t in range(6)
    ]


def test_a_curve_by_names() -> None:
    curve = lrkit.curve("linear", steps=100, warmup="cosine", warmup_length=10, cooldown="sqrt", cooldown_length="10%")
    assert (curve(10), curve(50), curve(90)) == (1.0, 0.5, 0.0)
    with pytest.raises(ConfigError, match=r"^schedule is not a schedule\. Did you mean 'cosine'"):
        lrkit.curve("cosin", steps=10)


def test_importing_lrkit_imports_no_torch() -> None:
    code = "import lrkit, sys; lrkit.plan(lr=0.1, steps=10); sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_another_hydra_application_takes_the_groups(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "app.yaml").write_text(
        "defaults:\n  - schedule: cosine\n  - warmup: linear\n  - _self_\nhydra:\n  searchpath: [pkg://lrkit.conf]\n"
    )
    (tmp_path / "app.py").write_text(
        "import hydra\n"
        "@hydra.main(config_path='conf', config_name='app', version_base='1.3')\n"
        "def main(cfg): print(hydra.utils.instantiate(cfg.schedule)(1, 4), cfg.warmup.length)\n"
        "main()\n"
    )
    command = [sys.executable, "app.py", "schedule=linear"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0.75", "5%"]

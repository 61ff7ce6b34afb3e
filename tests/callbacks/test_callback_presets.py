"""The presets of callbacks: they compose by a list, follow monitor, and leave lrkit's own checkpoints alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose
from lrkit.training.run import run_training
from lrkit.training_objects.callbacks import callbacks_of

BOTH = "callbacks=[default,early_stopping,checkpoint_every]"
SHORT = ["trainer.limit_train_batches=2", "model.hidden=[8]", "logger=none"]


@pytest.mark.parametrize(
    ("overrides", "mode"),
    [
        ([], "min"),
        (["monitor=val/accuracy"], "max"),
        (["callbacks.early_stopping.monitor=val/accuracy"], "max"),
        (["monitor=val/accuracy", "callbacks.early_stopping.mode=min"], "min"),
    ],
)
def test_the_direction_is_that_of_the_metric(overrides: list[str], mode: str, tmp_path: Path) -> None:
    stopping, saving = callbacks_of(compose([BOTH, *overrides]), tmp_path)
    assert (stopping.mode, stopping.patience) == (mode, 5)  # type: ignore[attr-defined]
    assert saving.dirpath == str(tmp_path / "checkpoints")  # type: ignore[attr-defined]


def test_they_run_beside_the_best_and_the_last_checkpoint(tmp_path: Path) -> None:
    words = [
        BOTH, *SHORT, "trainer.max_epochs=6", "schedule=constant", "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=100", "callbacks.checkpoint_every.every_n_train_steps=2",
    ]  # fmt: skip
    ended = run_training(compose(words), tmp_path, quiet=True)
    assert ended.status == "stopped"  # after the second validation, which is no improvement of 100
    assert json.loads((tmp_path / "metrics.json").read_text())["steps"] == 4
    assert json.loads((tmp_path / "plan.json").read_text())["horizon"]["steps"] == 12
    files = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert {"best.ckpt", "last.ckpt", "step=2.ckpt", "step=4.ckpt"} <= files


def test_the_best_of_several_are_kept(tmp_path: Path) -> None:
    words = [*SHORT, "trainer.max_epochs=4", "callbacks=checkpoint_every", "callbacks.checkpoint_every.save_top_k=1"]
    run_training(compose([*words, "callbacks.checkpoint_every.monitor=auto"]), tmp_path, quiet=True)
    best = json.loads((tmp_path / "metrics.json").read_text())["best"]["step"]
    assert [path.name for path in (tmp_path / "checkpoints").glob("step=*")] == [f"step={best}.ckpt"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["callbacks.early_stopping.monitor=val/acuracy"],
         r"^callbacks\.early_stopping\.monitor names a metric that is not logged\. Did you mean 'val/accuracy'\?"),
        (["trainer.limit_val_batches=0"],
         r"^monitor must name a metric: EarlyStopping needs one, and there is no validation\. Received: 'auto'"),
        (["callbacks.early_stopping.mode=upwards"], r"^callbacks\.early_stopping cannot be built: .*mode"),
        (["callbacks.early_stopping.patiense=1"], r"^callbacks\.early_stopping\.patiense is not a key\. Did you mean"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(overrides: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        run_training(compose([BOTH, *SHORT, "trainer.max_epochs=1", *overrides]), tmp_path, quiet=True)


def test_the_same_preset_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^callbacks must be a list of different options"):
        config: Any = compose(["callbacks=[early_stopping,early_stopping]"])
        callbacks_of(config)

"""Earlier paths of lrkit's classes still work in configs, plans and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lrkit.base.moved_classes import MOVED, with_current_paths
from lrkit.checkpoint.saved_run import load_saved_run
from lrkit.config.compose import check, compose
from lrkit.config.trusted_targets import import_module


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_each_leads_to_a_class(old: str, new: str) -> None:
    module, _, name = new.rpartition(".")
    assert isinstance(getattr(import_module(module), name), type) and old.endswith(f".{name}")


def test_a_config_that_names_them_is_that_of_today(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_text("_target_: lrkit.muon.Muon\nlr: 0.02\n")
    config = compose(["optimizer=mine", "horizon.steps=10"], str(tmp_path))
    assert config["optimizer"]["_target_"] == "lrkit.optim.muon.Muon"
    plan = check(config)
    assert plan is not None and plan.optimizer == "lrkit.optim.muon.Muon"
    typed = compose(["optimizer._target_=lrkit.muon.Muon", "horizon.steps=10", "optimizer.lr=0.02"])
    assert typed["optimizer"]["_target_"] == "lrkit.optim.muon.Muon"


def test_a_checkpoint_that_names_them_is_gone_on_with(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of an earlier version has the old paths in its plan; the table of differences does not list them."""
    with monkeypatch.context() as earlier:
        back = {new: old for old, new in MOVED.items()}
        earlier.setattr("lrkit.base.moved_classes.MOVED", {})
        earlier.setattr("lrkit.checkpoint.lrkit_state_callback.json.dumps", _with(back))
        run = train("optimizer=muon", "optimizer.lr=0.02", "trainer.max_epochs=2")
    assert '"lrkit.muon.Muon"' in load_saved_run(str(run.folder)).content["lrkit"]["plan"]
    assert load_saved_run(str(run.folder)).plan["optimizer"] == "lrkit.optim.muon.Muon"


def _with(names: dict[str, str]) -> Any:
    import json

    dumps = json.dumps

    def replaced(value: Any, **options: Any) -> str:
        text = dumps(value, **options)
        for new, old in names.items():
            text = text.replace(f'"{new}"', f'"{old}"')
        return text

    return replaced


def test_nothing_else_is_changed() -> None:
    node = {"a": ["lrkit.muon", 3, None], "b": {"c": "lrkit.schedules.Cosine"}}
    assert with_current_paths(node) == node

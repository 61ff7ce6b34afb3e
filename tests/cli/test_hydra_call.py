"""A run has the config that lrkit checked, also with a version of hydra-core that composes in another way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra._internal.hydra import Hydra
from omegaconf import DictConfig

from lrkit.cli.hydra_call import run_composed
from lrkit.config.compose import compose_with_hydra


def composed(*words: str) -> DictConfig:
    config = compose_with_hydra(words)[1]
    assert config is not None
    return config


def test_the_job_has_the_composed_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given: list[Any] = []
    run_composed(composed("seed=7", "model.hidden=[4]"), None, given.append)
    assert [(config.seed, config.model.hidden) for config in given] == [(7, [4])]


def test_no_job_runs_with_another_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    default, asked = composed(), composed("seed=7")
    monkeypatch.setattr(Hydra, "compose_config", lambda *_, **__: default)
    given: list[Any] = []
    with pytest.raises(RuntimeError, match="composes another config than the one that lrkit checked"):
        run_composed(asked, None, given.append)
    assert given == []

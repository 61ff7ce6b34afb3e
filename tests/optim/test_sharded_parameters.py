"""Each optimizer on parameters that two processes share (FSDP2, gloo): as one process trains them, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from locations import CONF, HELPERS
from omegaconf import OmegaConf
from several_processes import torchrun

from lrkit.planning.optimizer_traits import refuses_shards

NAMES = sorted(file.stem for file in (CONF / "optimizer").glob("*.yaml") if file.stem != "custom")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("sharded")
    done = torchrun(folder, 2, str(HELPERS / "sharded_training.py"), "found.json", *NAMES)
    assert done.code == 0, done.err
    loaded: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return loaded


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_like_one_process_and_resumes_or_is_refused(name: str, found: dict[str, Any]) -> None:
    refused, result = refuses_shards(str(OmegaConf.load(CONF / "optimizer" / f"{name}.yaml")._target_)), found[name]
    assert ("error" in result) == refused, result
    if not refused:
        # The sum of the gradients over the processes is rounded in another order.
        assert result["to_one_process"] < 1e-6 and result["moved"] > 1e-4
        assert "schedule_free" in name or (result["to_resumed"] == 0 and result["applied"] == 3)


def test_some_are_refused() -> None:
    assert refuses_shards("torch.optim.Adafactor") and not refuses_shards("lrkit.optim.muon.Muon")

"""lrkit's promises for third-party modules: training, kill and resume, with both Lightning packages.

A case is a module of a third-party package with data for it (``tests/helpers/third_party_modules.py``). For each case:
the rates of every step are bit for bit the plan's; TensorBoard has them and a loss; and a run that SIGTERM stopped
within an epoch ends, after a resume, with the weights of an uninterrupted run. ``make third-party`` installs the
packages and runs this file.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from commands_in_one_process import commands
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lrkit.planning.plan import Plan


class Case(NamedTuple):
    """A third-party module.

    Args:
        model: the class or function in ``tests/helpers/third_party_modules.py``, or its whole path.
        data: the class there.
        needs: the package that it is from.
        own: what else the command says.
    """

    model: str
    data: str
    needs: str
    own: str = ""


CASES = [
    Case("tutorial_modules.AutoEncoder", "Images", "torch"),
    Case("tutorial_modules.templated", "Images", "torch"),
    Case("tutorial_modules.TwoOutputs", "Tokens", "torch", "param_groups=layerwise"),
    Case("tutorial_modules.GAN", "Images", "torch", "optimizers={generator:{},discriminator:{optimizer:{lr:4e-4}}}"),
    Case("BoringModel", "Noise", "torch"),
    Case("ManualOptimBoringModel", "Noise", "torch"),
    Case("linear_classifier", "Images", "lightly"),
    Case("deep_ar", "Series", "gluonts"),
    Case("feed_forward", "ShortSeries", "gluonts"),
    Case("fusion_transformer", "Forecasts", "pytorch_forecasting"),
    Case("n_beats", "Forecasts", "pytorch_forecasting"),
    Case("category_embedding", "Table", "pytorch_tabular"),
    Case("timm_resnet", "Images", "timm"),
    Case("timm_vit", "Images", "timm", "param_groups=layerwise param_groups.layer_decay=0.5"),
    Case("simple_vit", "Images", "vit_pytorch", "param_groups=no_decay"),
    Case("unet", "Masks", "segmentation_models_pytorch"),
    Case("gpt2", "Tokens", "transformers", "param_groups=no_decay"),
    Case("bert", "Sentences", "transformers", "param_groups=layerwise"),
    Case("hf_vit", "Images", "transformers"),
]
COMMON = "optimizer=adamw optimizer.lr=0.01 warmup=linear warmup.length=3 trainer.max_epochs=3 trainer.accelerator=cpu"
STOP = 7  # optimizer steps: in the middle of the second epoch


@pytest.mark.slow
@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.model)
def test_a_third_party_module_runs_unchanged(case: Case, package: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(case.needs) is None:
        pytest.skip(f"needs {case.needs}: make third-party")
    model = case.model if "." in case.model else f"third_party_modules.{case.model}"
    run = f"train model=custom model._target_={model} data=custom data._target_=third_party_modules.{case.data}"
    record = "+callbacks.record._target_=third_party_modules.Record +callbacks.record.out"
    whole, half, rest = commands(
        tmp_path,
        f"{run} {COMMON} {case.own} {record}=whole.json hydra.run.dir=whole",
        f"{run} {COMMON} {case.own} {record}=half.json +callbacks.record.stop={STOP} hydra.run.dir=half",
        f"{run} {COMMON} {case.own} {record}=rest.json +callbacks.record.stop=null resume.path=half",
        LIGHTNING_HERE=package,
    )  # fmt: skip
    assert whole[0] == 0, whole[1]
    plan = Plan.from_json(read(tmp_path / "whole" / "plan.json"))
    tracks = plan.tracks or {"": plan}  # of several optimizers the modules here make theirs in this order
    planned = [rates(own) for own in tracks.values()]
    assert read(tmp_path / "whole.json") == planned
    assert read(tmp_path / "whole" / "metrics.json")["status"] == "done"

    events = EventAccumulator(str(next((tmp_path / "whole").rglob("events.out.tfevents*")).parent)).Reload()
    tags = events.Tags()["scalars"]
    for track, own in tracks.items():
        for group in own.groups:
            first = events.Scalars("/".join(filter(None, ("lr", track, group.name))))[0]
            assert (first.step, first.value) == (0, pytest.approx(own.lr(group, 0)))
    assert any("loss" in tag.lower() for tag in tags), tags

    assert (half[0], rest[0]) == (143, 0), half[1] + rest[1]
    parts = zip(read(tmp_path / "half.json"), read(tmp_path / "rest.json"), strict=True)
    assert [before + after for before, after in parts] == planned
    ended, stopped = (weights(tmp_path / name) for name in ("whole", "half"))
    assert ended.keys() == stopped.keys()
    assert [name for name in ended if not torch.equal(ended[name], stopped[name])] == []


def rates(plan: Plan) -> list[dict[str, float]]:
    """Of each group in each step."""
    steps = plan.horizon.require("steps", "test")
    return [{group.name: plan.lr(group, t) for group in plan.groups} for t in range(steps)]


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def weights(run: Path) -> dict[str, Any]:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return {name: value for name, value in content["state_dict"].items() if isinstance(value, torch.Tensor)}

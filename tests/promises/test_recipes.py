"""The recipes in ``conf/experiment/`` plan what their papers say, and train on small or generated data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lrkit.config.compose import compose, plan
from lrkit.planning.plan import Plan
from lrkit.training.run import run_training

TOKENS = [
    "model=custom",
    "model._target_=recipe_parts.Bert",
    "data=datasets",
    "data.train._target_=recipe_parts.Tokens",
]
IMAGES = ["model=custom", "model._target_=recipe_parts.Vit", "data=datasets", "data.train._target_=recipe_parts.Images"]


END = ["trainer.max_epochs=-1", "data.train_samples=45000"]


def planned(name: str, *words: str) -> Plan:
    return plan(compose([f"+experiment={name}", *words]))


def rates(of: Plan, steps: list[int]) -> list[float]:
    return [of.lr(of.groups[0], step) for step in steps]


def test_cifar_resnet() -> None:
    """He et al. 2016: 0.1 for a batch of 128, divided by 10 at 32,000 and 48,000 of 64,000 steps."""
    one = planned("cifar_resnet", *END, "trainer.max_steps=64000")
    assert rates(one, [1760, 31999, 32000, 47999, 48000, 63999]) == pytest.approx([0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3])
    four = planned("cifar_resnet", *END, "trainer.max_steps=16000", "data.batch_size=512")
    assert rates(four, [440, 7999, 8000]) == pytest.approx([0.4, 0.4, 0.04])


def test_bert_finetuning() -> None:
    """Devlin et al. 2019 and their code: up during a tenth of the steps, then down to zero in a straight line."""
    one = planned("bert_finetuning", *END, "trainer.max_steps=1000")
    assert rates(one, [0, 50, 100, 550, 1000]) == pytest.approx([0.0, 1e-5, 2e-5, 1e-5, 0.0])
    assert {group.name: group.weight_decay for group in one.groups} == {"default": None, "no_decay": 0.0}


def test_vit_finetuning() -> None:
    """He et al. 2022, table 9: 2e-3 for a batch of 1024, which is 5e-4 for 256; five epochs of warmup."""
    one = planned("vit_finetuning", "data.train_samples=10240", "data.batch_size=1024")
    assert rates(one, [25, 50]) == pytest.approx([1e-3, 2e-3])
    assert one.horizon.steps == 1000 and one.curve(1000) == pytest.approx(1e-3)


def test_gpt_pretraining() -> None:
    one = planned("gpt_pretraining")
    steps = one.horizon.steps
    assert steps == 2000
    assert rates(one, [100, 1599, 1600]) == pytest.approx([3e-3] * 3) and one.curve(steps) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "words", "groups"),
    [
        ("cifar_resnet", ["data=digits", "~data.name", "model=mlp", "warmup.length=10%", "trainer.max_epochs=4"], 1),
        ("bert_finetuning", [*TOKENS, "optimizer.lr=1e-3", "data.batch_size=8"], 2),
        ("vit_finetuning", [*IMAGES, "warmup.length=10%", "trainer.max_epochs=4", "data.batch_size=8"], 6),
        ("gpt_pretraining", ["trainer.max_epochs=1", "data.train_samples=320", "model.width=16", "model.layers=2"], 1),
    ],
)
def test_it_trains(recipe: str, words: list[str], groups: int, tmp_path: Path) -> None:
    run = run_training(compose([f"+experiment={recipe}", "logger=none", *words]), tmp_path, quiet=True)
    assert run.status == "done" and len(run.plan.groups) >= groups
    final = json.loads((tmp_path / "metrics.json").read_text())["final"]
    assert final["val/loss"] < 5.0

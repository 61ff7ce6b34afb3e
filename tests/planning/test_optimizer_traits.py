"""lrkit's knowledge of each optimizer. A row has its option, its class, its kind and its usual learning rate."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from lrkit.optim.factory import resolve_optimizer
from lrkit.planning.optimizer_traits import FAMILIES, lr_warnings, option_name, traits_of

CONF = Path(__file__).parents[2] / "conf" / "optimizer"

OPTIMIZERS = {
    # option                class                            kind        momentum    lr
    "sgd":                 ("torch.optim.SGD",               "sgd",      "momentum", 0.1),
    "momentum":            ("torch.optim.SGD",               "sgd",      "momentum", 0.1),
    "lars":                ("pytorch_optimizer.LARS",        "sgd",      "momentum", 0.5),
    "schedule_free_sgd":   ("schedulefree.SGDScheduleFree",  "sgd",      None,       1.0),
    "adagrad":             ("torch.optim.Adagrad",           "adaptive", None,       1e-2),
    "rmsprop":             ("torch.optim.RMSprop",           "adaptive", "momentum", 1e-3),
    "adam":                ("torch.optim.Adam",              "adaptive", "betas",    1e-3),
    "adamw":               ("torch.optim.AdamW",             "adaptive", "betas",    1e-3),
    "nadam":               ("torch.optim.NAdam",             "adaptive", "betas",    2e-3),
    "radam":               ("torch.optim.RAdam",             "adaptive", "betas",    1e-3),
    "adafactor":           ("torch.optim.Adafactor",         "adaptive", None,       1e-2),
    "adabound":            ("lrkit.optim.adabound.AdaBound",       "adaptive", "betas",    1e-3),
    "ranger":              ("pytorch_optimizer.Ranger",      "adaptive", "betas",    4e-3),
    "lion":                ("pytorch_optimizer.Lion",        "adaptive", "betas",    3e-4),
    "lamb":                ("lrkit.optim.lamb.Lamb",               "adaptive", "betas",    2e-3),
    "muon":                ("lrkit.optim.muon.Muon",               "adaptive", "momentum", 3e-3),
    "schedule_free_adamw": ("schedulefree.AdamWScheduleFree", "adaptive", None,      2.5e-3),
    "prodigy":             ("pytorch_optimizer.Prodigy",     "lr_free",  "betas",    1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_row_is_what_the_option_says(name: str) -> None:
    target, kind, momentum, lr = OPTIMIZERS[name]
    node = OmegaConf.load(CONF / f"{name}.yaml")
    known = traits_of(target)
    assert known is not None
    assert (node._target_, known.kind, known.momentum, node.lr) == (target, kind, momentum, lr)
    assert option_name(target) == (name if name != "momentum" else "sgd")
    assert (CONF / f"{name}.yaml").read_text().startswith("# ")


def test_every_option_has_a_row() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} - {"custom"} == set(OPTIMIZERS)  # whose class is the user's


@pytest.mark.parametrize("target", FAMILIES)
def test_every_family_is_a_class_with_that_momentum(target: str) -> None:
    if target == "torch.optim.Muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("new in torch 2.9")
    arguments = inspect.signature(resolve_optimizer(target)).parameters
    known = FAMILIES[target]
    assert known.momentum is None or known.momentum in arguments
    assert known.schedule_free == ("ScheduleFree" in target)


def test_the_optimizers_of_torch_are_covered() -> None:
    own = {
        f"torch.optim.{name}"
        for name, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)
    }
    assert own - set(FAMILIES) == {"torch.optim.Optimizer", "torch.optim.LBFGS"}


@pytest.mark.parametrize("name", ["adamw", "AdamW", "torch.optim.adamw", "my.AdamW", "pytorch_optimizer.AdamG"])
def test_a_name_that_only_looks_like_one_is_unknown(name: str) -> None:
    assert traits_of(name) is None


@pytest.mark.parametrize(
    ("target", "lr", "decays", "expected"),
    [
        ("torch.optim.AdamW", 0.1, True, []),
        ("schedulefree.AdamWScheduleFree", 1e-3, False, []),
        ("schedulefree.AdamWScheduleFree", 1e-3, True, ["AdamWScheduleFree", "schedule=constant"]),
        ("pytorch_optimizer.Prodigy", 1.0, True, []),
        ("pytorch_optimizer.Prodigy", 0.01, True, ["Prodigy", "Received: 0.01"]),
        ("unknown.Optimizer", 0.01, True, []),
    ],
)
def test_pairs_that_make_no_sense_are_remarked_on(target: str, lr: float, decays: bool, expected: list[str]) -> None:
    found = lr_warnings(target, lr, decays)
    assert len(found) == bool(expected)
    assert all(part in found[0] for part in expected)


def test_families_and_rules_need_no_torch() -> None:
    code = "import sys, lrkit.planning.optimizer_traits, lrkit.planning.group_rules; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CONF.parents[1])

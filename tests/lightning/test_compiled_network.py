"""``compile``: the network is compiled once whatever the learning rate does, and nothing else of a run changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_rates import Recorded
from torch import nn

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose
from lrkit.config.plan_of_config import plan
from lrkit.lightning.compiled_network import find_networks
from lrkit.lightning.imports import LightningModule
from lrkit.training.run import run_training

#: Twelve steps, each at another rate; every batch has the same shape.
SHORT = ("logger=none", "model.hidden=[8]", "trainer.max_epochs=2", "trainer.limit_train_batches=6",
         "trainer.limit_val_batches=1", "schedule=cosine", "warmup=linear", "warmup.length=4")  # fmt: skip
EAGER = "compile={backend: eager}"


class Parts(LightningModule):
    """A user's module: a network, a list of heads, a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(8, 10)])
        self.loss = nn.CrossEntropyLoss()

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        value: torch.Tensor = self.loss(self.heads[0](self.body(batch[0])), batch[1])
        return value


class NoParts(Parts):
    def __init__(self) -> None:
        LightningModule.__init__(self)
        self.weight = nn.Parameter(torch.zeros(64, 10))
        self.loss = nn.CrossEntropyLoss()


def train(folder: Path, *words: str) -> Any:
    folder.mkdir()
    return run_training(compose([*words]), folder, quiet=True)


def count_graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.parametrize("more", [(), ("guard=reduce", "callbacks=ema", "trainer.accumulate_grad_batches=2")])
def test_rates_are_those_of_the_plan_and_compile_nothing_again(
    tmp_path: Path, recorded: Recorded, more: tuple[str, ...]
) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    whole = train(tmp_path / "whole", *SHORT, *more)
    rates = [*recorded]
    recorded.clear()
    assert count_graphs() == 0
    compiled = train(tmp_path / "compiled", *SHORT, *more, EAGER)
    assert recorded == rates and len(set(map(str, rates))) == len(rates)
    assert compiled.final == whole.final  # the backend `eager` runs the same kernels
    assert 1 <= count_graphs() <= 2  # one for training, one for validation


def test_names_in_a_checkpoint_are_those_of_the_network(tmp_path: Path) -> None:
    train(tmp_path / "first", *SHORT, EAGER)
    state = torch.load(tmp_path / "first" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(name.startswith("model.") and "_orig_mod" not in name for name in state)
    resumed = f"resume.path='{tmp_path / 'first'}'"
    train(tmp_path / "resumed", resumed, "resume.policy=extend", "trainer.max_epochs=3")


def test_parts_of_the_users_module_are_compiled() -> None:
    assert [type(part).__name__ for part in find_networks(Parts())] == ["Sequential", "Linear"]


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`")
def test_a_module_without_networks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="compile must be false: NoParts has no network"):
        train(
            tmp_path / "run",
            "logger=none",
            "trainer.limit_val_batches=0",
            EAGER,
            "model=custom",
            "model._target_=test_compiled_network.NoParts",
        )


@pytest.mark.parametrize(
    ("value", "must"),
    [
        ("yes please", "compile must be true, false"),
        ("{mode: fast}", r"compile\.mode must be one of default, reduce-overhead"),
        ("{speed: 1}", "speed"),
        ("{mode: default, options: {a: 1}}", "not both"),
    ],
)
def test_other_values_are_refused(value: str, must: str) -> None:
    with pytest.raises(ConfigError, match=must):
        plan(compose([f"compile={value}"]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit")  # of the compiler's own code
def test_compiled_kernels_learn_the_same(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", *SHORT)
    compiled = train(tmp_path / "compiled", *SHORT, "compile=true")
    assert compiled.final["train/loss"] == pytest.approx(whole.final["train/loss"], rel=1e-4)

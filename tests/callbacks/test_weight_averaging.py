"""Averaged weights: right by hand, validated beside the weights, no effect on the training, resumed to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from interrupted_runs import BASE, full_and_resumed, ignored
from recorded_rates import Recorded
from torch import Tensor

from lrkit.base.errors import ConfigError
from lrkit.callbacks.weight_averaging import AVERAGED_WEIGHTS, AveragedWeights
from lrkit.config.compose import compose
from lrkit.lightning.imports import Callback
from lrkit.optim.weight_average import WeightAverage, average_factor
from lrkit.training.run import run_training
from lrkit.training_objects.data import data_of
from lrkit.training_objects.module import module_of

EMA = (*BASE, "callbacks=ema", "callbacks.ema.decay=0.9")


class Trace(Callback):
    """Keeps the weights after each optimizer step."""

    steps: ClassVar[list[dict[str, Tensor]]] = []
    validations = 0

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        Trace.steps.append({name: p.detach().clone() for name, p in module.named_parameters()})

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        Trace.validations += not trainer.sanity_checking


TRACE = "+callbacks.trace={_target_: test_weight_averaging.Trace}"


@pytest.fixture(autouse=True)
def traced() -> None:
    Trace.steps, Trace.validations = [], 0


def trained(tmp_path: Path, *overrides: str, base: tuple[str, ...] = EMA) -> Path:
    folder = tmp_path / f"run{len([*tmp_path.iterdir()])}"
    folder.mkdir()
    run_training(compose([*base, *overrides]), folder, quiet=True)
    return folder


def checkpoint(folder: Path, name: str = "last") -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return content


def averages_by_hand(first: dict[str, Tensor], decay: float) -> dict[str, Tensor]:
    """The EMA of the traced weights, in float64."""
    average = {name: value.double() for name, value in first.items()}
    for k, weights in enumerate(Trace.steps):
        d = min(decay, (1 + k) / (10 + k))
        average = {name: d * average[name] + (1 - d) * weights[name].double() for name in average}
    return average


def initial_weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    config = compose([*BASE])
    data = data_of(config)
    return {name: p.detach().clone() for name, p in module_of(config, data).named_parameters()}


def test_it_is_the_average_and_changes_nothing(tmp_path: Path) -> None:
    plain = trained(tmp_path, TRACE, base=BASE)
    before = Trace.steps
    Trace.steps = []
    run = trained(tmp_path, TRACE, "monitor=val/loss")
    assert len(Trace.steps) == len(before) == 24
    assert all(torch.equal(a[name], b[name]) for a, b in zip(before, Trace.steps, strict=True) for name in a)
    assert Trace.validations == 2 * 4  # of both runs: callbacks see one at a time
    weights, other = checkpoint(run)["state_dict"], checkpoint(plain)["state_dict"]
    assert all(torch.equal(weights[name], other[name]) for name in other)
    metrics, without = (json.loads((f / "metrics.json").read_text())["final"] for f in (run, plain))
    assert {name: metrics[name] for name in without} == without
    assert metrics["averaged/val/loss"] != metrics["val/loss"] and "averaged/val/accuracy" in metrics


def test_by_hand(tmp_path: Path) -> None:
    run = trained(tmp_path, TRACE, "callbacks.ema.start=1")
    found = checkpoint(run)["state_dict"]  # auto monitors the averages
    first, Trace.steps = Trace.steps[0], Trace.steps[1:]
    for name, value in averages_by_hand(first, 0.9).items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-6)


def test_either_set_is_saved_and_chosen(tmp_path: Path) -> None:
    by_average, by_weights = trained(tmp_path, TRACE), trained(tmp_path, "monitor=val/loss")
    assert json.loads((by_average / "metrics.json").read_text())["monitor"] == "averaged/val/loss"
    one, two = checkpoint(by_average), checkpoint(by_weights)
    raw = one[AVERAGED_WEIGHTS]["raw"]
    assert all(torch.equal(raw[name], two["state_dict"][name]) for name in two["state_dict"])
    averages = two[AVERAGED_WEIGHTS]["average"]
    assert all(torch.equal(averages[name], one["state_dict"][name]) for name in averages)
    assert all(torch.equal(raw[name], Trace.steps[-1][name]) for name in raw)


@pytest.mark.slow
def test_what_is_logged_is_the_loss_of_the_saved_averages(tmp_path: Path) -> None:
    run = trained(tmp_path)
    final = json.loads((run / "metrics.json").read_text())["final"]
    folder = tmp_path / "again"
    folder.mkdir()
    ones = [f"resume.path='{run / 'checkpoints' / 'last.ckpt'}'", "resume.policy=restart"]
    again = ["logger=none", "model.hidden=[8]", "trainer.max_epochs=1", "trainer.limit_train_batches=1",
             "trainer.limit_val_batches=1", "optimizer=sgd", "optimizer.lr=1e-8"]  # fmt: skip
    saved = run_training(compose([*again, *ones]), folder, quiet=True).final["val/loss"]
    assert saved == pytest.approx(final["averaged/val/loss"], rel=1e-5)


@ignored
@pytest.mark.parametrize(
    "more", [(), pytest.param(("monitor=val/loss", "callbacks.ema.every=3"), marks=pytest.mark.slow)]
)
def test_resumed(more: tuple[str, ...], recorded: Recorded, tmp_path: Path) -> None:
    full_and_resumed(tmp_path, recorded, 9, "callbacks=ema", *more)
    whole, rest = (checkpoint(tmp_path / name)[AVERAGED_WEIGHTS] for name in ("whole", "rest"))
    assert whole["updates"] == rest["updates"] > 0
    for part in ("raw", "average"):
        assert [*whole[part]] == [*rest[part]]
        assert all(torch.equal(value, rest[part][name]) for name, value in whole[part].items())


def test_swa_from_the_cooldown(tmp_path: Path) -> None:
    swa = ("callbacks=swa", "callbacks.swa.start=cooldown", "callbacks.swa.every=1", "cooldown=linear",
           "cooldown.length=6", "schedule=constant")  # fmt: skip
    run = trained(tmp_path, TRACE, *swa, base=BASE)
    content = checkpoint(run)
    assert content[AVERAGED_WEIGHTS]["updates"] == 6
    for name, value in content["state_dict"].items():
        mean = torch.stack([step[name].double() for step in Trace.steps[18:]]).mean(0)
        torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)


def test_patience_counts_one_validation(tmp_path: Path) -> None:
    stop = ("+callbacks.early={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: averaged/val/loss,"
            " patience: 2, min_delta: 100}")  # fmt: skip
    run = trained(tmp_path, stop, TRACE)
    assert json.loads((run / "metrics.json").read_text())["steps"] == 3 * 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["callbacks=ema", "optimizer=schedule_free_sgd", "schedule=constant"], r"callbacks\.ema cannot be used with"),
        (["callbacks=swa", "callbacks.swa.start=cooldown"], r"callbacks\.swa\.start is cooldown, and the plan has no"),
        (["callbacks=ema", "callbacks.ema.decay=1"], r"callbacks\.ema\.decay must be in \[0, 1\)"),
        (["callbacks=ema", "callbacks.ema.kind=sum"], r"callbacks\.ema\.kind must be ema or mean"),
        (["callbacks=ema", "+callbacks.more=${callbacks.ema}"], r"callbacks\.ema must be the only average"),
    ],
)  # fmt: skip
def test_refusals(words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        trained(tmp_path, *words, base=BASE)


def test_16_bit_weights_have_an_average_of_32() -> None:
    layer = torch.nn.Linear(3, 2).bfloat16()
    average = WeightAverage(layer, "ema", decay=0.999, warmup=False)
    start = layer.weight.detach().clone()
    layer.weight.data += 1.0
    average.update(layer)
    assert average.values["weight"].dtype == torch.float32
    assert torch.all(average.values["weight"] > start.float())  # bfloat16 would have lost a thousandth
    with average.in_place_of(layer):
        assert layer.weight.dtype == torch.bfloat16


def test_a_callback_of_its_own_default() -> None:
    assert AveragedWeights().key == "callbacks.ema" and average_factor("ema", 0.5, True, 100) == 0.5

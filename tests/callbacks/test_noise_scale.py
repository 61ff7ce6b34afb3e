"""The gradient noise scale: correct where it is known, and without an effect on the training that it measures."""

from __future__ import annotations

import json
import math
import random
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import plain_lightning
import pytest
import torch
from interrupted_runs import full_and_resumed, ignored
from recorded_rates import Recorded
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from two_processes import both_ranks

from lrkit.base.errors import ConfigError
from lrkit.callbacks.noise_scale import TAG, NoiseScale, estimate_noise_scale
from lrkit.comparison.ranking import compare
from lrkit.config.compose import compose
from lrkit.lightning.imports import PACKAGE, Callback, FSDPStrategy
from lrkit.lightning.supervised import Supervised
from lrkit.lr_finder import short_run
from lrkit.lr_finder.training_task import ConfigTask
from lrkit.runs.run_reader import load_run
from lrkit.training.run import run_training
from lrkit.training_objects.data import data_of

Precision: Any = import_module(f"{PACKAGE}.plugins.precision").Precision

OFTEN = ("callbacks=noise_scale", "callbacks.noise_scale.every=1")


# --- the figure -----------------------------------------------------------------------------------


def gradients(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Of each sample's ``(w x + c - y)^2``, by hand: ``(samples, parameters)``, in float64."""
    x, y = x.double(), y.double()
    error = x @ weight.double().flatten() + bias.double() - y.flatten()
    return 2.0 * error[:, None] * torch.cat([x, torch.ones(len(x), 1)], 1)


def look(callback: NoiseScale, network: nn.Module, x: Tensor, y: Tensor) -> Any:
    """Return the measurement of one batch."""
    module = Supervised(network, "mse")
    callback.check(module, None)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    trainer: Any = SimpleNamespace(optimizers=[optimizer], precision_plugin=Precision())
    found = callback._estimate_from_batch(trainer, module, (x, y))
    assert all(parameter.grad is None for parameter in module.parameters())
    return found


@pytest.mark.parametrize(("samples", "parts", "used", "groups"), [(8, 8, 8, 8), (5, 8, 5, 5), (35, 8, 32, 8)])
def test_a_look_is_the_variance_between_parts(samples: int, parts: int, used: int, groups: int) -> None:
    torch.manual_seed(0)
    x, y, network = torch.randn(samples, 3), torch.randn(samples, 1), nn.Linear(3, 1)
    square, noise = look(NoiseScale(parts=parts), network, x, y)
    each = gradients(x[:used], y[:used], network.weight.detach(), network.bias.detach())
    means = each.reshape(groups, used // groups, -1).mean(1)
    trace = used // groups * float(means.var(0).sum())  # a part's mean varies by tr(Sigma) / its samples
    assert noise == pytest.approx(trace, rel=1e-5)
    assert square == pytest.approx(float(means.mean(0).square().sum()) - trace / used, rel=1e-4)


class Twins(nn.Module):
    """Two parameters whose gradients torch keeps as one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(1, 1)), nn.Parameter(torch.zeros(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.a + self.b)


def test_gradients_that_share_their_memory_are_added_once() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(8, 1), torch.randn(8, 1)
    square, noise = look(NoiseScale(), Twins(), x, y)
    each = (2.0 * (x - y)).double()
    assert noise == pytest.approx(2.0 * float(each.var()), rel=1e-5)
    assert square == pytest.approx(2.0 * (float(each.mean()) ** 2 - float(each.var()) / 8), rel=1e-4)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_gradients_whose_squares_are_no_float32(scale: float) -> None:
    torch.manual_seed(0)
    x, y, network = torch.randn(16, 3), torch.randn(16, 1), nn.Linear(3, 1)
    square, noise = look(NoiseScale(), network, x, y)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale)
    small, large = look(NoiseScale(), network, x, scale * y)
    assert (small / scale**2, large / scale**2) == pytest.approx((square, noise), rel=1e-4)


def test_it_is_what_the_gradients_of_all_samples_say(train: Any, tmp_path: Path) -> None:
    """At fixed weights, 185 looks at batches of 64: the ratio of the averages against all 2000 gradients.

    Within a twentieth: forgetting that the big batch is noisy too, or has parts in common, is an eighth and more.
    """
    torch.manual_seed(0)
    x = torch.randn(2000, 5)
    y = x @ torch.tensor([0.6, -0.4, 0.2, 0.1, 0.0]) + 0.5 * torch.randn(2000)
    np.savez(tmp_path / "line.npz", x_train=x, y_train=y, x_val=x, y_val=y, x_test=x, y_test=y)
    done = train(
        "data=arrays", f"data.path={tmp_path / 'line.npz'}", "data.batch_size=64", "model=linear", "optimizer=sgd",
        "optimizer.lr=1e-8", *OFTEN, "callbacks.noise_scale.decay=0.998", "trainer.max_epochs=6",
        "trainer.limit_train_batches=null",
    )  # fmt: skip
    kept = torch.load(done.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    each = gradients(x, y, *kept.values())
    noise = float(each.var(0).sum())
    square = float(each.mean(0).square().sum()) - noise / len(x)  # an epoch draws without putting back
    assert 1.0 < noise / square < 100.0
    assert done.final[TAG] == pytest.approx(noise / square, rel=0.05)


def test_both_estimates_have_the_right_mean() -> None:
    """Gradients of known mean and covariance: no factor is missing, for any sizes."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64)
    mean = torch.tensor([1.0, -0.5, 0.25], dtype=torch.float64)
    drawn = mean + spread * torch.randn(20_000, 48, 3, generator=generator, dtype=torch.float64)
    big = drawn.mean(1).square().sum(1).mean()
    for b in (1, 6, 24):
        small = drawn.reshape(-1, b, 3).mean(1).square().sum(1).mean()
        square, noise = estimate_noise_scale(float(small), float(big), b, 48)
        assert noise == pytest.approx(float(spread.square().sum()), rel=0.03)
        assert square == pytest.approx(float(mean.square().sum()), rel=0.03)


# --- the training does not know -------------------------------------------------------------------


class Awkward(nn.Module):
    """A model with everything that a measurement could disturb: buffers, all random states, inputs changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(64, 16), nn.BatchNorm1d(16)
        self.dropout, self.last = nn.Dropout(0.3), nn.Linear(16, 10)
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(1.0 + 0.1 * random.random() + 0.1 * float(np.random.rand()))
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()  # another tensor, where batch norm changes its own
        out: Tensor = self.last(self.dropout(self.norm(self.first(x)).relu_()))
        return out + torch.randn(()).detach() * 0.01


class Looks(Callback):
    """Records what other callbacks see, together with it on the command line."""

    backwards = 0

    def on_before_backward(self, *_: Any) -> None:
        Looks.backwards += 1

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        assert pl_module.training


def looks_of(checkpoint: dict[str, Any]) -> list[int]:
    """How many looks the callbacks of a run have taken, as its checkpoint says."""
    return [state["looks"] for name, state in checkpoint["callbacks"].items() if name.startswith("NoiseScale")]


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.accumulate_grad_batches=2", "optimizer=schedule_free_adamw", "schedule=constant"],
        ["trainer.precision=bf16-mixed", "guard=skip", "plateau=reduce"],
    ],
    ids=["accumulation", "bf16"],
)
def test_training_is_the_same_to_the_bit(overrides: list[str], train: Any) -> None:
    ended = []
    for with_it in (False, True):
        Looks.backwards = 0
        done = train(
            "model=custom", "model._target_=test_noise_scale.Awkward", "trainer.limit_train_batches=11",
            "trainer.max_epochs=2", *(OFTEN if with_it else ()), "+callbacks.looks._target_=test_noise_scale.Looks",
            "optimizer.weight_decay=0.01", *overrides,
        )  # fmt: skip
        kept = torch.load(done.folder / "checkpoints" / "last.ckpt", weights_only=True)
        metrics = {name: value for name, value in done.final.items() if name != TAG}
        assert looks_of(kept) == ([(done.plan.horizon.steps or 0) - 1] if with_it else [])
        ended.append((kept, metrics, Looks.backwards))
    (before, *same), (after, *also) = ended
    assert same == also
    assert all(torch.equal(before["state_dict"][name], after["state_dict"][name]) for name in before["state_dict"])
    states = [str(kept["optimizer_states"]) + str(kept["lr_schedulers"]) for kept in (before, after)]
    assert states[0] == states[1]


@ignored
def test_a_resumed_run_goes_on_with_the_averages(tmp_path: Path, recorded: Recorded) -> None:
    full_and_resumed(tmp_path, recorded, 9, "callbacks=noise_scale", "callbacks.noise_scale.every=2")


def test_a_look_that_is_not_finite_is_left_out() -> None:
    torch.manual_seed(0)
    x, y, network = torch.randn(16, 3), torch.randn(16, 1), nn.Linear(3, 1)
    assert not all(map(math.isfinite, look(NoiseScale(), network, x, y / 0.0)))
    spoilt = look(NoiseScale(), network, x * math.inf, y)
    assert not any(map(math.isfinite, spoilt))


# --- in a run -------------------------------------------------------------------------------------


def test_tensorboard_and_the_end_of_a_run_have_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [tmp_path / name for name in ("with", "without")]
    short = ["trainer.max_epochs=2", "trainer.limit_val_batches=1"]
    for folder, more in zip(folders, (["callbacks=noise_scale", "callbacks.noise_scale.every=50%"], []), strict=True):
        folder.mkdir()
        run_training(compose([*short, *more]), folder)
    read = EventAccumulator(str(folders[0])).Reload()
    assert [event.step for event in read.Scalars(TAG)] == [38]
    written = json.loads((folders[0] / "metrics.json").read_text())["final"][TAG]
    assert written == pytest.approx(read.Scalars(TAG)[0].value)
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("noise scale")]
    size = f"{float(f'{written:.2g}'):.0f}"  # of one look it is both
    assert said.startswith(f"noise scale {size} over the run, {size} at its end (batch 32): batches well below it may")
    assert load_run(folders[0], "with").final[TAG] == written
    assert compare(folders).metric == "val/loss"
    assert compare(folders, TAG).metric == TAG


@pytest.mark.parametrize(
    ("square", "noise", "values", "looks", "said"),
    [
        (0.5, 105.9, [10, 1000], 9, "noise scale 100 over the run, 210 at its end (batch 32): batches well below it"),
        (0.01, 23.71, [1234], 9, "noise scale 1,200 over the run, 2,400 at its end (batch 32): batches well below it"),
        (100.0, 23.71, [1], 9, "noise scale 1 over the run, 0.24 at its end (batch 32): batches well below it"),
        (-0.1, 5.0, [9], 9, "noise scale 9 over the run, not known at its end (batch 32): batches well below it"),
        (-0.1, 5.0, [], 9, "noise scale (batch 32): not known; it is so far above the batch"),
        (0.0, 0.0, [], 0, "noise scale (batch 32): not measured; the run was too short for callbacks.noise_scale.e"),
    ],
)
def test_what_is_said(square: float, noise: float, values: list[int], looks: int, said: str) -> None:
    callback = NoiseScale()
    callback.square, callback.noise, callback.looks = square, noise, looks
    callback.logs = sum(map(math.log, values)), len(values)
    assert callback.line(32).startswith(said)
    assert callback.metrics() == ({} if square <= 0 else {TAG: noise / square})


def test_a_last_batch_of_one_sample_is_passed_over(train: Any, tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).random((65, 4), np.float32), np.arange(65) % 3
    np.savez(tmp_path / "few.npz", x_train=x, y_train=y, x_val=x, y_val=y, x_test=x, y_test=y)
    done = train(
        "data=arrays", f"data.path={tmp_path / 'few.npz'}", *OFTEN, "trainer.limit_train_batches=null",
        "trainer.max_epochs=2",
    )  # fmt: skip
    kept = torch.load(done.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 6 and looks_of(kept) == [3]  # not the first step's, and none at one sample


def test_the_trials_of_a_search_do_without() -> None:
    config = compose(list(OFTEN))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NoiseScale, "on_train_start", None)
        short_run.run_short(ConfigTask(config, data_of(config)), lambda plan: (plan, 2))


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["callbacks.noise_scale.every=0"], "callbacks.noise_scale.every must be at least one optimizer step"),
        (["callbacks.noise_scale.every=soon"], "callbacks.noise_scale.every must be a length"),
        (["callbacks.noise_scale.parts=1"], "callbacks.noise_scale.parts must be a whole number >= 2"),
        (["callbacks.noise_scale.decay=1.0"], "callbacks.noise_scale.decay must be in [0, 1)"),
        (["callbacks.noise_scale.part=4"], "callbacks.noise_scale.part is not a key. Did you mean 'parts'?"),
        (["data.batch_size=1"], "data.batch_size must be at least 2 for callbacks.noise_scale"),
        (["data.batch_size=3", "model=cnn2d"], "data.batch_size must be at least 4 for callbacks.noise_scale: "),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: list[str], said: str, train: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        train("callbacks=noise_scale", *overrides)
    assert str(caught.value).startswith(said)
    assert not list((tmp_path / "run0").iterdir())


def test_a_module_with_a_training_step_of_its_own_is_refused_before_its_data_is_loaded(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_lightning.Data, "setup", None)
    with pytest.raises(ConfigError, match=r"^callbacks.noise_scale needs a network .* Net.training_step, .*: 'Net'$"):
        train(
            "callbacks=noise_scale", "model=custom", "model._target_=plain_lightning.Net", "data=custom",
            "data._target_=plain_lightning.Data", "data.batch_size=10",
        )  # fmt: skip
    assert not list((tmp_path / "run0").iterdir())


def test_batches_that_cannot_be_cut_are_refused() -> None:
    module, trainer = Supervised(nn.Linear(4, 1), "mse"), SimpleNamespace()
    with pytest.raises(ConfigError, match=r"^callbacks.noise_scale needs batches of two tensors.*features: float32"):
        NoiseScale()._estimate_from_batch(trainer, module, {"features": torch.zeros(4, 4)})  # type: ignore[arg-type]


def test_gradients_that_no_process_has_as_a_whole_are_refused() -> None:
    trainer: Any = SimpleNamespace(strategy=object.__new__(FSDPStrategy))
    with pytest.raises(ConfigError, match=r"^callbacks.noise_scale needs whole gradients .* 'FSDPStrategy'$"):
        NoiseScale().on_train_start(trainer, Supervised(nn.Linear(4, 1)))
    trainer = SimpleNamespace(strategy=None)
    with pytest.raises(ConfigError, match=r"^trainer.sync_batchnorm must be false for callbacks.noise_scale"):
        NoiseScale().on_train_start(trainer, Supervised(nn.SyncBatchNorm(4)))


@pytest.mark.slow
def test_two_processes_average_what_they_find(tmp_path: Path) -> None:
    def ends(place: Path, *more: str) -> tuple[Path, dict[str, Any]]:
        place.mkdir()
        folder = both_ranks(place, "trainer.limit_train_batches=8", "trainer.max_epochs=1", *more)[2]
        return folder, torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)

    (_, without), (folder, kept) = ends(tmp_path / "without"), ends(tmp_path / "with", *OFTEN)
    before, after = without["state_dict"], kept["state_dict"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert TAG in json.loads((folder / "metrics.json").read_text())["final"]
    assert looks_of(kept) == [7]

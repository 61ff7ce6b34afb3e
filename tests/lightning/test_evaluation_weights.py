"""Evaluating and saving leave the training weights unchanged, bit for bit, for any rounding of the processor."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluating import evaluating
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lrkit
from lrkit.checkpoint.durable_io import read_checkpoint
from lrkit.config.compose import compose
from lrkit.lightning.evaluation_weights import TRAINING_WEIGHTS
from lrkit.lightning.imports import Callback, LightningModule, ModelCheckpoint, Trainer
from lrkit.optim.factory import evaluation_copy, switch_mode
from lrkit.training.run import run_training

FREE = ("schedulefree.SGDScheduleFree", "schedulefree.AdamWScheduleFree", "schedulefree.RAdamScheduleFree",
        "pytorch_optimizer.ScheduleFreeSGD", "pytorch_optimizer.ScheduleFreeAdamW",
        "pytorch_optimizer.SPlus")  # fmt: skip


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trained(target: str, steps: int = 12) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network whose weights are far from those of evaluation: the way there and back rounds nearly all of them."""
    from lrkit.optim.factory import build_optimizer

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 13), nn.Linear(13, 3))
    optimizer = build_optimizer(target, {}, [{"params": list(model.parameters()), "name": "all", "lr": 0.05}])
    switch_mode(optimizer, training=True)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 7)).square().mean().backward()
        optimizer.step()
    for state in optimizer.state.values():
        if "z" in state:
            state["z"].add_(torch.randn(state["z"].shape), alpha=100.0)
    return model, optimizer


@pytest.mark.parametrize("target", FREE)
def test_evaluating_puts_the_very_weights_back(target: str) -> None:
    model, optimizer = trained(target)
    before, state = bits(model), copy.deepcopy(optimizer.state_dict())
    with evaluating(optimizer):
        average = bits(model)
    assert not equal(average, before) and equal(bits(model), before)
    assert str(optimizer.state_dict()) == str(state)
    if "SPlus" not in target:  # whose own way back is a copy
        switch_mode(optimizer, training=False)
        switch_mode(optimizer, training=True)
        assert not equal(bits(model), before), "these weights are meant to be rounded by the way there and back"


@pytest.mark.parametrize("target", FREE)
def test_a_twin_is_evaluated_and_nothing_is_touched(target: str) -> None:
    model, optimizer = trained(target)
    before, state, versions = (
        bits(model),
        copy.deepcopy(optimizer.state_dict()),
        [p._version for p in model.parameters()],
    )
    twin = evaluation_copy(optimizer)
    copies = [p for group in twin.param_groups for p in group["params"]]
    assert equal(bits(model), before) and versions == [p._version for p in model.parameters()]
    assert str(optimizer.state_dict()) == str(state) and not twin.param_groups[0]["train_mode"]
    switch_mode(optimizer, training=False)
    assert all(torch.equal(one, other) for one, other in zip(copies, model.parameters(), strict=True))


class Look(Callback):
    """The weights at each step as they train, and those that were evaluated last."""

    stop_at: int | None = None

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.evaluated: dict[str, Tensor] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.steps.append(bits(pl_module))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.evaluated = {name: value.clone() for name, value in pl_module.state_dict().items()}


class Net(LightningModule):
    """A third-party module, with numbers for which the conversion to evaluation weights and back rounds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Sequential(nn.Linear(7, 13), nn.BatchNorm1d(13), nn.Linear(13, 1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss: Tensor = (self.layer(batch[0]) - 3.0).square().mean()
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.training_step(batch, 0))


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.randn(32, 7, generator=torch.Generator().manual_seed(2))), batch_size=8)


def fit(
    folder: Path, *callbacks: Callback, epochs: int = 3, validate: int = 1, of: type[Net] = Net, **more: Any
) -> tuple[Trainer, Net]:
    module = lrkit.configure(of(), lr=0.3, optimizer="schedulefree.AdamWScheduleFree", schedule="constant")
    trainer = Trainer(
        max_epochs=epochs, callbacks=[*callbacks], logger=False, enable_progress_bar=False, default_root_dir=folder,
        enable_checkpointing=any(isinstance(each, ModelCheckpoint) for each in callbacks), accelerator="cpu",
        enable_model_summary=False, limit_val_batches=validate, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, loader(), loader(), **more)
    return trainer, module


ignored = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec",
    "ignore:.*logging interval",
    "ignore:The dirpath has changed",
)


@ignored
class TestOfPlainLightning:
    def every(self, folder: Path, **more: Any) -> ModelCheckpoint:
        return ModelCheckpoint(folder, filename="{step}", save_top_k=-1, every_n_train_steps=1, **more)

    def test_neither_validating_nor_saving_changes_the_training(self, tmp_path: Path) -> None:
        plain, watched = Look(), Look()
        fit(tmp_path, plain, validate=0)
        fit(tmp_path, watched, self.every(tmp_path / "kept"))
        assert len(plain.steps) == len(watched.steps) == 12
        assert all(equal(one, other) for one, other in zip(plain.steps, watched.steps, strict=True))

    @pytest.mark.parametrize("step", [4, 8])
    def test_it_goes_on_as_if_it_had_not_stopped(self, step: int, tmp_path: Path) -> None:
        whole, rest = Look(), Look()
        _, module = fit(tmp_path, whole, self.every(tmp_path / "kept"))
        _, again = fit(
            tmp_path, rest, self.every(tmp_path / "again"), ckpt_path=str(tmp_path / "kept" / f"step={step}.ckpt")
        )
        assert all(equal(one, other) for one, other in zip(whole.steps[step:], rest.steps, strict=True))
        assert equal(bits(module), bits(again))

    def test_the_file_holds_what_was_evaluated_and_what_trains(self, tmp_path: Path) -> None:
        look = Look()
        fit(tmp_path, look, self.every(tmp_path / "kept"), ModelCheckpoint(tmp_path / "use", save_weights_only=True))
        content, wrong = read_checkpoint(tmp_path / "kept" / "step=8.ckpt")
        assert not wrong
        assert equal(content[TRAINING_WEIGHTS], look.steps[8])
        assert content["state_dict"]._metadata["layer.1"] == {"version": 2}
        (alone,) = (tmp_path / "use").iterdir()
        last = read_checkpoint(tmp_path / "kept" / "step=12.ckpt")[0]
        for saved in (last, read_checkpoint(alone)[0]):
            assert equal(dict(saved["state_dict"]), look.evaluated)
        assert not equal({k: last["state_dict"][k] for k in last[TRAINING_WEIGHTS]}, last[TRAINING_WEIGHTS])

    def test_by_hand_after_the_end_too(self, tmp_path: Path) -> None:
        look, longer = Look(), Look()
        trainer, module = fit(tmp_path, look)
        file = tmp_path / "by_hand.ckpt"
        trainer.save_checkpoint(file)
        assert equal(dict(read_checkpoint(file)[0]["state_dict"]), look.evaluated)
        fit(tmp_path, longer, epochs=4, ckpt_path=str(file))
        whole = Look()
        fit(tmp_path, whole, epochs=4)
        assert all(equal(one, other) for one, other in zip(whole.steps[12:], longer.steps, strict=True))
        module.load_state_dict(Net().state_dict())  # other weights replace the training weights
        trainer.save_checkpoint(file)
        assert not read_checkpoint(file)[0][TRAINING_WEIGHTS]


class Renamed(Net):
    """Saves its weights under other names."""

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {name.removeprefix("layer."): value for name, value in super().state_dict(*args, **kwargs).items()}

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        return super().load_state_dict({f"layer.{name}": value for name, value in state_dict.items()}, *args, **kwargs)


@ignored
def test_weights_under_other_names_are_those_for_use_too(tmp_path: Path) -> None:
    look, again = Look(), Look()
    fit(tmp_path, look, kept := ModelCheckpoint(tmp_path, save_last=True), of=Renamed)
    content = read_checkpoint(Path(kept.last_model_path))[0]
    assert {*content["state_dict"]} == {name.removeprefix("layer.") for name in Net().state_dict()}
    assert equal(content["state_dict"], look.evaluated)
    fit(tmp_path, again, ModelCheckpoint(tmp_path / "again"), of=Renamed, epochs=4, ckpt_path=kept.last_model_path)
    fit(tmp_path, whole := Look(), of=Renamed, epochs=4)
    assert all(equal(one, other) for one, other in zip(whole.steps[12:], again.steps, strict=True))


WORDS = ("logger=none", "trainer.max_epochs=3", "trainer.limit_train_batches=6", "trainer.limit_val_batches=1",
         "model.hidden=[13]", "optimizer=schedule_free_adamw", "optimizer.lr=0.3", "schedule=constant")  # fmt: skip


def train(folder: Path, *more: str) -> None:
    folder.mkdir(exist_ok=True)
    given = {word.partition("=")[0] for word in more}
    run_training(compose([*(word for word in WORDS if word.partition("=")[0] not in given), *more]), folder, quiet=True)


def last(folder: Path) -> dict[str, Any]:
    content, wrong = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert not wrong
    return content


def test_the_command_restarts_from_what_was_evaluated(tmp_path: Path) -> None:
    train(tmp_path / "one")
    saved = last(tmp_path / "one")
    from_file = f"resume.path='{tmp_path / 'one'}'"
    train(tmp_path / "two", "resume.policy=restart", from_file, "optimizer.lr=1e-8", "trainer.max_steps=1")
    now = last(tmp_path / "two")["state_dict"]
    for name, value in saved[TRAINING_WEIGHTS].items():
        torch.testing.assert_close(now[name], saved["state_dict"][name], rtol=1e-6, atol=1e-7)
        assert not torch.equal(value, saved["state_dict"][name])


def test_the_guard_goes_back_to_weights_that_train_after_a_resume_too(tmp_path: Path) -> None:
    """It remembers the weights as a run begins: it did so in evaluation mode, where no step may be taken."""
    guard = ("guard=reduce", "guard.every=50%", "guard.patience=1", "guard.warmup=1")
    train(tmp_path / "one", *guard)
    more = ("trainer.max_epochs=6", "resume.policy=override", f"resume.path='{tmp_path / 'one'}'")
    bad = "+callbacks.ill={_target_: diverging_training.Ill, steps: [19]}"
    train(tmp_path / "one", *guard, *more, bad)
    assert last(tmp_path / "one")["lrkit"]["step"] > 19

"""A batch-size schedule in training: the windows of the plan, by accumulation and by the loader, whole and resumed."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupted_runs import BASE, full_and_resumed, ignored, same_weights, saves
from plain_lightning import UnitGradient, fit
from recorded_rates import Recorded
from two_processes import both_ranks

import lrkit
from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose
from lrkit.lightning.accumulation_windows import Window
from lrkit.lightning.imports import Callback
from lrkit.training.run import run_training

#: Epochs of 6 batches of 32: 6 steps, then 3 an epoch, then one.
BATCHES = "batch.schedule=[[0,32],[1ep,64],[9,192]]"
WINDOWS = [1] * 6 + [2] * 3 + [6] * 2


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda window: pickle.loads(pickle.dumps(window))])
def test_a_copy_of_a_window_counts_alike(make: Callable[[Window], Window]) -> None:
    window = make(Window(3, 4))
    assert [window == 3, 4 % window, 7 % window, 8 % window] == [True, 0, 0, 1]
    assert torch.equal(torch.tensor(1.0) / window, torch.tensor(1.0) / 3)


class Seen(Callback):
    """The rate, the batches and the samples of each step."""

    steps: list[tuple[float, int, int]]

    def __init__(self) -> None:
        Seen.steps = []
        self.batches = self.samples = 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batches += 1
        self.samples += len(next(iter(batch.values())) if isinstance(batch, dict) else batch[0])

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        Seen.steps.append((optimizer.param_groups[0]["lr"], self.batches, self.samples))
        self.batches = self.samples = 0


SEEN = "+callbacks.seen={_target_: test_accumulation_windows.Seen}"
COUPLED = ("batch_scaling=linear", "warmup=linear", "warmup.length=3")
SHORT = ("trainer.max_epochs=4", BATCHES, *COUPLED, SEEN)


def test_each_step_has_the_batches_and_the_rate_of_the_plan(train: Callable[..., Any]) -> None:
    plan = train(*SHORT).plan
    assert plan.horizon.steps == 11
    assert [batches for _, batches, _ in Seen.steps] == WINDOWS
    assert [rate for rate, _, _ in Seen.steps] == [plan.lr(plan.groups[0], step) for step in range(11)]
    by_accumulation = [*Seen.steps]
    run = train(*SHORT, "batch.by=loader")
    assert run.plan.horizon.steps == 11
    assert Seen.steps == [(rate, 1, samples) for rate, _, samples in by_accumulation]


OWN = ("model=custom", "data=custom", "data.batch_size=8", "optimizer.lr=0.01",
       "trainer.limit_train_batches=null")  # fmt: skip


def test_a_window_is_the_mean_of_its_batches_in_modules_of_the_user(train: Callable[..., Any]) -> None:
    """8 batches an epoch, the last of 4 samples; the window that ends an epoch is not complete."""
    UnitGradient.seen.clear()
    own = (*OWN, "model._target_=plain_lightning.UnitGradient", SEEN, "trainer.max_epochs=2")
    train(*own, "batch.schedule=[[0,8],[3,24]]", "data._target_=plain_lightning.OnlyTraining")
    assert UnitGradient.seen == pytest.approx([1.0] * 8)
    assert [batches for _, batches, _ in Seen.steps] == [1, 1, 1, 3, 2, 3, 3, 2]


def test_a_step_that_is_skipped_is_taken_by_the_same_batch_size(train: Callable[..., Any]) -> None:
    run = train(*SHORT[:-1], "guard=skip", "model=custom", "model._target_=test_accumulation_windows.Burst", SEEN)
    # The third window is left out, so the plan's step 2 is taken by the fourth, and the size changes one later.
    assert run.status == "done"
    assert [batches for _, batches, _ in Seen.steps] == [1] * 6 + [1, 2, 2, 1] + [6, 6]
    assert json.loads((run.folder / "metrics.json").read_text())["steps"] == 11


@pytest.mark.slow
def test_a_large_batch_that_is_skipped_is_no_missing_step(train: Callable[..., Any]) -> None:
    words = ("guard=skip", "model=custom", "model._target_=test_accumulation_windows.Burst", "trainer.max_epochs=2")
    run = train(*words, "batch.schedule=[[0,192],[1,32]]", SEEN)
    # 7 steps are planned; the first takes all batches of its epoch, is skipped, and so does the second.
    assert run.status == "done" and run.plan.horizon.steps == 7
    assert [batches for _, batches, _ in Seen.steps] == [6, 6]


class Burst(torch.nn.Module):
    """The loss of its third batch is infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = torch.nn.Linear(64, 10), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        out: torch.Tensor = self.layer(x.flatten(1))
        return out * (float("inf") if self.training and self.calls == 3 else 1.0)


@ignored
@pytest.mark.parametrize(
    ("at", "words"),
    [
        (7, []),
        (9, ["batch.by=loader", "trainer.val_check_interval=0.5"]),
        pytest.param(7, ["plateau=reduce", "plateau.patience=0", "plateau.threshold=0.9"], marks=pytest.mark.slow),
        pytest.param(7, ["batch.by=loader"], marks=pytest.mark.slow),
        pytest.param(6, ["batch.by=loader", "data.drop_last=true"], marks=pytest.mark.slow),
        pytest.param(8, ["guard=reduce", "param_groups=no_decay"], marks=pytest.mark.slow),
        pytest.param(7, ["callbacks=ema", "optimizer=adamw"], marks=pytest.mark.slow),
        pytest.param(9, ["trainer.val_check_interval=3", "trainer.max_steps=10"], marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_is_the_same_run(at: int, words: list[str], tmp_path: Path, recorded: Recorded) -> None:
    """Within an epoch, at a change of the batch size, and at the end of an epoch."""
    full_and_resumed(tmp_path, recorded, at, BATCHES, *COUPLED, *words)
    assert len(recorded) == (10 if "trainer.max_steps=10" in words else 11)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["accumulation", "loader"])
def test_a_run_that_stops_goes_on(by: str, tmp_path: Path, recorded: Recorded) -> None:
    words = [*BASE, BATCHES, f"batch.by={by}"]
    for name in ("whole", "part"):
        (tmp_path / name).mkdir()
    run_training(compose(words), tmp_path / "whole", quiet=True)
    whole = [*recorded]
    recorded.clear()
    run_training(compose([*words, "horizon.stop_after=7"]), tmp_path / "part", quiet=True)
    onward = ["horizon.stop_after=null", f"resume.path={tmp_path / 'part'}"]
    run_training(compose([*words, *onward]), tmp_path / "part", quiet=True)
    assert recorded == whole
    assert same_weights(tmp_path / "whole", tmp_path / "part")


@pytest.mark.slow
class TestPolicies:
    """A checkpoint at step 7, within the second epoch: one window of two batches is done, and two are left."""

    @pytest.fixture
    def resume(self, train: Callable[..., Any], recorded: Recorded) -> Callable[..., Any]:
        folder = train(*SHORT[:-1], saves(7), "horizon.stop_after=8").folder
        recorded.clear()
        base = ["horizon.stop_after=null", "~callbacks.save"]
        last = folder / "checkpoints" / "last.ckpt"

        def run(*words: str) -> Any:
            said = {word.partition("=")[0] for word in words}
            kept = [word for word in base if word.partition("=")[0] not in said]
            return train(*kept, *words, f"resume.path='{last}'", short=False)

        return run

    def test_another_schedule_needs_a_policy(self, resume: Callable[..., Any]) -> None:
        with pytest.raises(ConfigError, match=r"^resume\.policy must be set.* batch sizes") as caught:
            resume("batch.schedule=[[0,32],[1ep,96],[9,192]]")
        assert "64 from step 6" in caught.value.details and "96 from step 6" in caught.value.details

    def test_override(self, resume: Callable[..., Any], recorded: Recorded) -> None:
        run = resume("batch.schedule=[[0,32],[1ep,96],[9,192]]", "resume.policy=override")
        assert run.status == "done"

    def test_restore(self, resume: Callable[..., Any], recorded: Recorded) -> None:
        run = resume("batch.schedule=[[0,32],[1ep,96],[9,192]]", "resume.policy=restore")
        assert run.plan.horizon.batch_sizes.stages == ((0, 32), (6, 64), (9, 192))

    def test_extend(self, resume: Callable[..., Any], recorded: Recorded) -> None:
        run = resume("trainer.max_epochs=6", "resume.policy=extend")
        assert run.plan.horizon.steps == 13
        assert run.plan.horizon.batch_sizes.stages == ((0, 32), (6, 64), (9, 192))

    def test_cooldown_keeps_the_batch_size(self, resume: Callable[..., Any], recorded: Recorded) -> None:
        run = resume("resume.policy=cooldown", "cooldown=linear", "cooldown.length=2ep")
        assert run.plan.horizon.batch_sizes.stages == ((0, 32), (6, 64))
        rates = [rate for step in recorded for rate, _ in step.values()]
        assert rates == sorted(rates, reverse=True) and run.plan.horizon.steps == 8 + 6


@pytest.mark.slow
def test_two_processes_change_the_batch_size_together(tmp_path: Path) -> None:
    first, second, folder = both_ranks(
        tmp_path, "batch.schedule=[[0,64],[1ep,128],[8,320]]", "batch_scaling=linear", "trainer.max_epochs=3",
        "trainer.limit_train_batches=5",
    )  # fmt: skip
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["horizon"]["steps"] == len(first) == 5 + 3 + 1
    assert first == second


def test_a_loader_of_the_user_cannot_join_batches(train: Callable[..., Any]) -> None:
    own = (*OWN, "model._target_=plain_lightning.Net", "data._target_=plain_lightning.Data")
    with pytest.raises(ConfigError, match=r"^batch\.by needs data that lrkit holds in memory"):
        train(*own, "batch.schedule=[[0,8],[3,24]]", "batch.by=loader")


def test_a_module_with_manual_optimization_is_refused(train: Callable[..., Any]) -> None:
    own = (*OWN, "model._target_=plain_lightning.Manual", "data._target_=plain_lightning.Data")
    with pytest.raises(ConfigError, match=r"^batch\.schedule is for automatic optimization"):
        train(*own, "batch.schedule=[[0,8],[3,24]]")


def test_in_a_script_of_plain_lightning() -> None:
    schedule = [[0, 1], ["1ep", 2], [6, 4]]
    UnitGradient.seen.clear()
    module = lrkit.configure(UnitGradient(), lr=0.1, schedule="constant", batch_scaling="linear", base_batch_size=1,
                             batch_schedule=schedule)  # fmt: skip
    trainer = fit(module, batches=4, max_epochs=3, callbacks=[Seen()])
    assert [(round(rate, 9), batches) for rate, batches, _ in Seen.steps] == [(0.1, 1)] * 4 + [(0.2, 2)] * 2 + [
        (0.4, 4)
    ]
    assert UnitGradient.seen == [1.0] * 7 and trainer.accumulate_grad_batches == 1
    plan = lrkit.plan(lr=0.1, schedule="constant", batch_scaling="linear", base_batch_size=1, steps=7,
                      batch_schedule=[[0, 1], [4, 2], [6, 4]])  # fmt: skip
    assert [plan.lr(plan.groups[0], step) for step in range(7)] == [rate for rate, *_ in Seen.steps]
    with pytest.raises(ConfigError, match=r"^accumulate_grad_batches and batch_schedule cannot be used together"):
        fit(module, batches=4, accumulate_grad_batches=2)
    with pytest.raises(ConfigError, match=r"^batch\.schedule\[0\] must begin at 0"):
        lrkit.configure(UnitGradient(), lr=0.1, batch_schedule=[[1, 1]])
    with pytest.raises(ConfigError, match=r"^batch_size and batch_schedule cannot be used together"):
        lrkit.plan(lr=0.1, steps=7, batch_size=1, batch_schedule=schedule)
